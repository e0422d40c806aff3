#include "server/scheduling/batch_runner.h"

#include <array>
#include <deque>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_model.h"
#include "tests/support/graph_builder.h"
#include "tests/support/test_request.h"

namespace octet {
namespace batch_runner_test {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

class BatchRunnerTest : public ::testing::Test {
 protected:
  /// Queues a request whose rows are `values` (two floats a row) for model_.
  TestCall& Call(std::vector<float> values, TimePoint deadline = kNever) {
    if (queue_ == nullptr) queue_ = MakeQueue(model_, {.max_batch = max_batch_}, observer_);
    TestCall& call = calls_.emplace_back(std::move(values), Shape{2});
    dispatcher_.Submit(queue_, call.Request(clock_.Now(), deadline));
    return call;
  }
  void RunOne() { runner_.Run(*dispatcher_.TryTake()); }

  FakeClock clock_;
  int64_t max_batch_ = 8;
  std::shared_ptr<FakeModel> model_ = std::make_shared<FakeModel>(Shape{kUnknownDim, 2});
  std::shared_ptr<CountingObserver> observer_ = std::make_shared<CountingObserver>();
  std::shared_ptr<VariantQueue> queue_;
  std::deque<TestCall> calls_;
  Dispatcher dispatcher_{clock_};
  BatchRunner runner_{clock_};
};

TEST_F(BatchRunnerTest, EachRequestGetsItsOwnRows) {
  TestCall& a = Call({1, 2});
  TestCall& b = Call({3, 4, 5, 6});
  RunOne();
  EXPECT_THAT(a.answer, ElementsAre(2, 4));
  EXPECT_THAT(b.answer, ElementsAre(6, 8, 10, 12));
  EXPECT_EQ(a.answer_shape, (Shape{1, 2}));
  EXPECT_EQ(b.answer_shape, (Shape{2, 2}));
}

TEST_F(BatchRunnerTest, NoElementsHaveAPlaceAllTheSame) {
  model_ = std::make_shared<FakeModel>(Shape{1, kUnknownDim});
  queue_ = MakeQueue(model_, {.max_batch = 1}, observer_);
  TestCall& call = calls_.emplace_back(std::vector<float>(), Shape{2});
  auto request = call.Request(clock_.Now());
  request->rows = 1;
  request->inputs = {{nullptr, {DType::kF32, {1, 0}}}};
  dispatcher_.Submit(queue_, std::move(request));
  RunOne();
  ASSERT_EQ(*call.status, absl::OkStatus());
  EXPECT_EQ(call.answer_shape, (Shape{1, 0}));
  EXPECT_NE(model_->last_input_pointer(), nullptr) << "a kernel takes null for an absent operand";
}

/// A sink that keeps its elements where they were written.
class KeepingSink final : public OutputSink {
 public:
  void* Reserve(size_t, const TensorSpec&) override { return reserved.data(); }
  absl::Status TakeStrings(size_t, ConstTensorView) override { return absl::OkStatus(); }
  bool Keep(size_t, const TensorSpec& spec, std::shared_ptr<const std::byte[]> of,
            const std::byte* elements) override {
    owner = std::move(of);
    kept = {reinterpret_cast<const float*>(elements), static_cast<size_t>(spec.shape.elements())};
    return true;
  }
  std::shared_ptr<const std::byte[]> owner;
  std::span<const float> kept;
  std::array<float, 64> reserved{};
};

class KeptOutputTest : public BatchRunnerTest {
 protected:
  /// Runs a batch of `others` + 1 requests of one row, the first of which keeps its answer.
  KeepingSink& RunKept(float value, int others) {
    if (queue_ == nullptr) queue_ = MakeQueue(model_, {.max_batch = max_batch_}, observer_);
    KeepingSink& sink = sinks_.emplace_back();
    TestCall& call = calls_.emplace_back(std::vector<float>(2, value), Shape{2});
    auto request = call.Request(clock_.Now());
    request->outputs = &sink;
    dispatcher_.Submit(queue_, std::move(request));
    for (int i = 0; i < others; ++i) Call({0, 0});
    RunOne();
    return sink;
  }
  std::deque<KeepingSink> sinks_;
};

TEST_F(KeptOutputTest, WhatSomebodyKeepsIsNotWrittenAgain) {
  KeepingSink& first = RunKept(1, 1);
  const auto* place = first.kept.data();
  KeepingSink& second = RunKept(3, 1);
  EXPECT_THAT(first.kept, ElementsAre(2, 2));
  EXPECT_THAT(second.kept, ElementsAre(6, 6));
  EXPECT_NE(second.kept.data(), place);
  const auto* again = second.kept.data();
  second.owner.reset();
  EXPECT_EQ(RunKept(4, 1).kept.data(), again) << "nobody keeps it any more";
}

TEST_F(KeptOutputTest, NobodyKeepsMuchMoreThanItsOwn) {
  EXPECT_EQ(RunKept(1, 7).kept.size(), 2U);
  max_batch_ = 16;
  queue_ = nullptr;
  KeepingSink& one_of_many = RunKept(5, 15);
  EXPECT_TRUE(one_of_many.kept.empty());
  EXPECT_EQ(one_of_many.reserved[0], 10) << "copied";
}

TEST_F(KeptOutputTest, AnswersOfARunThatOwnsThemAreNotCopied) {
  model_ = std::make_shared<FakeModel>(Shape{1, 2});
  model_->selects = true;
  max_batch_ = 1;
  KeepingSink& sink = RunKept(4, 0);
  EXPECT_THAT(sink.kept, ElementsAre(8, 8));
}

TEST_F(BatchRunnerTest, TensorsInPiecesAreGathered) {
  const std::vector<float> values = {1, 2, 3, 4};
  const std::string_view bytes(reinterpret_cast<const char*>(values.data()), 16);
  for (size_t cut = 0; cut <= 16; ++cut) {  // also across an element
    const std::array<std::string_view, 2> pieces = {bytes.substr(0, cut), bytes.substr(cut)};
    TestCall& alone = calls_.emplace_back(values, Shape{2});
    if (queue_ == nullptr) queue_ = MakeQueue(model_, {.max_batch = max_batch_}, observer_);
    auto request = alone.Request(clock_.Now());
    request->inputs = {{WireBytes(pieces), {DType::kF32, {2, 2}}}};
    dispatcher_.Submit(queue_, std::move(request));
    RunOne();
    EXPECT_THAT(alone.answer, ElementsAre(2, 4, 6, 8)) << cut;
  }
}

TEST_F(BatchRunnerTest, TheBatchIsPaddedWithZerosToItsCompiledSize) {
  TestCall& full = Call(std::vector<float>(8, 9));
  RunOne();
  Call({1, 2});
  Call({3, 4});
  Call({5, 6});
  RunOne();
  EXPECT_THAT(model_->last_input(), ElementsAre(1, 2, 3, 4, 5, 6, 0, 0));
  EXPECT_EQ(observer_->rows, 4 + 3);
  EXPECT_EQ(observer_->plan_rows, 4 + 4);
  EXPECT_THAT(full.answer, Each(18));
}

TEST_F(BatchRunnerTest, ARequestThatFillsTheBatchAloneIsNotCopied) {
  auto call = TestCall({1, 2, 3, 4}, {2});
  queue_ = MakeQueue(model_, {.max_batch = 8}, observer_);
  auto request = call.Request(clock_.Now());
  const void* wire = request->inputs[0].data;
  dispatcher_.Submit(queue_, std::move(request));
  RunOne();
  EXPECT_EQ(model_->last_input_pointer(), wire);
  EXPECT_THAT(call.answer, ElementsAre(2, 4, 6, 8));
}

TEST_F(BatchRunnerTest, UnalignedWireBytesAreCopied) {
  std::vector<float> memory(3);
  auto* unaligned = reinterpret_cast<std::byte*>(memory.data()) + 1;
  const float values[] = {1, 2};
  std::memcpy(unaligned, values, sizeof(values));
  TestCall call({0, 0}, {2});
  queue_ = MakeQueue(model_, {.max_batch = 8}, observer_);
  auto request = call.Request(clock_.Now());
  request->inputs[0].data = unaligned;
  dispatcher_.Submit(queue_, std::move(request));
  RunOne();
  EXPECT_NE(model_->last_input_pointer(), unaligned);
  EXPECT_THAT(call.answer, ElementsAre(2, 4));
}

TEST_F(BatchRunnerTest, AnOutputThatNobodyAskedForIsComputedAndLeft) {
  TestCall& alone = Call({1, 2});
  alone.skip_outputs = true;
  RunOne();
  EXPECT_TRUE(alone.status->ok());
  TestCall& skips = Call({1, 2});
  TestCall& asks = Call({3, 4});
  skips.skip_outputs = true;
  RunOne();
  EXPECT_TRUE(skips.status->ok());
  EXPECT_TRUE(skips.answer.empty());
  EXPECT_THAT(asks.answer, ElementsAre(6, 8));
}

TEST_F(BatchRunnerTest, AModelThatDoesNotBatchKeepsItsShape) {
  model_ = std::make_shared<FakeModel>(Shape{1, 2});
  max_batch_ = 1;
  TestCall& a = Call({1, 2});
  TestCall& b = Call({3, 4});
  RunOne();
  RunOne();
  EXPECT_THAT(model_->runs(), ElementsAre(Shape{1, 2}, Shape{1, 2}));
  EXPECT_THAT(a.answer, ElementsAre(2, 4));
  EXPECT_THAT(b.answer, ElementsAre(6, 8));
}

TEST_F(BatchRunnerTest, NarrowWireTypesAreConvertedStraightIntoTheBatch) {
  const WireMapping mapping = {DType::kU8, {0.5F, 2}, {127.5F, 1}};
  const TensorInfo input = {"x", DType::kF32, {kUnknownDim, 2}};
  ExecutionTarget target = MakeQueue(model_, {.max_batch = 8}, observer_)->target();
  target.recipes = {*InputRecipe::Make(input, &mapping)};
  queue_ = std::make_shared<VariantQueue>(std::move(target));
  const std::vector<uint8_t> wire = {128, 3, 127, 0};
  TestCall narrow({0, 0, 0, 0}, {2});
  auto request = narrow.Request(clock_.Now());
  request->inputs[0] = {wire.data(), {DType::kU8, {2, 2}}};
  dispatcher_.Submit(queue_, std::move(request));
  TestCall& wide = Call({7, 8});
  RunOne();
  EXPECT_THAT(model_->last_input(), ElementsAre(0.25, 4, -0.25, -2, 7, 8, 0, 0));
  EXPECT_THAT(narrow.answer, ElementsAre(0.5, 8, -0.5, -4));
  EXPECT_THAT(wide.answer, ElementsAre(14, 16));
}

/// Integers whose byte 0 is no 0, and a layer that quantizes by the range of the whole batch.
std::shared_ptr<const Model> QuantizingModel() {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {kUnknownDim, 2}), 0.5F, 131);
  const auto quantized = b.Ops("DynamicQuantizeLinear", {x}, 3);
  const ValueId w = b.Constant<int8_t>({2, 2}, {1, 0, 0, 1});
  const ValueId sums = b.Op("MatMulInteger", {quantized[0], w, quantized[2]});
  b.Output(b.Op("Mul", {b.Op("Cast", {sums}, {{"to", int64_t{1}}}), quantized[1]}));
  LoadOptions options;
  options.max_batch = 4;
  options.narrow_inputs = true;
  auto model = Model::FromGraph(b.Build(), options);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

TEST_F(BatchRunnerTest, PaddingIsZeroAlsoWhereByteZeroIsNot) {
  const auto model = QuantizingModel();
  ASSERT_TRUE(model->signature().inputs[0].narrow);
  queue_ = MakeQueue(model, {.max_batch = 4}, observer_);
  // In steps of 2 / 255: what is padded with -65 has steps of a quarter.
  for (const float value : {1.0F, 1.5F, 2.0F}) Call({value, 0.5F});
  RunOne();
  EXPECT_THAT(calls_[0].answer, Pointwise(FloatNear(0.005F), {1.0F, 0.5F}));
  EXPECT_THAT(calls_[1].answer, Pointwise(FloatNear(0.005F), {1.5F, 0.5F}));
  EXPECT_THAT(calls_[2].answer, Pointwise(FloatNear(0.005F), {2.0F, 0.5F}));
}

TEST_F(BatchRunnerTest, AFailureReachesEveryRequestOnce) {
  model_->before_run = [] { return absl::InternalError("primitive failed"); };
  Call({1, 2});
  Call({3, 4});
  RunOne();
  for (const TestCall& call : calls_) {
    EXPECT_EQ(call.calls, 1);
    EXPECT_EQ(call.status->code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(Message(*call.status)), HasSubstr("net/1/fp32: primitive failed"));
  }
  EXPECT_EQ(observer_->finished, 2);
  EXPECT_EQ(observer_->succeeded, 0);
}

// An index beyond a table is known to the kernel that reads it, for the whole batch.
TEST_F(BatchRunnerTest, DataThatTheModelDoesNotTakeFailTheirRequestAlone) {
  int runs = 0;
  model_->before_run = [&] {
    ++runs;
    const bool among_them = runs <= 2 || runs == 4;  // together; the first two; the second alone
    return among_them ? absl::InvalidArgumentError("Gather: index 9") : absl::OkStatus();
  };
  TestCall& first = Call({1, 2});
  TestCall& wrong = Call({3, 4});
  TestCall& last = Call({5, 6, 7, 8});
  RunOne();
  EXPECT_EQ(runs, 5);
  EXPECT_EQ(wrong.status->code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(*wrong.status)), HasSubstr("Gather: index 9"));
  EXPECT_TRUE(first.status->ok());
  EXPECT_THAT(first.answer, ElementsAre(2, 4));
  EXPECT_TRUE(last.status->ok());
  EXPECT_THAT(last.answer, ElementsAre(10, 12, 14, 16));
  for (const TestCall& call : calls_) EXPECT_EQ(call.calls, 1);
  EXPECT_EQ(observer_->finished, 3);
  EXPECT_EQ(observer_->succeeded, 2);
}

