#include "config/model_config.h"

#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/source_folder.h"

namespace octet {
namespace model_config_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
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
      "1024, p99_target_ms: 12.5, priority_levels: 5, default_priority: 3}\n"
      "inputs:\n"
      "  x.1:\n"
      "    wire: {datatype: UINT8, scale: [0.5, 1, 2], zero_point: [127.5, 0, -3]}\n"
      "routing:\n"
      "  default: fp32\n"
      "  split: {fp32: 50, int8: 49.5, int8-dynamic: 0.5}\n"
      "  versions: {3: 90, 1: 10}\n"
      "  sticky: {parameter: user, metadata: x-user, salt: s1}\n"
      "  shadow: {precision: int8, against: fp32, percent: 2.5, max_queue_requests: 9,\n"
      "           max_queue_bytes: 4096}\n"
      "  guard:\n"
      "    int8: {agreement_percent: 97.5, sqnr_db: 20, error_percent: 1, p99_us: 5000,\n"
      "           window_seconds: 30, min_samples: 10, recover_windows: 0, action: fall_back}\n"
      "    fp32: {p99_us: 9000}\n"
      "capture: {percent: 2.5, max_bytes: 1024, redact: [x.1, y]}\n"
      "versions: {specific: [3, 1]}\n"
      "precisions: [fp32, int8, int8-dynamic]\n",
      "model.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  ModelConfig expected;
  expected.name = "net";
  expected.batching = {16, 500, 8, 1024, 12.5, 5, 3};
  expected.wire["x.1"] = {DType::kU8, {0.5F, 1, 2}, {127.5F, 0, -3}};
  expected.routing.default_precision = Precision::kFp32;
  expected.routing.split = {
      {Precision::kFp32, 50}, {Precision::kInt8, 49.5}, {Precision::kInt8Dynamic, 0.5}};
  expected.routing.versions = {{3, 90}, {1, 10}};
  expected.routing.sticky = {"user", "x-user", "s1"};
  expected.routing.shadow = {Precision::kInt8, Precision::kFp32, 2.5, 9, 4096};
  expected.routing.guard[Precision::kInt8] = {
      97.5, 20, 1, 5000, 30, 10, 0, ModelConfig::Routing::Guard::Action::kFallBack};
  expected.routing.guard[Precision::kFp32].p99_us = 9000;
  expected.capture = {2.5, 1024, {"x.1", "y"}};
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

TEST(ModelConfigTest, WhatIsNamedAndSaysNothingIsAMistake) {
  EXPECT_THAT(ErrorOf("state: {h: {}}"),
              HasSubstr("model.yaml:1:9: state.h: says nothing, expected one of initial, output"));
  EXPECT_THAT(ErrorOf("state: {h: }"), HasSubstr("state.h: says nothing"));
  EXPECT_THAT(ErrorOf("routing: {guard: {int8: {}}}"),
              HasSubstr("routing.guard.int8: says nothing, expected one of action, "));
  EXPECT_THAT(ErrorOf("inputs: {a: {wire: {}}}"),
              HasSubstr("inputs.a: says nothing, expected one of wire in it"));
  EXPECT_THAT(ErrorOf("pipeline: {steps: {a: {}, b: {model: net}}, outputs: {y: b.y}}"),
              HasSubstr("pipeline.steps.a: says nothing"));
  EXPECT_THAT(ErrorOf("state: {h: {outptu: t}}"), Not(HasSubstr("says nothing")))
      << "one mistake is told once";
  for (const char* list :
       {"precisions: []", "versions: {specific: []}", "state: {h: {output: t, shape: []}}",
        "routing: {guard: {int8: {p99_us: 9}}, ramp: {precision: int8, steps: []}}"}) {
    EXPECT_THAT(ErrorOf(list), HasSubstr("expected at least one, got an empty list")) << list;
  }
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

TEST(ModelConfigTest, AShadowComparesWithAnyOtherPrecisionAndHasBounds) {
  const auto config =
      ParseModelConfig("routing: {shadow: {precision: bf16, percent: 100}}", "model.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  const auto& shadow = config->routing.shadow;
  ASSERT_TRUE(shadow.has_value());
  EXPECT_EQ(shadow->precision, Precision::kBf16);
  EXPECT_FALSE(shadow->against.has_value());
  EXPECT_EQ(shadow->max_queue_requests, 64);
  EXPECT_EQ(shadow->max_queue_bytes, int64_t{64} << 20);
  EXPECT_FALSE(ParseModelConfig("routing: {shadow: }", "model.yaml")->routing.shadow.has_value());
}

TEST(ModelConfigTest, BadShadowsAreRefusedWithTheirPlace) {
  EXPECT_THAT(ErrorOf("routing:\n  shadow:\n    precision: int4\n    percent: 5\n"),
              HasSubstr("model.yaml:3:16: routing.shadow.precision: expected one of fp32, fp16, "
                        "bf16, int8, int8-dynamic; got \"int4\""));
  EXPECT_THAT(ErrorOf("routing:\n  shadow: {precision: int8, percent: 101}\n"),
              HasSubstr("model.yaml:2:38: routing.shadow.percent: expected 0 .. 100, got 101"));
  EXPECT_THAT(ErrorOf("routing:\n  shadow: {precision: int8, percent: -1}\n"),
              HasSubstr("model.yaml:2:38: routing.shadow.percent: expected 0 .. 100, got -1"));
  EXPECT_THAT(ErrorOf("routing:\n  shadow: {precision: int8, percent: .nan}\n"),
              HasSubstr("routing.shadow.percent: expected 0 .. 100, got .nan"));
  EXPECT_THAT(ErrorOf("routing:\n  shadow: {precision: int8, against: int8, percent: 5}\n"),
              HasSubstr("model.yaml:2:38: routing.shadow.against: a precision is not compared with "
                        "itself: int8"));
  EXPECT_THAT(ErrorOf("routing:\n  shadow: {against: int8, precision: int8, percent: 5}\n"),
              HasSubstr("model.yaml:2:38: routing.shadow.precision: a precision is not compared "
                        "with itself: int8"));
  EXPECT_THAT(ErrorOf("routing: {shadow: {precision: int8}}"),
              HasSubstr("model.yaml: routing.shadow: percent is missing"));
  EXPECT_THAT(ErrorOf("routing: {shadow: {percent: 5}}"),
              HasSubstr("model.yaml: routing.shadow: precision is missing"));
  EXPECT_THAT(ErrorOf("routing: {shadow: {precision: int8, percent: 5, max_queue_requests: 0}}"),
              HasSubstr("routing.shadow.max_queue_requests: expected 1 .. 1000000, got 0"));
  EXPECT_THAT(ErrorOf("routing: {shadow: {precision: int8, percents: 5}}"),
              HasSubstr("routing.shadow.percents: unknown key, did you mean \"percent\"?"));
  EXPECT_THAT(ErrorOf("precisions: [fp32]\nrouting: {shadow: {precision: int8, percent: 5}}"),
              HasSubstr("routing.shadow.precision: not among `precisions`: int8"));
  EXPECT_THAT(ErrorOf("precisions: [int8]\n"
                      "routing: {shadow: {precision: int8, against: fp32, percent: 5}}"),
              HasSubstr("routing.shadow.against: not among `precisions`: fp32"));
}

TEST(ModelConfigTest, BadGuardsAreRefused) {
  EXPECT_THAT(ErrorOf("routing:\n  guard: {int4: {p99_us: 5}}\n"),
              HasSubstr("model.yaml:2:26: routing.guard.int4.p99_us: expected one of fp32, "));
  EXPECT_THAT(ErrorOf("routing:\n  guard: {int8: {error_percent: 101}}\n"),
              HasSubstr("model.yaml:2:33: routing.guard.int8.error_percent: expected 0 .. 100, got "
                        "101"));
  EXPECT_THAT(ErrorOf("routing: {guard: {int8: {p99_us: 5, action: stop}}}"),
              HasSubstr("routing.guard.int8.action: expected one of alert, fall_back, shift; got "
                        "\"stop\""));
  EXPECT_THAT(ErrorOf("routing: {guard: {int8: {window_seconds: 5}}}"),
              HasSubstr("routing.guard.int8: no rule, expected agreement_percent, "));
  EXPECT_THAT(ErrorOf("routing: {guard: {int8: {sqnr_db: 5}}}"),
              HasSubstr("routing.guard.int8: agreement_percent and sqnr_db need copies, expected "
                        "routing.shadow.precision: int8"));
  EXPECT_THAT(ErrorOf("routing: {shadow: {precision: bf16, percent: 5},\n"
                      "          guard: {int8: {agreement_percent: 5}}}"),
              HasSubstr("need copies"));
  EXPECT_THAT(ErrorOf("precisions: [fp32]\nrouting: {guard: {int8: {p99_us: 5}}}"),
              HasSubstr("routing.guard.int8: not among `precisions`: int8"));
}

TEST(ModelConfigTest, ACaptureHasAPercentageAndBounds) {
  const auto config = ParseModelConfig("capture: {percent: 5}", "model.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_TRUE(config->capture.has_value());
  EXPECT_EQ(config->capture->max_bytes, int64_t{64} << 20);
  EXPECT_THAT(config->capture->redact, ElementsAre());
  EXPECT_THAT(ErrorOf("capture: {redact: [x]}"),
              HasSubstr("model.yaml: capture: percent is missing"));
  EXPECT_THAT(ErrorOf("capture: {percent: 101}"),
              HasSubstr("model.yaml:1:20: capture.percent: expected 0 .. 100, got 101"));
  EXPECT_THAT(ErrorOf("capture: {percent: 5, max_bytes: 0}"),
              HasSubstr("capture.max_bytes: expected 1 .. "));
  EXPECT_THAT(ErrorOf("capture: {percent: 5, redacted: [x]}"),
              HasSubstr("capture.redacted: unknown key, did you mean \"redact\"?"));
}

TEST(ModelConfigTest, OneVersionPolicyAtMost) {
  EXPECT_THAT(ErrorOf("versions: {latest: 2, all: true}"),
              HasSubstr("give one of latest, all and specific"));
}

TEST(ModelConfigTest, TheVersionPolicySelectsHighestFirst) {
  const auto select = [](std::string_view yaml) {
    return SelectVersions(*ParseModelConfig(yaml, "model.yaml"), {1, 10, 3});
  };
  EXPECT_THAT(select(""), ElementsAre(10));
  EXPECT_THAT(select("versions: {latest: 2}"), ElementsAre(10, 3));
  EXPECT_THAT(select("versions: {all: true}"), ElementsAre(10, 3, 1));
  EXPECT_THAT(select("versions: {specific: [1, 7]}"), ElementsAre(1));
  EXPECT_THAT(select("routing: {versions: {1: 90, 3: 10, 7: 1}}"), ElementsAre(3, 1));
  EXPECT_THAT(select("versions: {latest: 1}\nrouting: {versions: {1: 90}}"), ElementsAre(10));
}

TEST(ModelConfigTest, TheVersionPolicyFollowsTheShares) {
  using Versions = ModelConfig::Versions;
  const auto policy = [](std::string_view yaml) {
    return VersionPolicy(*ParseModelConfig(yaml, "model.yaml"));
  };
  EXPECT_EQ(policy(""), Versions{.latest = 1});
  EXPECT_EQ(policy("versions: {specific: [3, 1]}"), (Versions{.specific = {3, 1}}));
  EXPECT_EQ(policy("routing: {versions: {1: 90, 3: 10}}"), (Versions{.specific = {1, 3}}));
  EXPECT_EQ(policy("routing: {versions: {3: 1}, guard: {fp32: {p99_us: 9}}, ramp: {version: 4}}"),
            (Versions{.specific = {3, 4}}));
}

TEST(ModelConfigTest, SharesOfVersionsAreChecked) {
  EXPECT_EQ(ParseModelConfig("routing: {versions: {3: 90, 4: 10}}", "model.yaml")->routing.versions,
            (std::map<int64_t, double>{{3, 90}, {4, 10}}));
  EXPECT_THAT(ErrorOf("routing: {versions: {3: 0, 4: 0}}"),
              HasSubstr("model.yaml: routing.versions: the weights sum to 0"));
  EXPECT_THAT(ErrorOf("routing: {versions: {latest: 5}}"),
              HasSubstr("routing.versions.latest: a version: expected"));
  EXPECT_THAT(ErrorOf("versions: {specific: [1]}\nrouting: {versions: {3: 5}}"),
              HasSubstr("model.yaml: routing.versions.3: not among `versions.specific`"));
}

TEST(ModelConfigTest, ARampNeedsSomebodyWhoConsents) {
  const auto config = ParseModelConfig(
      "routing: {guard: {int8: {p99_us: 9}}, ramp: {precision: int8, steps: [1, 50]}}",
      "model.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->routing.ramp->steps, ElementsAre(1, 50));
  EXPECT_EQ(config->routing.ramp->hold_seconds, 300);
  const std::string guard = "guard: {int8: {p99_us: 9}}";
  EXPECT_THAT(ErrorOf("routing: {ramp: {precision: int8}}"),
              HasSubstr("model.yaml: routing.ramp: needs a guard that consents"));
  EXPECT_THAT(ErrorOf("routing: {ramp: {hold_seconds: 5}}"),
              HasSubstr("give one of precision and version"));
  EXPECT_THAT(ErrorOf("routing: {" + guard + ", ramp: {precision: int8, steps: [5, 5]}}"),
              HasSubstr("steps: expected rising shares up to 100"));
  EXPECT_THAT(ErrorOf("routing: {" + guard + ", split: {int8: 1}, ramp: {precision: int8}}"),
              HasSubstr("its share comes from the ramp"));
  EXPECT_THAT(ErrorOf("routing: {" + guard + ", ramp: {version: 4}}"),
              HasSubstr("routing.versions must name who answers the rest"));
  EXPECT_THAT(ErrorOf("routing: {" + guard + ", default: fp32, ramp: {precision: int9}}"),
              HasSubstr("routing.ramp.precision: expected one of"));
  EXPECT_THAT(ErrorOf("versions: {specific: [3]}\nrouting: {versions: {3: 1}, " + guard +
                      ", ramp: {version: 4}}"),
              HasSubstr("routing.ramp: version: not among `versions.specific`"));
  EXPECT_THAT(ErrorOf("routing: {guard: {int8: {p99_us: 9, action: shift}}}"),
              HasSubstr("shift lowers a weight, expected routing.split.int8"));
}

absl::StatusOr<ModelConfig> RolledOut(std::string_view model, std::string_view rollout) {
  const auto over = ParseModelConfig(rollout, "rollout.yaml");
  if (!over.ok()) return over.status();
  return ApplyRollout(*ParseModelConfig(model, "model.yaml"), *over, "rollout.yaml");
}

TEST(ModelConfigTest, ASplitOfARolloutTakesThePlaceOfShadowAndGuards) {
  const std::string_view model =
      "precisions: [fp32, int8]\n"
      "routing: {split: {fp32: 9, int8: 1}, shadow: {precision: int8, percent: 5}, "
      "guard: {int8: {p99_us: 9, action: shift}}}";
  const auto config =
      RolledOut(model, "precisions: [fp32]\nrouting: {default: fp32, split: {fp32: 1}}");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->routing.guard.empty());
  EXPECT_FALSE(config->routing.shadow);
  const auto without = RolledOut(model, "routing: {default: fp32}");
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_TRUE(without->routing.guard.contains(Precision::kInt8));
  EXPECT_TRUE(without->routing.shadow);
}

TEST(ModelConfigTest, ASplitOfARolloutEndsTheRampOfAPrecision) {
  const auto config = ApplyRollout(
      *ParseModelConfig("routing: {guard: {int8: {p99_us: 9}}, ramp: {precision: int8}}", "m"),
      *ParseModelConfig("routing: {split: {fp32: 99, int8: 1}}", "r"), "r");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->routing.ramp.has_value());
}

TEST(ModelConfigTest, ASplitOfARolloutLeavesTheRampOfAVersionItsGuards) {
  const std::string_view model =
      "routing: {versions: {1: 100}, ramp: {version: 2}, shadow: {precision: bf16, percent: 5}, "
      "guard: {int8: {error_percent: 1}, bf16: {sqnr_db: 20}}}";
  const auto config = RolledOut(model, "routing: {split: {fp32: 100}}");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->routing.ramp.has_value());
  EXPECT_TRUE(config->routing.guard.contains(Precision::kInt8));
  EXPECT_FALSE(config->routing.guard.contains(Precision::kBf16)) << "it needs the shadow";
  const auto without = RolledOut(model, "precisions: [fp32]\nrouting: {split: {fp32: 100}}");
  EXPECT_EQ(without.status().code(), absl::StatusCode::kInvalidArgument)
      << "nobody is left who consents";
}

TEST(ModelConfigTest, AGuardThatASplitOfARolloutLeavesNothingToShiftAlerts) {
  using Action = ModelConfig::Routing::Guard::Action;
  const std::string_view model =
      "routing: {versions: {1: 100}, ramp: {version: 2}, split: {fp32: 1, bf16: 1, int8: 1}, "
      "guard: {bf16: {error_percent: 1, action: shift}, int8: {error_percent: 1, action: shift}, "
      "fp32: {error_percent: 1, action: fall_back}}}";
  const auto config = RolledOut(model, "routing: {split: {fp32: 100, bf16: 0, int8: 1}}");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->routing.guard.at(Precision::kBf16).action, Action::kAlert);
  EXPECT_EQ(config->routing.guard.at(Precision::kInt8).action, Action::kShift);
  EXPECT_EQ(config->routing.guard.at(Precision::kFp32).action, Action::kFallBack);
}

TEST(ModelConfigTest, BatchingFallsBackToTheServersDefaults) {
  const ServerConfig server;
  const auto batching = ResolveBatching(
      server,
      *ParseModelConfig("batching: {max_queue_requests: 3, p99_target_ms: 20}", "model.yaml"));
  ASSERT_TRUE(batching.ok());
  ServerConfig::Batching expected = server.batching;
  expected.max_queue_requests = 3;
  expected.p99_target_ms = 20;
  EXPECT_EQ(*batching, expected);
}

TEST(ModelConfigTest, TheDefaultPriorityIsAmongTheLevels) {
  ServerConfig server;
  server.batching.priority_levels = 9;
  server.batching.default_priority = 8;
  const auto resolve = [&](std::string_view yaml) {
    return ResolveBatching(server, *ParseModelConfig(yaml, "model.yaml"));
  };
  EXPECT_EQ(resolve("")->DefaultPriority(), 8);
  EXPECT_EQ(resolve("batching: {default_priority: 1}")->DefaultPriority(), 1);
  EXPECT_EQ(resolve("batching: {priority_levels: 3}")->DefaultPriority(), 3) << "the last one";
  EXPECT_EQ(resolve("batching: {priority_levels: 3, default_priority: 2}")->DefaultPriority(), 2);
  EXPECT_EQ(resolve("batching: {priority_levels: 0}")->DefaultPriority(), 1) << "there is one";
  EXPECT_EQ(Message(resolve("batching: {priority_levels: 3, default_priority: 4}").status()),
            "batching.default_priority: not among batching.priority_levels = 3: 4");
}

TEST(ModelConfigTest, BatchingAboveTheServersLimitIsRefused) {
  const auto batching = ResolveBatching(
      ServerConfig(), *ParseModelConfig("batching: {max_batch: 1000}", "model.yaml"));
  EXPECT_THAT(std::string(Message(batching.status())), HasSubstr("limits.max_batch = 256: 1000"));
}

TEST(ModelConfigTest, LabelsAreNoOtherWordForAVersion) {
  EXPECT_EQ(ParseModelConfig("version_labels: {stable: 3}", "")->version_labels,
            (std::map<std::string, int64_t>{{"stable", 3}}));
  for (const char* label : {"'3'", "int8", "''"}) {
    const auto config = ParseModelConfig(Format("version_labels: {{{}: 3}}", label), "");
    EXPECT_THAT(std::string(Message(config.status())), HasSubstr("a label is no number")) << label;
  }
  EXPECT_FALSE(ParseModelConfig("version_labels: {stable: 0}", "").ok());
}

TEST(ModelConfigTest, ARolloutTakesThePlaceOfWholeSections) {
  const auto config = RolledOut(
      "batching: {max_batch: 4}\nprecisions: [fp32, bf16]\n"
      "routing: {default: fp32, split: {fp32: 1, bf16: 1}, sticky: {parameter: user}}",
      "precisions: [fp32, int8]\nrouting: {split: {fp32: 95, int8: 5}, "
      "guard: {int8: {error_percent: 1}}}");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->batching.max_batch, 4);
  EXPECT_THAT(config->precisions, ElementsAre(Precision::kFp32, Precision::kInt8));
  EXPECT_EQ(config->routing.default_precision, Precision::kFp32);
  EXPECT_EQ(config->routing.split,
            (std::map<Precision, double>{{Precision::kFp32, 95}, {Precision::kInt8, 5}}));
  EXPECT_EQ(config->routing.sticky.parameter, "user");
  EXPECT_EQ(config->routing.guard.size(), 1U);
}

