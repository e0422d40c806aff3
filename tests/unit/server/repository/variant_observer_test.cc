#include "server/repository/variant_observer.h"

#include <array>

#include <gtest/gtest.h>

namespace octet {
namespace variant_observer_test {

using std::chrono::microseconds;

class VariantObserverTest : public ::testing::Test {
 protected:
  std::shared_ptr<VariantMetrics> metrics_ = std::make_shared<VariantMetrics>();
  std::shared_ptr<VersionStatistics> statistics_ = std::make_shared<VersionStatistics>();
  VariantObserver observer_{metrics_, statistics_};
};

TEST_F(VariantObserverTest, GaugesFollowWhatWaitsAndWhatIsUnderWay) {
  observer_.OnQueued(100);
  observer_.OnQueued(50);
  EXPECT_EQ(metrics_->queue_depth.value(), 2);
  EXPECT_EQ(metrics_->queue_bytes.value(), 150);
  observer_.OnDequeued(100);
  EXPECT_EQ(metrics_->queue_depth.value(), 1);
  EXPECT_EQ(metrics_->queue_bytes.value(), 50);
  EXPECT_EQ(metrics_->in_flight.value(), 2);
  observer_.OnFinished(absl::StatusCode::kOk, 1, {});
  EXPECT_EQ(metrics_->in_flight.value(), 1);
}

TEST_F(VariantObserverTest, RefusalsAreCountedByReason) {
  observer_.OnRefused(Refusal::kTarget);
  EXPECT_EQ(RefusalLabel::kValues[static_cast<size_t>(Refusal::kTarget)], "p99_target");
  EXPECT_EQ(metrics_->refused.value(static_cast<size_t>(Refusal::kTarget)), 1);
}

TEST_F(VariantObserverTest, ABatchIsCountedOnceAndItsRequestsEach) {
  const std::array queue_times = {Nanoseconds(microseconds(5)), Nanoseconds(microseconds(15))};
  observer_.OnBatch({.rows = 5,
                     .plan_rows = 8,
                     .compute_input = microseconds(1),
                     .compute_infer = microseconds(100),
                     .compute_output = microseconds(2),
                     .smoothed = microseconds(110),
                     .queue_times = queue_times});
  observer_.OnFinished(absl::StatusCode::kOk, 2,
                       {.queue = microseconds(5),
                        .compute_infer = microseconds(100),
                        .total = microseconds(110),
                        .ran = true});
  observer_.OnFinished(absl::StatusCode::kOk, 3,
                       {.queue = microseconds(15),
                        .compute_infer = microseconds(100),
                        .total = microseconds(120),
                        .ran = true});
  EXPECT_EQ(metrics_->rows.value(), 5);
  EXPECT_EQ(metrics_->padding_rows.value(), 3);
  EXPECT_EQ(metrics_->executions.value(), 1);
  EXPECT_DOUBLE_EQ(metrics_->batch_time.value(BatchSizeIndex(8)), 110e-6);
  EXPECT_NEAR(metrics_->queue_duration.Read().sum, 20e-6, 1e-9);
  EXPECT_NEAR(metrics_->compute_duration.Read().sum, 100e-6, 1e-9);
  EXPECT_NEAR(metrics_->request_duration.Read().sum, 230e-6, 1e-9);
  EXPECT_EQ(metrics_->batch_rows.Read().sum, 5);
  EXPECT_EQ(metrics_->requests.value(0), 2);

  const StatisticsSnapshot counts = statistics_->Read();
  EXPECT_EQ(counts.inference_count, 5);
  EXPECT_EQ(counts.execution_count, 1);
  EXPECT_GT(counts.last_inference_ms, 1'700'000'000'000);
  EXPECT_EQ(counts.success.count, 2);
  EXPECT_EQ(counts.success.total, microseconds(230));
  EXPECT_EQ(counts.queue.total, microseconds(20));
  EXPECT_EQ(counts.compute_infer.total, microseconds(200));
  ASSERT_EQ(counts.batches.size(), 1);
  EXPECT_EQ(counts.batches.at(5).compute_infer.count, 1);
  EXPECT_EQ(counts.batches.at(5).compute_infer.total, microseconds(100));
}

TEST_F(VariantObserverTest, RetiredItCountsOnAndShowsNoTimesOfBatches) {
  const BatchRecord record = {.rows = 1, .plan_rows = 1, .smoothed = microseconds(110)};
  observer_.OnBatch(record);
  EXPECT_DOUBLE_EQ(metrics_->batch_time.value(BatchSizeIndex(1)), 110e-6);
  observer_.Retire();
  EXPECT_EQ(metrics_->batch_time.value(BatchSizeIndex(1)), 0);
  observer_.OnBatch(record);
  EXPECT_EQ(metrics_->batch_time.value(BatchSizeIndex(1)), 0);
  EXPECT_EQ(metrics_->executions.value(), 2);
}

TEST_F(VariantObserverTest, FailuresAreCountedByTheirCodeAndNotAsInferences) {
  observer_.OnBatch({.code = absl::StatusCode::kInternal, .rows = 1, .plan_rows = 1});
  observer_.OnFinished(absl::StatusCode::kInternal, 1, {.total = microseconds(7), .ran = true});
  observer_.OnFinished(absl::StatusCode::kResourceExhausted, 1, {.total = microseconds(1)});
  EXPECT_EQ(metrics_->requests.value(static_cast<size_t>(absl::StatusCode::kInternal)), 1);
  EXPECT_EQ(metrics_->requests.value(static_cast<size_t>(absl::StatusCode::kResourceExhausted)), 1);
  EXPECT_EQ(metrics_->request_duration.Read().total(), 1) << "a refusal has no duration";
  const StatisticsSnapshot counts = statistics_->Read();
  EXPECT_EQ(counts.fail.count, 2);
  EXPECT_EQ(counts.fail.total, microseconds(8));
  EXPECT_EQ(counts.success.count, 0);
  EXPECT_EQ(counts.inference_count, 0);
  EXPECT_EQ(counts.execution_count, 1);
  EXPECT_EQ(counts.last_inference_ms, 0);
  EXPECT_TRUE(counts.batches.empty());
}

TEST_F(VariantObserverTest, AGuardsLimitIsHeldAgainstWhatRanAlone) {
  const auto limit = std::make_shared<LatencyLimit>(50'000);
  VariantObserver observer(metrics_, statistics_, limit);
  observer.OnFinished(absl::StatusCode::kOk, 1, {.total = microseconds(50'000), .ran = true});
  observer.OnFinished(absl::StatusCode::kOk, 1, {.total = microseconds(50'001), .ran = true});
  observer.OnFinished(absl::StatusCode::kResourceExhausted, 1, {.total = microseconds(60'000)});
  EXPECT_EQ(limit->requests(), 2U);
  EXPECT_EQ(limit->slow(), 1U);
}

TEST_F(VariantObserverTest, NothingOfAShadowCopyIsCountedAsAClients) {
  ShadowObserver shadow(metrics_);
  shadow.OnQueued(100);
  EXPECT_EQ(metrics_->shadow_queue_depth.value(), 1);
  EXPECT_EQ(metrics_->shadow_queue_bytes.value(), 100);
  EXPECT_EQ(metrics_->queue_depth.value(), 0);
  EXPECT_EQ(metrics_->queue_bytes.value(), 0);
  EXPECT_EQ(metrics_->in_flight.value(), 0);
  shadow.OnDequeued(100);
  EXPECT_EQ(metrics_->shadow_queue_depth.value(), 0);
  EXPECT_EQ(metrics_->shadow_queue_bytes.value(), 0);
  const std::array queue_times = {Nanoseconds(microseconds(5))};
  shadow.OnBatch(
      {.rows = 5, .plan_rows = 8, .compute_infer = microseconds(100), .queue_times = queue_times});
  shadow.OnFinished(absl::StatusCode::kOk, 5, {.total = microseconds(110)});
  EXPECT_NEAR(metrics_->shadow_compute_duration.Read().sum, 100e-6, 1e-9);
  EXPECT_EQ(metrics_->compute_duration.Read().sum, 0);
  EXPECT_EQ(metrics_->request_duration.Read().sum, 0);
  EXPECT_EQ(metrics_->queue_duration.Read().sum, 0);
  EXPECT_EQ(metrics_->rows.value(), 0);
  EXPECT_EQ(metrics_->executions.value(), 0);
  EXPECT_EQ(metrics_->requests.value(0), 0);
}

}  // namespace variant_observer_test
}  // namespace octet
