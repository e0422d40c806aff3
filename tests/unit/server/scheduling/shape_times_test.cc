#include "server/scheduling/shape_times.h"

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/scheduling/batch_runner.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_model.h"
#include "tests/support/test_request.h"

namespace octet {
namespace shape_times_test {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

std::vector<WireTensor> Inputs(Shape a, Shape b) {
  return {{nullptr, {DType::kF32, std::move(a)}}, {nullptr, {DType::kI64, std::move(b)}}};
}

class ShapeTimesTest : public ::testing::Test {
 protected:
  TimePoint now_ = TimePoint() + seconds(100);
  ShapeTimes times_;
};

TEST_F(ShapeTimesTest, EachShapeHasATimeOfItsOwn) {
  const auto small = Inputs({1, 2}, {3});
  const auto large = Inputs({1, 200}, {3});
  for (int run = 0; run < 2; ++run) {
    times_.Observe(small, milliseconds(1), now_);
    times_.Observe(large, milliseconds(50), now_);
  }
  EXPECT_EQ(times_.Expected(small, now_), milliseconds(1));
  EXPECT_EQ(times_.Expected(large, now_), milliseconds(50));
  EXPECT_EQ(times_.Expected(Inputs({1, 2}, {4}), now_), Nanoseconds::zero());
  EXPECT_EQ(times_.Expected(Inputs({1}, {2, 3}), now_), Nanoseconds::zero())
      << "the same extents in other inputs";
}

TEST_F(ShapeTimesTest, TheFirstRunSaysNothingByItself) {
  const auto inputs = Inputs({1, 2}, {3});
  times_.Observe(inputs, milliseconds(80), now_);
  EXPECT_EQ(times_.Expected(inputs, now_), Nanoseconds::zero());
  times_.Observe(inputs, milliseconds(10), now_);
  EXPECT_EQ(times_.Expected(inputs, now_), milliseconds(10));
  times_.Observe(inputs, milliseconds(18), now_);
  EXPECT_EQ(times_.Expected(inputs, now_), milliseconds(11)) << "an eighth of the way";
}

TEST_F(ShapeTimesTest, WhatIsNotFreshIsNotKnown) {
  const auto inputs = Inputs({1, 2}, {3});
  for (int run = 0; run < 2; ++run) times_.Observe(inputs, milliseconds(10), now_);
  EXPECT_EQ(times_.Expected(inputs, now_ + kFresh), milliseconds(10));
  EXPECT_EQ(times_.Expected(inputs, now_ + kFresh + milliseconds(1)), Nanoseconds::zero());
}

TEST_F(ShapeTimesTest, TheOldestMakesRoom) {
  for (size_t i = 0; i <= ShapeTimes::kMost; ++i) {
    const auto inputs = Inputs({static_cast<int64_t>(i)}, {});
    for (int run = 0; run < 2; ++run)
      times_.Observe(inputs, milliseconds(1), now_ + Nanoseconds(i));
  }
  EXPECT_EQ(times_.Expected(Inputs({0}, {}), now_), Nanoseconds::zero());
  EXPECT_EQ(times_.Expected(Inputs({1}, {}), now_), milliseconds(1));
}

/// A model that takes 10 ms and does not batch, though axis 0 is open.
class OwnTimeTest : public ::testing::Test {
 protected:
  OwnTimeTest() {
    model_->mutable_signature().batches = false;
    model_->mutable_signature().samples_meet_in = "node 'softmax'";
    model_->before_run = [this] {
      clock_.Advance(milliseconds(10));
      return absl::OkStatus();
    };
    queue_ = MakeQueue(model_, {.max_batch = 1}, observer_, 100, 1 << 20, /*steady=*/false);
  }

  /// Nullopt: no deadline.
  TestCall& Submit(int rows, std::optional<Nanoseconds> allowed) {
    const TimePoint deadline = allowed ? clock_.Now() + *allowed : kNever;
    TestCall& call = calls_.emplace_back(std::vector<float>(size_t{2} * rows, 1), Shape{2});
    auto request = call.Request(clock_.Now(), deadline);
    request->rows = 1;
    dispatcher_.Submit(queue_, std::move(request));
    return call;
  }
  void RunOne() { runner_.Run(*dispatcher_.TryTake()); }
  /// Submits and runs two, which is what it takes to know their time.
  void Learn(int rows) {
    for (int run = 0; run < 2; ++run) {
      TestCall& call = Submit(rows, std::nullopt);
      RunOne();
      ASSERT_EQ(call.calls, 1);
      EXPECT_EQ(*call.status, absl::OkStatus());
    }
  }

  FakeClock clock_;
  std::shared_ptr<FakeModel> model_ = std::make_shared<FakeModel>(Shape{kUnknownDim, 2});
  std::shared_ptr<CountingObserver> observer_ = std::make_shared<CountingObserver>();
  std::shared_ptr<VariantQueue> queue_;
  std::deque<TestCall> calls_;
  Dispatcher dispatcher_{clock_};
  BatchRunner runner_{clock_};
};

TEST_F(OwnTimeTest, ADeadlineThatItsShapeCannotMeetIsRefusedBeforeCompute) {
  EXPECT_EQ(Submit(3, milliseconds(5)).calls, 0) << "nothing is known of it";
  RunOne();
  Learn(3);
  TestCall& late = Submit(3, milliseconds(9));
  ASSERT_EQ(late.calls, 1) << "refused at once";
  EXPECT_EQ(late.status->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(
      std::string(Message(*late.status)),
      HasSubstr("deadline cannot be met, expected 10.000 ms to the answer, 9.000 ms remain"));
  EXPECT_EQ(observer_->refused[static_cast<size_t>(Refusal::kDeadline)], 1);
  EXPECT_EQ(Submit(3, milliseconds(11)).calls, 0);
  EXPECT_EQ(Submit(4, milliseconds(9)).calls, 0) << "another shape";
  clock_.Advance(kFresh + milliseconds(1));
  EXPECT_EQ(Submit(3, milliseconds(9)).calls, 0) << "it was long ago";
}

TEST_F(OwnTimeTest, WhoWaitedTooLongIsNotRunAnyMore) {
  Learn(3);
  TestCall& call = Submit(3, milliseconds(15));
  clock_.Advance(milliseconds(6));
  EXPECT_FALSE(dispatcher_.TryTake().has_value());
  ASSERT_EQ(call.calls, 1);
  EXPECT_THAT(std::string(Message(*call.status)),
              HasSubstr("expected 10.000 ms to the answer, 9.000 ms remain"));
}

TEST_F(OwnTimeTest, WhatElementsDecideIsNotLearned) {
  model_->selects = true;
  Learn(3);
  EXPECT_EQ(Submit(3, milliseconds(9)).calls, 0);
}

}  // namespace shape_times_test
}  // namespace octet