TEST_F(BatchRunnerTest, OneRequestOfManyIsFoundByHalves) {
  max_batch_ = 16;
  int runs = 0;
  model_->before_run = [&] {
    ++runs;
    // Of 0 to 15, the sixth: 0-15, 0-7, (0-3), 4-7, 4-5, (4), 5, (6-7), (8-15).
    const bool among_them = runs == 1 || runs == 2 || runs == 4 || runs == 5 || runs == 7;
    return among_them ? absl::InvalidArgumentError("Gather: index 9") : absl::OkStatus();
  };
  for (int i = 0; i < 16; ++i) Call({static_cast<float>(i), 1});
  RunOne();
  EXPECT_EQ(runs, 9);
  EXPECT_THAT(model_->runs(), ElementsAre(Shape{4, 2}, Shape{1, 2}, Shape{2, 2}, Shape{8, 2}));
  for (size_t i = 0; i < calls_.size(); ++i) {
    EXPECT_EQ(calls_[i].calls, 1);
    if (i == 5) {
      EXPECT_EQ(calls_[i].status->code(), absl::StatusCode::kInvalidArgument);
    } else {
      EXPECT_THAT(calls_[i].answer, ElementsAre(2 * static_cast<float>(i), 2));
    }
  }
  EXPECT_EQ(observer_->batches, 9) << "those that failed together, too";
  EXPECT_EQ(observer_->batched_requests, 16);
  EXPECT_EQ(observer_->dequeued, 16);
  EXPECT_EQ(observer_->finished, 16);
}

