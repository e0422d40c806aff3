// How model.yaml and rollout.yaml move a model's traffic, through the repository that reads them.
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/npz_writer.h"
#include "engine/tensor/status.h"
#include "tests/support/repository_test.h"

namespace octet {
namespace model_routing_test {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ModelRoutingTest : public ModelRepositoryTest {};

TEST_F(ModelRoutingTest, AGuardsLimitIsHeldAgainstItsRequestsOneByOne) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/model.yaml", "routing: {guard: {fp32: {p99_us: 50000}}}");
  Open();
  EXPECT_EQ(Ask("net"), 2);
  const auto version = *repository_->Find("net", "");
  ASSERT_NE(version->Find(Precision::kFp32)->latency_limit, nullptr);
  EXPECT_EQ(version->Find(Precision::kFp32)->latency_limit->requests(), 1U);
}

TEST_F(ModelRoutingTest, ModelYamlAloneSwapsTheRoutingWithoutLoading) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", ScalingModel(3));
  folder_.Write("net/model.yaml", "routing: {split: {fp32: 1, bf16: 1}}");
  Open();
  const auto before = *repository_->Find("net", "");
  folder_.Write("net/model.yaml",
                "routing: {split: {fp32: 1, bf16: 3}}\n"
                "batching: {max_queue_requests: 7, priority_levels: 3}\nversions: {all: true}");
  PollTwice();
  const auto after = *repository_->Find("net", "");
  EXPECT_EQ(after->routes.candidates[1].weight, 3);
  EXPECT_EQ(after->Find(Precision::kFp32)->queue->target().max_queue_requests, 7);
  EXPECT_EQ(after->Find(Precision::kFp32)->queue->target().levels.count, 3);
  EXPECT_EQ(after->Find(Precision::kFp32)->queue->target().levels.default_level, 3);
  EXPECT_EQ(before->policy, (ModelConfig::Versions{.latest = 1}));
  EXPECT_EQ(after->policy, (ModelConfig::Versions{.all = true}));
  EXPECT_EQ(after->Find(Precision::kFp32)->queue->target().model,
            before->Find(Precision::kFp32)->queue->target().model);
  EXPECT_EQ(loads(), 2);
  EXPECT_EQ(Ask(*before), 2) << "the version before goes on answering those who hold it";
}

TEST_F(ModelRoutingTest, AutoTakesTheFastestThatIsServed) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", ScalingModel(2));
  folder_.Write("net/model.yaml", "routing: {default: auto}");
  const std::vector<float> x = {1, 2, 3, 4};
  const std::vector<float> y = {2, 4, 6, 8};
  ASSERT_TRUE(WriteNpz(folder_.path("net/1/golden.npz"),
                       std::vector<NpzArray>{{"x", {{x.data(), {DType::kF32, {1, 4}}}}},
                                             {"y", {{y.data(), {DType::kF32, {1, 4}}}}}})
                  .ok());
  Open();
  const auto version = *repository_->Find("net", "");
  const auto fp32 = version->Find(Precision::kFp32)->run_time;
  const auto bf16 = version->Find(Precision::kBf16)->run_time;
  ASSERT_TRUE(fp32 && bf16);
  const Precision faster = *bf16 < *fp32 ? Precision::kBf16 : Precision::kFp32;
  EXPECT_EQ(DefaultPrecision(version->routes), faster);
  EXPECT_THAT(repository_->Index(true)[0].reason,
              AllOf(HasSubstr(Format("default {}: fp32 takes ", PrecisionName(faster))),
                    HasSubstr(" ms, keeps to golden.npz; bf16 takes ")));
  // One that comes in by a ramp is no default, however fast.
  folder_.Write("net/model.yaml",
                Format("routing: {{default: auto, guard: {{{0}: {{error_percent: 1}}}}, ramp: "
                       "{{precision: {0}}}}}",
                       PrecisionName(faster)));
  PollTwice();
  EXPECT_EQ((*repository_->Find("net", ""))->routes.default_precision,
            faster == Precision::kFp32 ? Precision::kBf16 : Precision::kFp32);
  folder_.Write("net/model.yaml", "routing: {default: auto}");
  // Without answers to hold it to, nothing says that the faster one is as good.
  folder_.Remove("net/1/golden.npz");
  PollTwice();
  EXPECT_EQ(DefaultPrecision((*repository_->Find("net", ""))->routes), Precision::kFp32);
  EXPECT_THAT(repository_->Index(true)[0].reason,
              AllOf(HasSubstr("default fp32: fp32 takes "), HasSubstr(" ms, the most exact one; "),
                    HasSubstr("bf16 takes "), HasSubstr(" ms, no golden.npz: not a candidate")));
  const auto facts = [this] {
    const auto now = *repository_->Find("net", "");
    return now->experiment->Read(*now);
  };
  EXPECT_EQ(facts().arms[0].reason, "");
  EXPECT_EQ(facts().arms[1].reason, "default: auto: no golden.npz: not a candidate");
}

