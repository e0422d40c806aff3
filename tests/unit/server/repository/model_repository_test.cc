#include "server/repository/model_repository.h"

#include <fstream>
#include <numeric>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/npz_writer.h"
#include "engine/tensor/status.h"
#include "server/scheduling/batch_runner.h"
#include "server/scheduling/dispatcher.h"
#include "tests/support/as_nobody.h"
#include "tests/support/fake_clock.h"
#include "tests/support/model_folder.h"
#include "tests/support/test_request.h"

namespace octet {
namespace model_repository_test {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::string_view kGarbage = "this is no protobuf";

/// "net/1 READY", "net/1 UNAVAILABLE: reason".
std::vector<std::string> Rows(const ModelRepository& repository, bool ready_only = false) {
  std::vector<std::string> rows;
  for (const IndexEntry& entry : repository.Index(ready_only)) {
    rows.push_back(Format("{}/{} {}{}{}", entry.model, entry.version, VersionStateName(entry.state),
                          entry.reason.empty() ? "" : ": ", entry.reason));
  }
  return rows;
}

class ModelRepositoryTest : public ::testing::Test {
 protected:
  ServerConfig Config() {
    ServerConfig config;
    config.repository.path = folder_.path();
    return config;
  }
  ModelRepository& Open() { return Open(Config()); }
  ModelRepository& Open(const ServerConfig& config) {
    auto opened = ModelRepository::Open(config, 1, metrics_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    repository_ = *std::move(opened);
    return *repository_;
  }
  /// Two looks: the second one follows.
  void PollTwice() {
    repository_->Poll();
    repository_->Poll();
  }

  /// What the version's precision answers to 1: the factor of its model; -1 when nothing does.
  float Ask(const ModelVersion& version, Precision precision = Precision::kFp32) {
    const ServedVariant* variant = version.Find(precision);
    if (variant == nullptr || !variant->ready()) return -1;
    BatchRunner runner(Clock::Real());
    TestCall call({1, 1, 1, 1}, {4});
    dispatcher_.Submit(variant->queue, call.Request(Clock::Real().Now()));
    while (!call.finished.HasBeenNotified()) {
      if (auto batch = dispatcher_.TryTake()) runner.Run(*std::move(batch));
    }
    return call.status->ok() ? call.answer[0] : -1;
  }
  float Ask(std::string_view model, Precision precision = Precision::kFp32,
            std::string_view version = "") {
    const auto found = repository_->Find(model, version);
    return found.ok() ? Ask(**found, precision) : -1;
  }
  uint64_t loads() { return metrics_.server().loads.value(); }

  ModelFolder folder_;
  Dispatcher dispatcher_{Clock::Real()};
  MetricsRegistry metrics_{{}};
  std::unique_ptr<ModelRepository> repository_;
};

TEST_F(ModelRepositoryTest, ClassesHaveTheLabelsOfTheFolder) {
  folder_.Write("plain/1/fp32.onnx", ScalingModel(2));
  folder_.Write("named/1/fp32.onnx", ScalingModel(2));
  folder_.Write("named/labels.txt", "cat\r\nblack dog\n");
  Open();
  EXPECT_THAT((*repository_->Find("named", ""))->labels, ElementsAre("cat", "black dog"));
  EXPECT_TRUE((*repository_->Find("plain", ""))->labels.empty());
}

TEST_F(ModelRepositoryTest, LabelsAreFollowedAsModelYamlIs) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  folder_.Write("net/labels.txt", "cat\ndog\n");
  PollTwice();
  EXPECT_THAT((*repository_->Find("net", ""))->labels, ElementsAre("cat", "dog"));
  folder_.Write("net/labels.txt", "dog\ncat\n");
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_THAT((*repository_->Find("net", ""))->labels, ElementsAre("dog", "cat"));
  folder_.Remove("net/labels.txt");
  PollTwice();
  EXPECT_TRUE((*repository_->Find("net", ""))->labels.empty());
  EXPECT_EQ(loads(), 1) << "the model is the same";
}

TEST_F(ModelRepositoryTest, WhatCannotBeLookedAtAnswersOn) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("other/1/fp32.onnx", ScalingModel(3));
  folder_.Write("third/1/fp32.onnx", ScalingModel(4));
  folder_.Show("", true);
  Open();
  folder_.Show("net/1", false);
  folder_.Show("other", false);
  folder_.Remove("third");
  testing::internal::CaptureStderr();
  {
    const AsNobody nobody;
    for (int i = 0; i < 3; ++i) repository_->Poll();
    const absl::Status status = repository_->Load("net");
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(Message(status)), HasSubstr(folder_.path("net/1")));
    EXPECT_EQ(repository_->Load("other").code(), absl::StatusCode::kUnavailable);
    EXPECT_FALSE(repository_->CheckAll().ok());
  }
  const std::string log = testing::internal::GetCapturedStderr();
  const std::string_view event = "level=error event=model_unreadable model=net ";
  ASSERT_THAT(log, HasSubstr(event));
  EXPECT_EQ(log.find(event, log.find(event) + 1), std::string::npos) << "once";
  EXPECT_THAT(Rows(*repository_), ElementsAre("net/1 READY", "other/1 READY"));
  EXPECT_EQ(Ask("net"), 2);
  folder_.Show("net/1", true);
  folder_.Show("other", true);
  folder_.Write("net/1/fp32.onnx", ScalingModel(5));
  PollTwice();
  EXPECT_EQ(Ask("net"), 5);
  EXPECT_TRUE(repository_->CheckAll().ok());
}