TEST_F(BatchRunnerTest, NothingRunsAgainForThoseWhoHaveGone) {
  int runs = 0;
  TestCall& late = Call({1, 2}, clock_.Now() + milliseconds(10));
  TestCall& wrong = Call({3, 4});
  TestCall& left = Call({5, 6});
  TestCall& last = Call({7, 8});
  model_->before_run = [&] {
    ++runs;
    left.cancelled = true;
    clock_.Advance(milliseconds(20));
    return runs < 3 ? absl::InvalidArgumentError("Gather: index 9") : absl::OkStatus();
  };
  RunOne();
  EXPECT_EQ(runs, 3) << "together; the wrong one; the last one";
  EXPECT_EQ(late.status->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(left.status->code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(wrong.status->code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(last.answer, ElementsAre(14, 16));
  for (const TestCall& call : calls_) EXPECT_EQ(call.calls, 1);
  EXPECT_FALSE(late.timings.ran);
  EXPECT_FALSE(left.timings.ran);
  EXPECT_EQ(observer_->refused[static_cast<size_t>(Refusal::kExpired)], 1);
  EXPECT_EQ(observer_->dequeued, 4);
  EXPECT_EQ(observer_->finished, 4);
  EXPECT_EQ(observer_->batches, 3);
  EXPECT_EQ(last.timings.queue, milliseconds(40)) << "behind what ran without an answer to it";
  EXPECT_EQ(last.timings.total, milliseconds(60));
}

TEST_F(BatchRunnerTest, ShapesThatThePlanRefusesAreTheCallersError) {
  model_->plan_error = absl::InvalidArgumentError("input \"x\": no");
  TestCall& call = Call({1, 2});
  RunOne();
  EXPECT_EQ(call.status->code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(BatchRunnerTest, RunningOutOfMemoryFailsTheBatchAlone) {
  model_->before_run = []() -> absl::Status { throw std::bad_alloc(); };
  TestCall& failed = Call({1, 2});
  RunOne();
  EXPECT_EQ(failed.status->code(), absl::StatusCode::kResourceExhausted);
  model_->before_run = nullptr;
  TestCall& next = Call({1, 2});
  RunOne();
  EXPECT_TRUE(next.status->ok());
}

TEST_F(BatchRunnerTest, WhateverIsThrownFailsTheBatchAlone) {
  model_->before_run = []() -> absl::Status { throw std::runtime_error("out of luck"); };
  TestCall& failed = Call({1, 2});
  RunOne();
  EXPECT_EQ(failed.status->code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(failed.status->message()), HasSubstr("out of luck"));
  model_->before_run = nullptr;
  TestCall& next = Call({1, 2});
  RunOne();
  EXPECT_TRUE(next.status->ok());
}

TEST_F(BatchRunnerTest, TimingsSayWhereTheTimeWent) {
  model_->before_run = [this] {
    clock_.Advance(milliseconds(20));
    return absl::OkStatus();
  };
  TestCall& call = Call({1, 2});
  clock_.Advance(milliseconds(5));
  RunOne();
  EXPECT_EQ(call.timings.queue, milliseconds(5));
  EXPECT_EQ(call.timings.compute_infer, milliseconds(20));
  EXPECT_EQ(call.timings.total, milliseconds(25));
}

TEST_F(BatchRunnerTest, SuccessfulBatchesDrawTheCurveOfTheirSize) {
  model_->before_run = [this] {
    clock_.Advance(milliseconds(20));
    return absl::OkStatus();
  };
  Call(std::vector<float>(6, 1));
  RunOne();
  EXPECT_EQ(queue_->times().Curve(clock_.Now()).TimeOf(4), milliseconds(20))
      << "three rows run as four";
  model_->before_run = [this] {
    clock_.Advance(milliseconds(1));
    return absl::InternalError("no");
  };
  Call(std::vector<float>(8, 1));
  RunOne();
  EXPECT_EQ(queue_->times().Curve(clock_.Now()).TimeOf(4), milliseconds(20))
      << "a failure is no measure";
}

TEST_F(BatchRunnerTest, WhatAPlanTookToCompileIsNoTimeOfItsBatches) {
  model_->before_plan = [this] { clock_.Advance(seconds(3)); };
  model_->before_run = [this] {
    clock_.Advance(milliseconds(20));
    return absl::OkStatus();
  };
  TestCall& call = Call({1, 2});
  RunOne();
  EXPECT_EQ(queue_->times().Curve(clock_.Now()).TimeOf(1), milliseconds(20));
  EXPECT_EQ(call.timings.total, milliseconds(3020));
}

TEST_F(BatchRunnerTest, AnExtentThatFollowsFromTheDataIsAnswered) {
  model_ = std::make_shared<FakeModel>(Shape{1, 2});
  model_->selects = true;
  max_batch_ = 1;
  TestCall& both = Call({1, 2});
  TestCall& one = Call({-1, 3});
  TestCall& none = Call({-1, -2});
  for (int i = 0; i < 3; ++i) RunOne();
  EXPECT_THAT(both.answer, ElementsAre(2, 4));
  EXPECT_EQ(one.answer_shape, Shape{1});
  EXPECT_THAT(one.answer, ElementsAre(6));
  EXPECT_EQ(none.answer_shape, Shape{0});
  EXPECT_EQ(none.status, absl::OkStatus());
  EXPECT_EQ(observer_->batches, 3);
}

TEST_F(BatchRunnerTest, ARunThatLooksForThatEndsWhenItIsCancelled) {
  model_ = std::make_shared<FakeModel>(Shape{1, 2});
  model_->selects = true;
  max_batch_ = 1;
  TestCall& left = Call({1, 2});
  model_->before_run = [&left] {
    left.cancelled = true;
    return absl::OkStatus();
  };
  RunOne();
  EXPECT_EQ(left.status->code(), absl::StatusCode::kCancelled);
}

}  // namespace batch_runner_test
}  // namespace octet