TEST(ModelConfigTest, ReadsWhatAModelKeepsBetweenRequests) {
  const auto config = ParseModelConfig(
      "state: {h: {output: h2}, c.0: {output: c2, initial: -1.5}, p: {output: q, shape: [1, 0]}}\n"
      "sequences: {max_sequences: 5, idle_seconds: 6, drain_seconds: 0, max_state_bytes: 7}",
      "model.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  ModelConfig expected;
  expected.state = {{"h", {"h2", 0}}, {"c.0", {"c2", -1.5}}, {"p", {"q", 0, {1, 0}}}};
  expected.sequences = {5, 6, 0, 7};
  EXPECT_EQ(*config, expected);
}

TEST(ModelConfigTest, AStateThatCannotBeKeptIsRefused) {
  EXPECT_THAT(ErrorOf("state: {h: {initial: 1}}"),
              HasSubstr("model.yaml: state.h: output is missing"));
  EXPECT_THAT(ErrorOf("state: {a: {output: t}, b: {output: t}}"),
              HasSubstr("model.yaml: state.b: output 't' is the state of 'a' already"));
  EXPECT_THAT(ErrorOf("state: {h: {output: t}}\n"
                      "inputs: {h: {wire: {datatype: UINT8, scale: 1, zero_point: 0}}}"),
              HasSubstr("model.yaml: state.h: clients do not send it: no inputs.h.wire"));
  for (const char* other :
       {"routing: {shadow: {precision: int8, percent: 1}}", "capture: {percent: 1}"}) {
    EXPECT_THAT(ErrorOf(std::string("state: {h: {output: t}}\n") + other),
                HasSubstr("a model with `state` has no routing.shadow and no capture"))
        << other;
  }
  EXPECT_THAT(ErrorOf("sequences: {idle_seconds: 5}"),
              HasSubstr("model.yaml: sequences: the model has none without `state`"));
  EXPECT_THAT(ErrorOf("state: {h: {output: t}}\nsequences: {idle_seconds: 0}"),
              HasSubstr("sequences.idle_seconds: expected 1 .. 86400, got 0"));
}

TEST(ModelConfigTest, ARolloutCapturesNothingThatTheModelWithholds) {
  const auto config = RolledOut("capture: {percent: 5, max_bytes: 1048576, redact: [user]}",
                                "capture: {percent: 100}");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->capture, (ModelConfig::Capture{100, 1048576, {"user"}}));
  const auto fresh = RolledOut("", "capture: {percent: 100}");
  ASSERT_TRUE(fresh.ok()) << fresh.status();
  EXPECT_EQ(fresh->capture, ModelConfig::Capture{.percent = 100});
}