TEST_F(ModelRepositoryTest, AFolderThatCannotBeReadAtFirstIsTriedAgainUnlessStrict) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Show("", false);
  ServerConfig config = Config();
  {
    const AsNobody nobody;
    Open(config);
    EXPECT_FALSE(repository_->Ready());
    config.repository.strict = true;
    EXPECT_EQ(ModelRepository::Open(config, 1, metrics_).status().code(),
              absl::StatusCode::kUnavailable);
  }
  folder_.Show("", true);
  repository_->Poll();
  EXPECT_TRUE(repository_->Ready());
  EXPECT_EQ(Ask("net"), 2);
}

TEST_F(ModelRepositoryTest, AGuardsLimitIsHeldAgainstItsRequestsOneByOne) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/model.yaml", "routing: {guard: {fp32: {p99_us: 50000}}}");
  Open();
  EXPECT_EQ(Ask("net"), 2);
  const auto version = *repository_->Find("net", "");
  ASSERT_NE(version->Find(Precision::kFp32)->latency_limit, nullptr);
  EXPECT_EQ(version->Find(Precision::kFp32)->latency_limit->requests(), 1U);
}

TEST_F(ModelRepositoryTest, TheHighestReadyVersionAnswers) {
  folder_.Write("net/model.yaml", "versions: {all: true}");
  folder_.Write("net/2/fp32.onnx", ScalingModel(2));
  folder_.Write("net/10/fp32.onnx", ScalingModel(10));
  folder_.Write("net/11/fp32.onnx", kGarbage);
  Open();
  EXPECT_TRUE(repository_->Ready());
  EXPECT_EQ(Ask("net"), 10);
  EXPECT_EQ(Ask("net", Precision::kFp32, "2"), 2);
  EXPECT_EQ((*repository_->Find("net", ""))->version, "10");
  EXPECT_EQ(repository_->List("net", "")->size(), 2);
  EXPECT_EQ(repository_->List("", "")->size(), 2);
  EXPECT_EQ(repository_->List("net", "2")->front()->number, 2);
  EXPECT_THAT(Rows(*repository_), ElementsAre("net/2 READY", "net/10 READY",
                                              AllOf(HasSubstr("net/11 UNAVAILABLE: fp32: "),
                                                    HasSubstr("net/11/fp32.onnx"))));
  EXPECT_THAT(Rows(*repository_, true), ElementsAre("net/2 READY", "net/10 READY"));
}

