#include "server/pipeline/pipeline_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/scheduling/batch_runner.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_repository.h"
#include "tests/support/model_folder.h"

namespace octet {
namespace pipeline_run_test {

using ::testing::Each;
using ::testing::HasSubstr;

/// x [?, 4] -> left: times 2, right: times 3; both -> outputs "l", "r"; and last: times 5 of left -> "y".
class PipelineRunTest : public ::testing::Test {
 protected:
  PipelineRunTest() {
    left_ = Add("left", left_model_, std::nullopt);
    right_ = Add("right", right_model_, std::nullopt);
    last_ = Add("last", last_model_, 0);
    pipeline_->steps[0].readers = {2};
    pipeline_->outputs = {{0, 0}, {1, 0}, {2, 0}};
    pipeline_->observer = observer_;
    auto version = std::make_shared<ModelVersion>();
    version->model = "pipe";
    version->pipeline = pipeline_;
    version_ = version;
  }

  std::shared_ptr<const ModelVersion> Add(const std::string& name,
                                          const std::shared_ptr<FakeModel>& model,
                                          std::optional<size_t> after) {
    PipelineStep& step = pipeline_->steps.emplace_back();
    step.name = name;
    step.version = repository_.Make(name, 1, {{Precision::kFp32, model}});
    step.signature = model->signature();
    step.recipes = {*InputRecipe::Make(step.signature.inputs[0], nullptr)};
    step.max_batch = 8;
    step.inputs = {{after, 0}};
    step.wanted = {true};
    step.waits_for = after ? 1 : 0;
    return step.version;
  }

  /// Takes every output.
  class Answers final : public OutputSink {
   public:
    void* Reserve(size_t index, const TensorSpec& spec) override {
      values[index].resize(static_cast<size_t>(spec.shape.elements()));
      return values[index].data();
    }
    absl::Status TakeStrings(size_t, ConstTensorView) override { return absl::OkStatus(); }
    std::map<size_t, std::vector<float>> values;
  };

  /// The request and what its inputs lie in are gone when it is over, unless somebody keeps the latter.
  void Start(TimePoint deadline = kNever) {
    auto request = call_.Request(clock_.Now(), deadline);
    request->outputs = &answers_;
    request->priority = priority_;
    RunPipeline({.version = version_,
                 .sticky_key = "",
                 .dispatcher = dispatcher_,
                 .clock = clock_,
                 .captures = captures_,
                 .kept = {.owners = {std::exchange(wire_, nullptr)}, .bytes = 1000},
                 .trace = trace_},
                std::move(request));
  }
  /// Gives a step's model an int8 variant, times 7, and a shadow that compares with it.
  std::shared_ptr<ServedShadow> Shadow(size_t step, const std::shared_ptr<FakeModel>& model) {
    ModelConfig::Routing routing;
    routing.default_precision = Precision::kFp32;
    routing.shadow = {.precision = Precision::kInt8, .percent = 100};
    PipelineStep& of = pipeline_->steps[step];
    of.version = repository_.Make(
        of.name, 1, {{Precision::kFp32, model}, {Precision::kInt8, int8_model_}}, {}, routing);
    return of.version->shadow;
  }
  /// Runs what can run; the number of batches.
  int RunAll() {
    int batches = 0;
    while (auto batch = dispatcher_.TryTake()) {
      runner_.Run(*std::move(batch));
      ++batches;
    }
    return batches;
  }