TEST(ModelConfigTest, ARolloutMovesTrafficAndNothingElse) {
  for (const char* rollout :
       {"batching: {max_batch: 4}", "name: other", "versions: {all: true}",
        "routing: {sticky: {salt: new}}", "capture: {percent: 1, redact: [x]}"}) {
    EXPECT_THAT(std::string(Message(RolledOut("", rollout).status())),
                HasSubstr("rollout.yaml: expected routing.default"))
        << rollout;
  }
  EXPECT_THAT(
      std::string(Message(RolledOut("precisions: [fp32]", "routing: {default: int8}").status())),
      HasSubstr("rollout.yaml: routing.default: not among `precisions`: int8"));
}

TEST(ModelConfigTest, ReadsAPipeline) {
  const auto config = ParseModelConfig(
      "pipeline:\n"
      "  steps:\n"
      "    decode:\n"
      "      preprocess: {resize: 256, scale: 1, mean: [1, 2, 3], std: 2, channels: BGR,\n"
      "                   upright: true, max_pixels: 1000}\n"
      "    classify: {model: net, version: stable, precision: int8, inputs: {x: decode.tensor}}\n"
      "  outputs: {scores: classify.y, again: classify.z.1}\n",
      "model.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  ModelConfig::Pipeline expected;
  expected.steps["decode"].preprocess = {256, 1, {1, 2, 3}, {2}, true, true, 1000};
  expected.steps["classify"] = {"net", "stable", Precision::kInt8, {{"x", "decode.tensor"}}, {}};
  expected.outputs = {{"scores", "classify.y"}, {"again", "classify.z.1"}};
  EXPECT_EQ(config->pipeline, expected);
  EXPECT_TRUE(CheckPipelineAlone("model.yaml", *config).ok());
  EXPECT_EQ(ParseTensorSource("classify.z.1").step, "classify");
  EXPECT_EQ(ParseTensorSource("classify.z.1").name, "z.1");
  EXPECT_EQ(ParseTensorSource("photo").step, "");
}

TEST(ModelConfigTest, NamesAreUtf8) {
  const auto error = [](std::string_view step, std::string_view input, std::string_view output) {
    return ErrorOf(Format(
        "pipeline: {{steps: {{{}: {{model: net, inputs: {{{}: x}}}}}}, outputs: {{{}: {}.y}}}}",
        step, input, output, step));
  };
  EXPECT_EQ(error("caf\u00e9", "caf\u00e9", "caf\u00e9"), "no error");
  EXPECT_EQ(ErrorOf("name: net  # caf\xE9"), "no error") << "nobody is told of it";
  EXPECT_THAT(error("caf\xE9", "a", "a"), HasSubstr("expected UTF-8, got \"caf\uFFFD\""));
  EXPECT_THAT(error("a", "caf\xE9", "a"), HasSubstr("expected UTF-8, got \"caf\uFFFD\""));
  EXPECT_THAT(error("a", "a", "caf\xE9"), HasSubstr("expected UTF-8, got \"caf\uFFFD\""));
  EXPECT_THAT(ErrorOf("version_labels: {caf\xE9: 1}"), HasSubstr("expected UTF-8"));
}

TEST(ModelConfigTest, SaysWhatIsWrongWithAPipeline) {
  const auto error = [](std::string_view steps, std::string_view outputs = "{y: a.y}") {
    return ErrorOf(Format("pipeline: {{steps: {{{}}}, outputs: {}}}", steps, outputs));
  };
  EXPECT_EQ(error("a: {model: net}"), "no error");
  EXPECT_EQ(ErrorOf("pipeline: {outputs: {y: a.y}}"), "model.yaml: pipeline: steps are missing");
  EXPECT_EQ(ErrorOf("pipeline: {steps: {a: {model: net}}}"),
            "model.yaml: pipeline: outputs are missing");
  EXPECT_THAT(error("a: {version: 1}"), HasSubstr("steps.a: expected one of model and preprocess"));
  EXPECT_THAT(error("a: {model: net, preprocess: {resize: 1}}"), HasSubstr("expected one of"));
  EXPECT_THAT(error("a: {precision: int8, preprocess: {resize: 1}}"), HasSubstr("for a step with"));
  EXPECT_THAT(error("a: {model: net, version: int8}"),
              HasSubstr("steps.a.version: expected a number or a label, got a precision: int8"));
  EXPECT_THAT(error("a: {preprocess: {std: [1, 0]}}"), HasSubstr("preprocess.std: expected > 0"));
  EXPECT_THAT(error("a.b: {model: net}"), HasSubstr("a step's name has no dot"));
  EXPECT_THAT(error("a: {model: net, inputs: {x: b.y}}"),
              HasSubstr("steps.a.inputs.x: no such step: \"b\", expected one of \"a\""));
  EXPECT_THAT(error("a: {model: net, inputs: {x: 'a.'}}"), HasSubstr("expected STEP.OUTPUT"));
  EXPECT_THAT(error("a: {model: net, inputs: [x]}"), HasSubstr("expected a mapping, got a list"));
  EXPECT_THAT(error("a: {model: net}", "{y: x}"), HasSubstr("outputs.y: expected STEP.OUTPUT"));
  EXPECT_THAT(error("a: {model: net}", "{y: b.y}"), HasSubstr("no such step: \"b\""));
  EXPECT_THAT(error("a: {model: net}", "{y: a.y, y: a.z}"), HasSubstr("given twice"));
  EXPECT_THAT(error("a: {preprocess: {resise: 8}}"), HasSubstr("did you mean \"resize\"?"));
  const auto beside = [](std::string_view keys) {
    const auto config = ParseModelConfig(
        Format("{}\npipeline: {{steps: {{a: {{model: net}}}}, outputs: {{y: a.y}}}}", keys),
        "model.yaml");
    return std::string(Message(CheckPipelineAlone("model.yaml", config.value())));
  };
  EXPECT_EQ(
      beside("name: net\nbatching: {max_batch: 2, max_queue_requests: 3, max_queue_bytes: 4}\n"
             "routing: {sticky: {parameter: user, metadata: x-user}}"),
      "");
  for (const std::string_view keys :
       {"precisions: [fp32]", "batching: {max_queue_delay_us: 1}", "batching: {p99_target_ms: 1}",
        "routing: {sticky: {parameter: user, salt: spring}}"}) {
    EXPECT_THAT(beside(keys), HasSubstr("beside a pipeline expected name, batching (max_batch"))
        << keys;
  }
}

/// The line of the lines that gives the key `path`, found by walking down its parts; it may be
/// commented out, and `*` stands for any name.
std::string LineOf(std::istream& lines, const std::string& path) {
  std::istringstream parts(path);
  std::string line;
  for (std::string part, indent; std::getline(parts, part, '.'); indent += "  ") {
    const auto gives = [&](std::string_view text) {
      if (!text.starts_with(indent)) return false;
      text.remove_prefix(indent.size());
      if (text.starts_with("# ")) text.remove_prefix(2);
      if (part == "*") return !text.starts_with(' ') && text.find(':') != std::string_view::npos;
      return text.starts_with(part + ":");
    };
    while (std::getline(lines, line) && !gives(line)) {
    }
  }
  return lines ? line : "";
}

TEST(ModelConfigTest, TheShippedReferenceHoldsEveryKeyWithItsUnitAndItsRange) {
  const std::string file = SourceFolder() / "config/model.yaml";
  const auto config = LoadModelConfig(file);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->routing.shadow.has_value());
  for (const ConfigKeyInfo& key : ModelConfigKeys()) {
    std::ifstream lines(file);
    const std::string line = LineOf(lines, key.path);
    const std::string unit = key.unit.empty() ? "[" : "[" + key.unit + "; ";
    EXPECT_THAT(line, HasSubstr(unit + key.accepts + "] " + key.meaning)) << key.path;
    EXPECT_FALSE(key.meaning.empty()) << key.path;
    EXPECT_FALSE(key.accepts.empty()) << key.path;
  }
}

}  // namespace model_config_test
}  // namespace octet