TEST_F(ModelRepositoryTest, EveryWrongQuestionHasItsCode) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("broken/1/fp32.onnx", kGarbage);
  folder_.Write("empty/1/notes.txt", "");
  folder_.Write("bare/notes.txt", "");
  Open();
  const auto code = [&](std::string_view model, std::string_view version) {
    EXPECT_EQ(repository_->List(model, version).status().code(),
              repository_->Find(model, version).status().code());
    return repository_->Find(model, version).status().code();
  };
  EXPECT_EQ(code("net", "1"), absl::StatusCode::kOk);
  EXPECT_EQ(code("net", "2"), absl::StatusCode::kNotFound);
  EXPECT_EQ(code("nett", ""), absl::StatusCode::kNotFound);
  EXPECT_EQ(code("net", "one"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("net", "-1"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("net", "1 "), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("net", "99999999999999999999"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("broken", ""), absl::StatusCode::kUnavailable);
  EXPECT_EQ(code("broken", "1"), absl::StatusCode::kUnavailable);
  EXPECT_EQ(code("empty", ""), absl::StatusCode::kUnavailable);
  EXPECT_EQ(code("bare", ""), absl::StatusCode::kUnavailable);
  const std::string unknown(Message(repository_->Find("nett", "").status()));
  EXPECT_TRUE(unknown.starts_with("Request for unknown model")) << unknown;
  EXPECT_THAT(std::string(Message(repository_->Find("broken", "").status())),
              HasSubstr("broken/1/fp32.onnx"));
  EXPECT_THAT(Rows(*repository_),
              ElementsAre(HasSubstr("bare/ UNAVAILABLE: no version"),
                          HasSubstr("broken/1 UNAVAILABLE: fp32: "),
                          HasSubstr("empty/1 UNAVAILABLE: no model file"), "net/1 READY"));
}

TEST_F(ModelRepositoryTest, AMissingFolderIsNamed) {
  ServerConfig config;
  config.repository.path = folder_.path("nowhere");
  const auto opened = ModelRepository::Open(config, 1, metrics_);
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Message(opened.status())), HasSubstr("nowhere"));
}

TEST_F(ModelRepositoryTest, StrictRefusesWhatDoesNotLoad) {
  folder_.Write("good/1/fp32.onnx", ScalingModel(2));
  ServerConfig config = Config();
  config.repository.strict = true;
  Open(config);
  folder_.Write("bad/1/fp32.onnx", kGarbage);
  const auto opened = ModelRepository::Open(config, 1, metrics_);
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(opened.status())),
              AllOf(HasSubstr("bad: "), Not(HasSubstr("good"))));
}

TEST_F(ModelRepositoryTest, NothingIsReadyBeforeTheFirstPoll) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  repository_ = *ModelRepository::Create(Config(), 1, metrics_);
  EXPECT_FALSE(repository_->Ready());
  EXPECT_EQ(repository_->Find("net", "").status().code(), absl::StatusCode::kUnavailable);
  std::stop_source stop;
  stop.request_stop();
  repository_->Poll(stop.get_token());
  EXPECT_FALSE(repository_->Ready());
  repository_->Poll();
  EXPECT_TRUE(repository_->Ready());
  EXPECT_EQ(Ask("net"), 2);
}

TEST_F(ModelRepositoryTest, AVariantThatCannotAnswerSaysWhyAndLeavesTheOthers) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", kGarbage);
  folder_.Write("net/1/int8.onnx", ScalingModel(3, {kUnknownDim, 4}, "image"));
  folder_.Write("net/1/fp16.onnx", ScalingModel(3, {1, 4}));
  folder_.Write("net/model.yaml", "routing: {split: {fp32: 1, int8-dynamic: 1}}");
  Open();
  const auto version = *repository_->Find("net", "");
  EXPECT_THAT(version->Find(Precision::kBf16)->reason, HasSubstr("net/1/bf16.onnx"));
  EXPECT_THAT(version->Find(Precision::kInt8)->reason,
              AllOf(HasSubstr("signature"), HasSubstr("'x'"), HasSubstr("'image'")));
  EXPECT_THAT(version->Find(Precision::kFp16)->reason,
              AllOf(HasSubstr("signature"), HasSubstr("shape")));
  EXPECT_THAT(version->Find(Precision::kInt8Dynamic)->reason, HasSubstr("does not exist"));
  EXPECT_EQ(version->Find(Precision::kInt8Dynamic)->queue, nullptr);
  EXPECT_EQ(Ask("net"), 2);
  EXPECT_THAT(Rows(*repository_), ElementsAre(AllOf(HasSubstr("net/1 READY: "), HasSubstr("bf16: "),
                                                    HasSubstr("; int8-dynamic: "))));
  EXPECT_EQ(version->routes.candidates.size(), 5);
  EXPECT_FALSE(repository_->CheckAll().ok());
}