TEST_F(ModelRoutingTest, VersionsHaveOtherNames) {
  folder_.Write("net/3/fp32.onnx", ScalingModel(3));
  folder_.Write("net/4/fp32.onnx", ScalingModel(4));
  folder_.Write("net/model.yaml", "versions: {all: true}\nversion_labels: {stable: 3, next: 7}");
  Open();
  EXPECT_EQ(Ask("net", Precision::kFp32, "stable"), 3);
  EXPECT_EQ(Ask("net", Precision::kFp32, "4"), 4);
  EXPECT_EQ(Ask("net", Precision::kFp32, "int8"), 4) << "a precision is one of the highest version";
  EXPECT_EQ(repository_->Find("net", "next").status().code(), absl::StatusCode::kNotFound);
  const absl::Status unknown = repository_->Find("net", "canary").status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(unknown)),
              HasSubstr("'next', 'stable' or nothing, got 'canary'"));
  folder_.Write("net/model.yaml", "versions: {all: true}\nversion_labels: {stable: 4}");
  PollTwice();
  EXPECT_EQ(Ask("net", Precision::kFp32, "stable"), 4);
}

TEST_F(ModelRoutingTest, VersionsShareTheTrafficThatNamesNone) {
  folder_.Write("net/2/fp32.onnx", ScalingModel(2));
  folder_.Write("net/3/fp32.onnx", ScalingModel(3));
  folder_.Write("net/4/fp32.onnx", ScalingModel(4));
  folder_.Write("net/4/bf16.onnx", ScalingModel(4));
  folder_.Write("net/model.yaml", "routing: {versions: {3: 90, 4: 10}}");
  Open();
  EXPECT_THAT(Rows(*repository_), ElementsAre("net/3 READY", "net/4 READY"));
  const auto share = [this](RouteFacts facts) {
    return (*repository_->FindShare("net", facts))->number;
  };
  EXPECT_EQ(share({.draw = 0.89}), 3);
  EXPECT_EQ(share({.draw = 0.91}), 4);
  EXPECT_EQ(share({.sticky_key = "a", .draw = 0.1}), share({.sticky_key = "a", .draw = 0.9}));
  EXPECT_EQ(share({.precision = "bf16", .draw = 0}), 4) << "3 has no bf16";
  folder_.Remove("net/4/fp32.onnx");
  folder_.Remove("net/4/bf16.onnx");
  PollTwice();
  EXPECT_EQ(share({.draw = 0.99}), 3) << "4 is not ready";
  EXPECT_EQ(repository_->FindShare("nett", {}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelRoutingTest, ARampBringsAVersionInAndAReloadDoesNotBeginItAnew) {
  const std::string routing =
      "routing: {versions: {3: 1}, guard: {fp32: {error_percent: 1}},\n"
      "          ramp: {version: 4, steps: [20, 100]}}\n";
  folder_.Write("net/3/fp32.onnx", ScalingModel(3));
  folder_.Write("net/4/fp32.onnx", ScalingModel(4));
  folder_.Write("net/model.yaml", routing);
  Open();
  const auto share = [this](double draw) {
    return (*repository_->FindShare("net", {.draw = draw}))->number;
  };
  EXPECT_EQ(share(0.19), 4);
  EXPECT_EQ(share(0.21), 3);
  const auto ramp = (*repository_->Find("net", "4"))->ramp;
  ASSERT_NE(ramp, nullptr);
  EXPECT_TRUE(ramp->Concerns(4, Precision::kFp32));
  EXPECT_FALSE(ramp->Concerns(3, Precision::kFp32));
  folder_.Write("net/model.yaml", routing + "batching: {max_queue_requests: 7}");
  PollTwice();
  EXPECT_EQ((*repository_->Find("net", "4"))->ramp, ramp);
  folder_.Write("net/4/fp32.onnx", ScalingModel(5));
  PollTwice();
  EXPECT_NE((*repository_->Find("net", "4"))->ramp, ramp) << "another model";
  folder_.Write("net/model.yaml", "routing: {versions: {3: 1}}");
  PollTwice();
  EXPECT_EQ((*repository_->Find("net", ""))->ramp, nullptr);
  EXPECT_EQ(share(0.1), 3);
}

TEST_F(ModelRoutingTest, AVersionThatComesInByARampAnswersTheRestLast) {
  folder_.Write("net/2/fp32.onnx", ScalingModel(2));
  folder_.Write("net/3/fp32.onnx", ScalingModel(3));
  folder_.Write("net/4/fp32.onnx", ScalingModel(4));
  folder_.Write("net/model.yaml",
                "versions: {all: true}\nrouting: {versions: {3: 1}, guard: {fp32: {error_percent: "
                "1}},\n          ramp: {version: 4, steps: [20]}}\n");
  Open();
  const auto share = [this](double draw) {
    return (*repository_->FindShare("net", {.draw = draw}))->number;
  };
  EXPECT_EQ(share(0.5), 3);
  folder_.Remove("net/3/fp32.onnx");
  PollTwice();
  EXPECT_EQ(share(0.1), 4);
  EXPECT_EQ(share(0.5), 2) << "4 is higher, and has its share already";
  folder_.Remove("net/2/fp32.onnx");
  PollTwice();
  EXPECT_EQ(share(0.5), 4) << "nobody else can";
}

TEST_F(ModelRoutingTest, ARampThatCouldNotBeMadeLeavesTheOneBefore) {
  const std::string routing =
      "routing: {versions: {3: 1}, guard: {fp32: {error_percent: 1}},\n          ramp: {version: "
      "4, ";
  folder_.Write("net/3/fp32.onnx", ScalingModel(3));
  folder_.Write("net/4/fp32.onnx", ScalingModel(4));
  folder_.Write("net/model.yaml", routing + "steps: [20]}}\n");
  Open();
  const auto ramp = (*repository_->Find("net", "4"))->ramp;
  folder_.Write(
      "net/model.yaml",
      routing +
          "steps: [90]}}\ninputs: {none: {wire: {datatype: UINT8, scale: 1, zero_point: 0}}}\n");
  PollTwice();
  EXPECT_EQ((*repository_->Find("net", "4"))->ramp, ramp) << "its guards are looked at for it";
  EXPECT_EQ((*repository_->FindShare("net", {.draw = 0.5}))->number, 3);
}

TEST_F(ModelRoutingTest, ARolloutKeepsARampWaitingAndDoesNotEndIt) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", ScalingModel(2));
  folder_.Write(
      "net/model.yaml",
      "routing: {guard: {bf16: {error_percent: 1}}, ramp: {precision: bf16, steps: [5]}}");
  Open();
  const std::string file = folder_.path() + "/net/.ramp";
  std::string identity;
  std::getline(std::ifstream(file), identity);
  folder_.Write("net/.ramp", identity + "\n0 1 1\n");  // it was stopped
  Open();
  const auto stopped = [this] {
    const auto ramp = (*repository_->Find("net", ""))->ramp;
    return ramp != nullptr && ramp->state().stopped;
  };
  EXPECT_TRUE(stopped());
  folder_.Write("net/rollout.yaml", "routing: {default: fp32, split: {fp32: 1}}");
  PollTwice();
  EXPECT_EQ((*repository_->Find("net", ""))->ramp, nullptr);
  folder_.Remove("net/rollout.yaml");
  PollTwice();
  EXPECT_TRUE(stopped());
  folder_.Write("net/model.yaml", "routing: {default: fp32}");
  PollTwice();
  EXPECT_FALSE(std::ifstream(file).is_open());
}

TEST_F(ModelRoutingTest, ARampOfAPrecisionIsTheRoutes) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", ScalingModel(2));
  folder_.Write(
      "net/model.yaml",
      "routing: {guard: {bf16: {error_percent: 1}}, ramp: {precision: bf16, steps: [5]}}");
  Open();
  const RouteTable& routes = (*repository_->Find("net", ""))->routes;
  EXPECT_EQ(ChoosePrecision(routes, {.draw = 0.04})->precision, Precision::kBf16);
  EXPECT_EQ(ChoosePrecision(routes, {.draw = 0.06})->precision, Precision::kFp32);
  EXPECT_EQ(DefaultPrecision(routes), Precision::kFp32);
}

