#include "config/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet {
namespace model_config_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

std::string ErrorOf(std::string_view yaml) {
  const auto config = ParseModelConfig(yaml, "model.yaml");
  return config.ok() ? "no error" : std::string(Message(config.status()));
}

TEST(ModelConfigTest, AnEmptyFileLeavesEverythingToTheServer) {
  EXPECT_EQ(*ParseModelConfig("", "model.yaml"), ModelConfig());
}

TEST(ModelConfigTest, ReadsEveryKey) {
  const auto config = ParseModelConfig(
      "name: net\n"
      "batching: {max_batch: 16, max_queue_delay_us: 500, max_queue_requests: 8, max_queue_bytes: "
      "1024}\n"
      "inputs:\n"
      "  x.1:\n"
      "    wire: {datatype: UINT8, scale: [0.5, 1, 2], zero_point: [127.5, 0, -3]}\n"
      "routing:\n"
      "  default: fp32\n"
      "  split: {fp32: 50, int8: 49.5, int8-dynamic: 0.5}\n"
      "  sticky: {parameter: user, metadata: x-user, salt: s1}\n"
      "versions: {specific: [3, 1]}\n"
      "precisions: [fp32, int8, int8-dynamic]\n",
      "model.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  ModelConfig expected;
  expected.name = "net";
  expected.batching = {16, 500, 8, 1024};
  expected.wire["x.1"] = {DType::kU8, {0.5F, 1, 2}, {127.5F, 0, -3}};
  expected.routing.default_precision = Precision::kFp32;
  expected.routing.split = {
      {Precision::kFp32, 50}, {Precision::kInt8, 49.5}, {Precision::kInt8Dynamic, 0.5}};
  expected.routing.sticky = {"user", "x-user", "s1"};
  expected.versions.specific = {3, 1};
  expected.precisions = {Precision::kFp32, Precision::kInt8, Precision::kInt8Dynamic};
  EXPECT_EQ(*config, expected);
}

TEST(ModelConfigTest, OneNumberServesAllChannels) {
  const auto config = ParseModelConfig(
      "inputs: {a: {wire: {datatype: INT8, scale: 0.25, zero_point: 83}},\n"
      "         b: {wire: {datatype: UINT8, scale: [1, 2, 3]}}}",
      "model.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->wire, ElementsAre(Pair("a", WireMapping{DType::kI8, {0.25F}, {83}}),
                                        Pair("b", WireMapping{DType::kU8, {1, 2, 3}, {0, 0, 0}})));
}

TEST(ModelConfigTest, UnknownKeysAreRefusedAtEveryDepth) {
  EXPECT_THAT(ErrorOf("shadow: {}"), HasSubstr("model.yaml:1:1: shadow: unknown key"));
  EXPECT_THAT(ErrorOf("inputs: {a: {wire: {scales: [1]}}}"),
              HasSubstr("inputs.a.wire.scales: unknown key, did you mean \"scale\"?"));
  EXPECT_THAT(
      ErrorOf("routing:\n  split: {int4: 50}\n"),
      HasSubstr("model.yaml:2:17: routing.split.int4: expected one of fp32, fp16, bf16, int8, "
                "int8-dynamic; got \"int4\""));
}

TEST(ModelConfigTest, BadWireMappingsAreRefused) {
  EXPECT_THAT(ErrorOf("inputs: {a: {wire: {scale: [1]}}}"), HasSubstr("datatype is missing"));
  EXPECT_THAT(ErrorOf("inputs: {a: {wire: {datatype: STRING}}}"),
              HasSubstr("expected one of UINT8"));
  EXPECT_THAT(
      ErrorOf("inputs: {a: {wire: {datatype: UINT8, scale: [1, 2], zero_point: [1, 2, 3]}}}"),
      HasSubstr("differ in length: 2 and 3"));
  EXPECT_THAT(ErrorOf("inputs: {a: {wire: {datatype: UINT8, scale: 0}}}"),
              HasSubstr("scale must be > 0"));
  EXPECT_THAT(ErrorOf("inputs: {a: {wire: {datatype: UINT8, scale: []}}}"),
              HasSubstr("at least one number"));
  EXPECT_THAT(ErrorOf("inputs: {a: {wire: {datatype: UINT8, scale: [x]}}}"),
              HasSubstr("expected a number"));
  EXPECT_THAT(ErrorOf("inputs: {a: {wire: {datatype: UINT8, scale: [.inf]}}}"),
              HasSubstr("got .inf"));
}

TEST(ModelConfigTest, BadRoutingIsRefused) {
  EXPECT_THAT(ErrorOf("routing: {split: {fp32: 0, int8: 0}}"), HasSubstr("the weights sum to 0"));
  EXPECT_THAT(ErrorOf("routing: {split: {fp32: -1}}"), HasSubstr("expected 0 .. "));
  EXPECT_THAT(ErrorOf("precisions: [fp32]\nrouting: {split: {int8: 1}}"),
              HasSubstr("routing.split.int8: not among `precisions`"));
  EXPECT_THAT(ErrorOf("precisions: [fp32]\nrouting: {default: int8}"),
              HasSubstr("routing.default: not among `precisions`: int8"));
}

TEST(ModelConfigTest, OneVersionPolicyAtMost) {
  EXPECT_THAT(ErrorOf("versions: {latest: 2, all: true}"),
              HasSubstr("give one of latest, all and specific"));
}

TEST(ModelConfigTest, TheVersionPolicySelectsHighestFirst) {
  const auto select = [](std::string_view yaml) {
    return SelectVersions(ParseModelConfig(yaml, "model.yaml")->versions, {1, 10, 3});
  };
  EXPECT_THAT(select(""), ElementsAre(10));
  EXPECT_THAT(select("versions: {latest: 2}"), ElementsAre(10, 3));
  EXPECT_THAT(select("versions: {all: true}"), ElementsAre(10, 3, 1));
  EXPECT_THAT(select("versions: {specific: [1, 7]}"), ElementsAre(1));
}

TEST(ModelConfigTest, BatchingFallsBackToTheServersDefaults) {
  const ServerConfig server;
  const auto batching =
      ResolveBatching(server, *ParseModelConfig("batching: {max_queue_requests: 3}", "model.yaml"));
  ASSERT_TRUE(batching.ok());
  ServerConfig::Batching expected = server.batching;
  expected.max_queue_requests = 3;
  EXPECT_EQ(*batching, expected);
}

TEST(ModelConfigTest, BatchingAboveTheServersLimitIsRefused) {
  const auto batching = ResolveBatching(
      ServerConfig(), *ParseModelConfig("batching: {max_batch: 1000}", "model.yaml"));
  EXPECT_THAT(std::string(Message(batching.status())), HasSubstr("limits.max_batch = 256: 1000"));
}

TEST(ModelConfigTest, EveryRowOfTheTableHasAMeaning) {
  for (const ConfigKeyInfo& key : ModelConfigKeys()) {
    EXPECT_FALSE(key.meaning.empty()) << key.path;
    EXPECT_FALSE(key.accepts.empty()) << key.path;
  }
}

}  // namespace model_config_test
}  // namespace octet