  FakeClock clock_;
  MetricsRegistry metrics_{BuildInfo{}};
  FakeRepository repository_{metrics_};
  Dispatcher dispatcher_{clock_};
  BatchRunner runner_{clock_};
  std::shared_ptr<FakeModel> left_model_ = std::make_shared<FakeModel>(Shape{kUnknownDim, 4}, 2.0F);
  std::shared_ptr<FakeModel> right_model_ =
      std::make_shared<FakeModel>(Shape{kUnknownDim, 4}, 3.0F);
  std::shared_ptr<FakeModel> last_model_ = std::make_shared<FakeModel>(Shape{kUnknownDim, 4}, 5.0F);
  std::shared_ptr<CountingObserver> observer_ = std::make_shared<CountingObserver>();
  std::shared_ptr<Pipeline> pipeline_ = std::make_shared<Pipeline>();
  std::shared_ptr<const ModelVersion> version_, left_, right_, last_;
  TestCall call_{{1, 1, 1, 1}, {4}};
  Answers answers_;
  std::shared_ptr<FakeModel> int8_model_ = std::make_shared<FakeModel>(Shape{kUnknownDim, 4}, 7.0F);
  std::shared_ptr<const void> wire_ = std::make_shared<int>(0);
  uint64_t priority_ = 0;
  bool captures_ = true;
  std::vector<TracedStep>* trace_ = nullptr;
};

TEST_F(PipelineRunTest, RunsStepsAsSoonAsTheirInputsAreThere) {
  Start();
  EXPECT_EQ(dispatcher_.queued(), 2U);  // side by side
  EXPECT_EQ(call_.calls, 0);
  EXPECT_EQ(RunAll(), 3);
  ASSERT_EQ(call_.calls, 1);
  EXPECT_TRUE(call_.status->ok()) << *call_.status;
  EXPECT_THAT(answers_.values[0], Each(2));
  EXPECT_THAT(answers_.values[1], Each(3));
  EXPECT_THAT(answers_.values[2], Each(10));
  EXPECT_EQ(observer_->queued, 1);
  EXPECT_EQ(observer_->batches, 1);
  EXPECT_EQ(observer_->succeeded, 1);
  EXPECT_EQ(repository_.observer()->succeeded, 3);
  EXPECT_EQ(left_->Find(Precision::kFp32)
                ->metrics->routed.value(static_cast<size_t>(RouteReason::kDefault)),
            1U);
}

TEST_F(PipelineRunTest, ItsPriorityIsThatOfItsSteps) {
  priority_ = 7;
  Start();
  for (int steps = 0; steps < 3; ++steps) {
    auto batch = dispatcher_.TryTake();
    ASSERT_TRUE(batch);
    EXPECT_EQ(batch->requests[0]->priority, 7U);
    runner_.Run(*std::move(batch));
  }
}

TEST_F(PipelineRunTest, TensorsAreReadWhereTheyWereWritten) {
  Start();
  runner_.Run(*dispatcher_.TryTake());
  runner_.Run(*dispatcher_.TryTake());
  auto batch = dispatcher_.TryTake();
  ASSERT_TRUE(batch);
  const void* handed = batch->requests[0]->inputs[0].data;
  runner_.Run(*std::move(batch));
  EXPECT_EQ(last_model_->last_input_pointer(), handed);
  EXPECT_THAT(answers_.values[2], Each(10));
}

TEST_F(PipelineRunTest, AnInputThatCameInPiecesReachesTheSteps) {
  const std::vector<float> values = {1, 2, 3, 4};
  const std::string_view bytes(reinterpret_cast<const char*>(values.data()), 16);
  const std::array<std::string_view, 2> pieces = {bytes.substr(0, 6), bytes.substr(6)};
  auto request = call_.Request(clock_.Now());
  request->inputs = {{WireBytes(pieces), {DType::kF32, {1, 4}}}};
  request->outputs = &answers_;
  RunPipeline({version_, "", dispatcher_, clock_}, std::move(request));
  EXPECT_EQ(RunAll(), 3);
  EXPECT_THAT(answers_.values[1], ::testing::ElementsAre(3, 6, 9, 12));
}

TEST_F(PipelineRunTest, StepsOfSeveralRequestsRunAsOneBatch) {
  TestCall other({2, 2, 2, 2}, {4});
  Answers others;
  Start();
  auto request = other.Request(clock_.Now());
  request->outputs = &others;
  RunPipeline({version_, "", dispatcher_, clock_}, std::move(request));
  EXPECT_EQ(RunAll(), 3);
  EXPECT_THAT(answers_.values[2], Each(10));
  EXPECT_THAT(others.values[2], Each(20));
  EXPECT_EQ(last_model_->runs()[0][0], 2);
}

TEST_F(PipelineRunTest, TheFirstErrorEndsItAndNamesTheStep) {
  left_model_->before_run = [] { return absl::InternalError("broken"); };
  Start();
  EXPECT_EQ(RunAll(), 2);  // what was under way is waited for, what was not does not start
  ASSERT_EQ(call_.calls, 1);
  EXPECT_EQ(call_.status->code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Message(*call_.status), "step \"left\": left/1/fp32: broken");
  EXPECT_EQ(observer_->finished, 1);
  EXPECT_EQ(observer_->succeeded, 0);
  EXPECT_TRUE(last_model_->runs().empty());
}

TEST_F(PipelineRunTest, AfterARefusalNoStepIsSubmitted) {
  pipeline_->steps[0].signature.inputs[0].shape = {kUnknownDim, 5};
  Start();
  EXPECT_EQ(dispatcher_.queued(), 0U);
  ASSERT_EQ(call_.calls, 1);
  EXPECT_EQ(call_.status->code(), absl::StatusCode::kInvalidArgument);  // it is the client's input
  EXPECT_THAT(std::string(Message(*call_.status)),
              HasSubstr("step \"left\": input \"x\": shape, expected [?,5]"));
}

TEST_F(PipelineRunTest, ATensorOfAStepThatDoesNotFitNamesBothSteps) {
  pipeline_->steps[2].signature.inputs[0].shape = {kUnknownDim, 5};
  Start();
  EXPECT_EQ(RunAll(), 2);
  ASSERT_EQ(call_.calls, 1);
  EXPECT_EQ(call_.status->code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(*call_.status)),
              HasSubstr("step \"last\": what step \"left\" gave does not fit: input \"x\": shape, "
                        "expected [?,5]"));
}

TEST_F(PipelineRunTest, MoreRowsThanTheReaderTakesAreNotTheClientsMistake) {
  pipeline_->steps[2].max_batch = 0;
  Start();
  RunAll();
  EXPECT_EQ(call_.status->code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(*call_.status)), HasSubstr("what step \"left\" gave"));
}