TEST_F(ModelRoutingTest, ARampGoesOnWhateverBecomesOfVersionsThatAnswerNobody) {
  folder_.Write("net/1/bf16.onnx", ScalingModel(2));
  folder_.Write("net/2/fp32.onnx", ScalingModel(2));
  folder_.Write("net/2/bf16.onnx", ScalingModel(2));
  folder_.Write(
      "net/model.yaml",
      "routing: {guard: {bf16: {error_percent: 1}}, ramp: {precision: bf16, steps: [5]}}");
  Open();
  const auto ramp = [this] { return (*repository_->Find("net", ""))->ramp; };
  const auto begun = ramp();
  ASSERT_NE(begun, nullptr);
  folder_.Remove("net/1");
  PollTwice();
  EXPECT_EQ(ramp(), begun) << "the highest version answers, as before";
  folder_.Write("net/1/bf16.onnx", ScalingModel(3));
  PollTwice();
  EXPECT_EQ(ramp(), begun);
  folder_.Write("net/2/bf16.onnx", ScalingModel(3));
  PollTwice();
  EXPECT_NE(ramp(), begun) << "another model";
}

TEST_F(ModelRoutingTest, RolloutYamlMovesTrafficUntilItIsGone) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", ScalingModel(3));
  folder_.Write("net/model.yaml", "routing: {default: fp32}");
  Open();
  const auto answers = [this] { return DefaultPrecision((*repository_->Find("net", ""))->routes); };
  EXPECT_EQ(answers(), Precision::kFp32);
  folder_.Write("net/rollout.yaml", "routing: {default: bf16}");
  ASSERT_TRUE(repository_->Load("net").ok());
  EXPECT_EQ(answers(), Precision::kBf16);
  folder_.Write("net/rollout.yaml", "batching: {max_batch: 4}");
  EXPECT_THAT(std::string(Message(repository_->Load("net"))), HasSubstr("net/rollout.yaml: "));
  EXPECT_EQ(answers(), Precision::kBf16) << "what was said before";
  folder_.Remove("net/rollout.yaml");
  PollTwice();
  EXPECT_EQ(answers(), Precision::kFp32);
  EXPECT_EQ(loads(), 2);
}

}  // namespace model_routing_test
}  // namespace octet