TEST_F(ModelRepositoryTest, AChangedFileIsFollowedAtTheSecondLookAndAlone) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", ScalingModel(3));
  folder_.Write("other/1/fp32.onnx", ScalingModel(4));
  Open();
  EXPECT_EQ(loads(), 3);
  folder_.Write("net/1/fp32.onnx", ScalingModel(5));
  repository_->Poll();
  EXPECT_EQ(Ask("net"), 2);
  repository_->Poll();
  EXPECT_EQ(Ask("net"), 5);
  EXPECT_EQ(loads(), 4);
  repository_->Poll();
  EXPECT_EQ(loads(), 4);
  folder_.Write("net/1/fp32.onnx", ScalingModel(6));
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_EQ(Ask("net"), 6);
  EXPECT_EQ(loads(), 5);
}

TEST_F(ModelRepositoryTest, AFileThatIsStillBeingWrittenIsLeftAlone) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  for (int i = 0; i < 3; ++i) {
    folder_.Write("net/1/fp32.onnx", kGarbage);
    repository_->Poll();
  }
  folder_.Write("net/1/fp32.onnx", ScalingModel(3));
  PollTwice();
  EXPECT_EQ(Ask("net"), 3);
  EXPECT_EQ(metrics_.server().load_failures.value(), 0);
}