TEST_F(PipelineRunTest, TheDeadlineIsThatOfEveryStep) {
  Start(clock_.Now() + std::chrono::milliseconds(10));
  ASSERT_EQ(dispatcher_.queued(), 2U);
  runner_.Run(*dispatcher_.TryTake());
  runner_.Run(*dispatcher_.TryTake());
  EXPECT_EQ(call_.calls, 0);
  clock_.Advance(std::chrono::milliseconds(20));
  EXPECT_EQ(RunAll(), 0);
  ASSERT_EQ(call_.calls, 1);
  EXPECT_EQ(call_.status->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(Message(*call_.status)), HasSubstr("step \"last\": "));
  // What a step refuses the pipeline does.
  EXPECT_EQ(observer_->refused[static_cast<size_t>(Refusal::kExpired)], 1);
}

TEST_F(PipelineRunTest, CancellingDropsWhatHasNotRun) {
  Start();
  runner_.Run(*dispatcher_.TryTake());
  call_.cancelled = true;
  RunAll();
  ASSERT_EQ(call_.calls, 1);
  EXPECT_EQ(call_.status->code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(last_model_->runs().empty());
}

TEST_F(PipelineRunTest, AFlushFinishesEveryStepAndACloseBeginsNone) {
  Start();
  dispatcher_.Flush();
  EXPECT_EQ(RunAll(), 3);
  EXPECT_TRUE(call_.status->ok()) << *call_.status;
  dispatcher_.Close();

  TestCall late({1, 1, 1, 1}, {4});
  RunPipeline({version_, "", dispatcher_, clock_}, late.Request(clock_.Now()));
  EXPECT_EQ(late.status->code(), absl::StatusCode::kUnavailable);
}

TEST_F(PipelineRunTest, WhatIsAbandonedEnds) {
  Start();
  auto batch = dispatcher_.TryTake();
  dispatcher_.Abandon();
  EXPECT_EQ(call_.calls, 0);  // a step runs
  runner_.Run(*std::move(batch));
  ASSERT_EQ(call_.calls, 1);
  EXPECT_EQ(call_.status->code(), absl::StatusCode::kUnavailable);
}

TEST_F(PipelineRunTest, ATraceSaysWhatBecameOfEachStep) {
  std::vector<TracedStep> steps;
  trace_ = &steps;
  const TimePoint begin = clock_.Now();
  right_model_->before_run = [] { return absl::InternalError("broken"); };
  last_model_->before_run = [this] {
    clock_.Advance(std::chrono::milliseconds(4));
    return absl::OkStatus();
  };
  Start();
  clock_.Advance(std::chrono::milliseconds(1));
  runner_.Run(*dispatcher_.TryTake());
  EXPECT_EQ(RunAll(), 2);
  ASSERT_EQ(steps.size(), 3U);
  const TracedStep& left = steps[0];
  EXPECT_EQ(left.name, "left");
  EXPECT_EQ(left.model, "left");
  EXPECT_EQ(left.version, "1");
  EXPECT_EQ(left.precision, "fp32");
  EXPECT_EQ(left.route, "default");
  EXPECT_EQ(left.begin, begin);
  EXPECT_EQ(left.timings.queue, std::chrono::milliseconds(1));
  EXPECT_TRUE(left.timings.ran);
  EXPECT_TRUE(left.status.ok());
  EXPECT_EQ(steps[1].status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(steps[2].begin, begin + std::chrono::milliseconds(1));
  EXPECT_EQ(steps[2].timings.compute_infer, std::chrono::milliseconds(4));
  EXPECT_EQ(steps[2].timings.total, std::chrono::milliseconds(4));
}

TEST_F(PipelineRunTest, AStepWhoseTurnNeverCameHasNoBeginning) {
  std::vector<TracedStep> steps;
  trace_ = &steps;
  left_model_->before_run = [] { return absl::InternalError("broken"); };
  Start();
  RunAll();
  EXPECT_TRUE(steps[1].begin);
  EXPECT_FALSE(steps[2].begin);
}

TEST_F(PipelineRunTest, TheShadowOfAStepGetsWhatTheStepReadAndAnswered) {
  const auto of_left = Shadow(0, left_model_);  // reads the client's tensor
  const auto of_last = Shadow(2, last_model_);  // reads what left answered
  const std::weak_ptr<const void> wire = wire_;
  Start();
  while (call_.calls == 0) runner_.Run(*dispatcher_.TryTake());
  EXPECT_TRUE(int8_model_->runs().empty()) << "the steps come first";
  EXPECT_THAT(answers_.values[2], Each(10));
  EXPECT_FALSE(wire.expired());
  const VariantMetrics& waiting = *pipeline_->steps[0].version->Find(Precision::kInt8)->metrics;
  EXPECT_EQ(waiting.shadow_queue_bytes.value(), 1016) << "the client's, and what was answered";
  EXPECT_EQ(RunAll(), 2);
  EXPECT_TRUE(wire.expired());
  EXPECT_EQ(waiting.shadow_queue_bytes.value(), 0);
  const ShadowMetrics& left = *of_left->pairs.at(Precision::kFp32);
  EXPECT_EQ(left.compared.value(), 1U);
  EXPECT_EQ(left.max_abs.Read().sum, 5);  // |7 * 1 - 2 * 1|
  const ShadowMetrics& last = *of_last->pairs.at(Precision::kFp32);
  EXPECT_EQ(last.compared.value(), 1U);
  EXPECT_EQ(last.max_abs.Read().sum, 4);  // |7 * 2 - 5 * 2|
}

TEST_F(PipelineRunTest, TheShadowOfAStepThatFailedGetsNothing) {
  const auto shadow = Shadow(0, left_model_);
  left_model_->before_run = [] { return absl::InternalError("broken"); };
  Start();
  RunAll();
  EXPECT_EQ(shadow->pairs.at(Precision::kFp32)->compared.value(), 0U);
  EXPECT_TRUE(int8_model_->runs().empty());
}

TEST_F(PipelineRunTest, TheCaptureOfAStepKeepsWhatItReadWhereTheClientLetsIt) {
  const ModelFolder folder;
  const auto captured = std::make_shared<CaptureMetrics>();
  auto version = repository_.Make("last", 1, {{Precision::kFp32, last_model_}});
  version->capture = *RequestCapture::Make({.model = "last", .version = 1, .path = folder.path()},
                                           version->signature, {.percent = 100}, captured);
  pipeline_->steps[2].version = version;
  captures_ = false;
  Start();
  RunAll();
  EXPECT_EQ(captured->requests.value(), 0U);
  captures_ = true;
  TestCall again({1, 1, 1, 1}, {4});
  auto request = again.Request(clock_.Now());
  request->outputs = &answers_;
  RunPipeline({version_, "", dispatcher_, clock_}, std::move(request));
  RunAll();
  EXPECT_EQ(captured->requests.value(), 1U);
  version->capture->Write();
  const auto arrays = ReadNpz(folder.path("last/1/fp32-4.npz"));
  ASSERT_TRUE(arrays.ok()) << arrays.status();
  EXPECT_THAT(arrays->at("x").span<float>(), Each(2));
}

TEST_F(PipelineRunTest, APipelineMayBeAStep) {
  const auto shadow = Shadow(0, left_model_);
  std::vector<TracedStep> traced;
  trace_ = &traced;
  auto outer = std::make_shared<Pipeline>();
  PipelineStep& step = outer->steps.emplace_back();
  step.name = "inner";
  step.version = version_;
  step.signature.inputs = left_model_->signature().inputs;
  step.signature.outputs.resize(3);
  step.signature.batches = true;
  step.recipes = {*InputRecipe::Make(step.signature.inputs[0], nullptr)};
  step.max_batch = 8;
  step.inputs = {{std::nullopt, 0}};
  step.wanted = {false, false, true};
  outer->outputs = {{0, 2}};
  outer->observer = std::make_shared<CountingObserver>();
  auto version = std::make_shared<ModelVersion>();
  version->pipeline = outer;
  version_ = version;
  Start();
  RunAll();
  ASSERT_TRUE(call_.status->ok()) << *call_.status;
  EXPECT_THAT(answers_.values[0], Each(10));
  EXPECT_EQ(observer_->succeeded, 1);
  ASSERT_EQ(traced.size(), 1U);
  EXPECT_EQ(traced[0].model, "pipe");
  ASSERT_EQ(traced[0].steps.size(), 3U);
  EXPECT_EQ(traced[0].steps[2].name, "last");
  EXPECT_EQ(shadow->pairs.at(Precision::kFp32)->compared.value(), 1U);
}

}  // namespace pipeline_run_test
}  // namespace octet