TEST_F(ModelRepositoryTest, ModelYamlAloneSwapsTheRoutingWithoutLoading) {
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

TEST_F(ModelRepositoryTest, AutoTakesTheFastestThatIsServed) {
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

TEST_F(ModelRepositoryTest, VersionsHaveOtherNames) {
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

TEST_F(ModelRepositoryTest, VersionsShareTheTrafficThatNamesNone) {
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

TEST_F(ModelRepositoryTest, ARampBringsAVersionInAndAReloadDoesNotBeginItAnew) {
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

TEST_F(ModelRepositoryTest, AVersionThatComesInByARampAnswersTheRestLast) {
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

TEST_F(ModelRepositoryTest, ARampThatCouldNotBeMadeLeavesTheOneBefore) {
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

TEST_F(ModelRepositoryTest, ARolloutKeepsARampWaitingAndDoesNotEndIt) {
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

TEST_F(ModelRepositoryTest, ARampOfAPrecisionIsTheRoutes) {
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

TEST_F(ModelRepositoryTest, RolloutYamlMovesTrafficUntilItIsGone) {
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

TEST_F(ModelRepositoryTest, AnotherMaxBatchCompilesAnew) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  folder_.Write("net/model.yaml", "batching: {max_batch: 16}");
  PollTwice();
  EXPECT_EQ(loads(), 2);
  EXPECT_EQ((*repository_->Find("net", ""))->batching.max_batch, 16);
}

TEST_F(ModelRepositoryTest, ABrokenModelYamlKeepsWhatServes) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  for (const char* broken :
       {"routing: [", "name: other", "batching: {max_batch: 100000}", "colour: red",
        "inputs: {y: {wire: {datatype: UINT8, scale: 1, zero_point: 0}}}",
        "inputs: {x: {wire: {datatype: UINT8, scale: [1, 2], zero_point: [0, 0]}}}"}) {
    folder_.Write("net/model.yaml", broken);
    PollTwice();
    EXPECT_EQ(Ask("net"), 2) << broken;
    EXPECT_THAT(Rows(*repository_),
                ElementsAre(AllOf(HasSubstr("net/1 READY: "), HasSubstr("model.yaml"))))
        << broken;
    EXPECT_FALSE(repository_->Load("net").ok()) << broken;
  }
  folder_.Write("net/model.yaml", "");
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_THAT(Rows(*repository_), ElementsAre("net/1 READY"));
  EXPECT_EQ(loads(), 1);
}

TEST_F(ModelRepositoryTest, AModelYamlBrokenFromTheStartIsTheModelsReason) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/model.yaml", "colour: red");
  Open();
  EXPECT_THAT(Rows(*repository_), ElementsAre(AllOf(HasSubstr("net/ UNAVAILABLE: "),
                                                    HasSubstr("model.yaml:1:1: colour"))));
  EXPECT_EQ(repository_->Find("net", "1").status().code(), absl::StatusCode::kUnavailable);
  folder_.Remove("net/model.yaml");
  PollTwice();
  EXPECT_EQ(Ask("net"), 2);
}

TEST_F(ModelRepositoryTest, AModelWhoseConfigurationIsRefusedCounts) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/model.yaml", "no such key: 1\n");
  Open();
  EXPECT_EQ(metrics_.server().load_failures.value(), 1);
  PollTwice();
  EXPECT_EQ(metrics_.server().load_failures.value(), 1) << "an unchanged file is not read again";
}

TEST_F(ModelRepositoryTest, ABrokenFileKeepsTheModelThatServes) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  folder_.Write("net/1/fp32.onnx", kGarbage);
  PollTwice();
  EXPECT_EQ(Ask("net"), 2);
  EXPECT_THAT(Rows(*repository_),
              ElementsAre(AllOf(HasSubstr("net/1 READY: fp32: "), HasSubstr("before"))));
  PollTwice();
  EXPECT_EQ(metrics_.server().load_failures.value(), 1) << "an unchanged file is not tried again";
  EXPECT_FALSE(repository_->Load("net").ok());
  EXPECT_EQ(metrics_.server().load_failures.value(), 2) << "unless somebody asks for it";
}

TEST_F(ModelRepositoryTest, ANewVersionReplacesTheOldOneOnceItIsReady) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(1));
  Open();
  folder_.Write("net/2/fp32.onnx", kGarbage);
  PollTwice();
  EXPECT_EQ(Ask("net"), 1);
  EXPECT_THAT(Rows(*repository_), ElementsAre(HasSubstr("net/1 READY: answers until"),
                                              HasSubstr("net/2 UNAVAILABLE: ")));
  folder_.Write("net/2/fp32.onnx", ScalingModel(2));
  PollTwice();
  EXPECT_EQ(Ask("net"), 2);
  EXPECT_THAT(Rows(*repository_), ElementsAre("net/2 READY"));
  EXPECT_EQ(repository_->Find("net", "1").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelRepositoryTest, ModelsComeAndGo) {
  folder_.Write("a/1/fp32.onnx", ScalingModel(1));
  Open();
  folder_.Write("b/1/fp32.onnx", ScalingModel(2));
  PollTwice();
  EXPECT_EQ(Ask("b"), 2);
  folder_.Remove("a");
  repository_->Poll();
  EXPECT_EQ(Ask("a"), 1);
  repository_->Poll();
  EXPECT_EQ(repository_->Find("a", "").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Rows(*repository_), ElementsAre("b/1 READY"));
  EXPECT_EQ(repository_->Load("a").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(repository_->Load("../b").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(repository_->Load(std::string(256, 'a')).code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelRepositoryTest, AnUnloadedModelIsFreedWithItsLastHolderAndStaysOut) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  auto held = *repository_->Find("net", "");
  const std::weak_ptr<const Model> model = held->Find(Precision::kFp32)->queue->target().model;
  EXPECT_TRUE(repository_->Unload("net").ok());
  EXPECT_EQ(Ask(*held), 2);
  EXPECT_THAT(Rows(*repository_), ElementsAre("net/1 UNLOADING: unloaded"));
  const auto refused = repository_->Find("net", "").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(Message(refused)), HasSubstr("unloaded"));
  held.reset();
  EXPECT_TRUE(model.expired());
  EXPECT_THAT(Rows(*repository_), ElementsAre("net/1 UNAVAILABLE: unloaded"));
  folder_.Write("net/1/fp32.onnx", ScalingModel(3));
  PollTwice();
  EXPECT_EQ(Ask("net"), -1);
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_EQ(Ask("net"), 3);
  EXPECT_EQ(repository_->Unload("nett").code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelRepositoryTest, AReplacedModelIsFreed) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  const std::weak_ptr<const Model> model =
      (*repository_->Find("net", ""))->Find(Precision::kFp32)->queue->target().model;
  folder_.Write("net/1/fp32.onnx", ScalingModel(3));
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_TRUE(model.expired());
}

TEST_F(ModelRepositoryTest, PrecisionsAndVersionsAreThoseOfModelYaml) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(1));
  folder_.Write("net/2/fp32.onnx", ScalingModel(2));
  folder_.Write("net/2/bf16.onnx", ScalingModel(3));
  folder_.Write("net/model.yaml", "precisions: [bf16, fp16]\nversions: {specific: [2]}");
  Open();
  const auto version = *repository_->Find("net", "");
  EXPECT_EQ(version->Find(Precision::kFp32), nullptr);
  EXPECT_EQ(Ask(*version, Precision::kBf16), 3);
  EXPECT_THAT(version->Find(Precision::kFp16)->reason, HasSubstr("net/2/fp16.onnx"));
  EXPECT_THAT(Rows(*repository_), ElementsAre(HasSubstr("net/2 READY: fp16: ")));
}

TEST_F(ModelRepositoryTest, ARequiredInt8ShareHoldsForInt8FilesAlone) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 4});
  b.Output(b.Op("MatMul", {x, b.Random({4, 4})}), "y");
  const Graph dense = b.Build();
  folder_.Write("net/1/fp32.onnx", dense);
  folder_.Write("net/1/int8.onnx", dense);
  ServerConfig config = Config();
  config.engine.require_int8_percent = 95;
  Open(config);
  const auto version = *repository_->Find("net", "");
  EXPECT_TRUE(version->Find(Precision::kFp32)->ready());
  EXPECT_THAT(version->Find(Precision::kInt8)->reason, HasSubstr("too few multiply-adds"));
}

TEST_F(ModelRepositoryTest, AModelThatDoesNotBatchRunsOneRequestAtATime) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2, {4}));
  Open();
  const auto version = *repository_->Find("net", "");
  EXPECT_FALSE(version->signature.batches);
  EXPECT_EQ(version->Find(Precision::kFp32)->queue->target().batch.max_batch, 1);
}

TEST_F(ModelRepositoryTest, OpenExtentsAreServedWithoutACertificate) {
  GraphBuilder b;
  b.Output(b.Op("Relu", {b.Input("x", {kUnknownDim, kUnknownDim})}), "y");
  folder_.Write("net/1/fp32.onnx", b.Build());
  Open();
  EXPECT_EQ(Ask("net"), 1);
  EXPECT_THAT((*repository_->Find("net", ""))->Find(Precision::kFp32)->certificate.layers,
              ElementsAre());
}

TEST_F(ModelRepositoryTest, CompilingForNewShapesIsTimed) {
  GraphBuilder b;
  b.Output(b.Op("Relu", {b.Input("x", {kUnknownDim, kUnknownDim})}), "y");
  folder_.Write("net/1/fp32.onnx", b.Build());
  Open();
  const auto compiled = [&] {
    const HistogramCounts counts =
        metrics_.ForVariant({"net", "1", "fp32"})->plan_compile_duration.Read();
    return std::accumulate(counts.counts.begin(), counts.counts.end(), uint64_t{0});
  };
  EXPECT_EQ(compiled(), 0U) << "no shape is known before a request";
  EXPECT_EQ(Ask("net"), 1);
  EXPECT_EQ(compiled(), 1U);
  EXPECT_EQ(Ask("net"), 1);
  EXPECT_EQ(compiled(), 1U) << "the plan is kept";
}

TEST_F(ModelRepositoryTest, RequestsAreCountedAndCountsSurviveAReload) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  const auto metrics = metrics_.ForVariant({"net", "1", "fp32"});
  EXPECT_EQ(metrics->ready.value(), 1);
  EXPECT_GT(metrics->resident_weight_bytes.value(), 0);
  EXPECT_GT(metrics->load_seconds.value(), 0);
  EXPECT_EQ(Ask("net"), 2);
  folder_.Write("net/1/fp32.onnx", ScalingModel(3));
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_EQ(Ask("net"), 3);
  EXPECT_EQ(metrics->requests.value(0), 2);
  EXPECT_EQ(metrics->rows.value(), 2);
  EXPECT_EQ(metrics->executions.value(), 2);
  EXPECT_EQ(metrics->in_flight.value(), 0);
  EXPECT_EQ(metrics->queue_depth.value(), 0);
  EXPECT_EQ((*repository_->Find("net", ""))->statistics->Read().success.count, 2);
  EXPECT_TRUE(repository_->Unload("net").ok());
  EXPECT_THAT(metrics_.Text(), Not(HasSubstr("octet_variant_ready{"))) << "taken out by intent";
}

TEST_F(ModelRepositoryTest, LookUpsGoOnWhileModelsLoad) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  std::jthread reader([this](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const auto found = repository_->Find("net", "");
      ASSERT_TRUE(found.ok()) << found.status();
      ASSERT_GT(Ask(**found), 0);
    }
  });
  for (int i = 1; i <= 20; ++i) {
    folder_.Write("net/1/fp32.onnx", ScalingModel(static_cast<float>(i)));
    EXPECT_TRUE(repository_->Load("net").ok());
    EXPECT_EQ(Ask("net"), i);
  }
}

}  // namespace model_repository_test
}  // namespace octet
