// What is left of a version, or of its variants, when its files change under it.
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/repository/model_repository.h"
#include "server/scheduling/batch_policy.h"
#include "tests/support/model_folder.h"

namespace octet {
namespace kept_version_test {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::string_view kGarbage = "this is no protobuf";

class KeptVersionTest : public ::testing::Test {
 protected:
  void Open() {
    ServerConfig config;
    config.repository.path = folder_.path();
    auto opened = ModelRepository::Open(config, 1, metrics_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    repository_ = *std::move(opened);
  }
  /// Two looks: the second one follows.
  void PollTwice() {
    repository_->Poll();
    repository_->Poll();
  }

  ModelFolder folder_;
  MetricsRegistry metrics_{{}};
  std::unique_ptr<ModelRepository> repository_;
};

TEST_F(KeptVersionTest, WhatAnswersOnKeepsTheBatchesThatItWasCompiledFor) {
  for (const int asked : {16, 6}) {
    folder_.Write("net/1/fp32.onnx", ScalingModel(2));
    folder_.Write("net/model.yaml", "batching: {max_batch: 8}");
    Open();
    folder_.Write("net/1/fp32.onnx", kGarbage);
    folder_.Write("net/model.yaml", Format("batching: {{max_batch: {}}}", asked));
    EXPECT_FALSE(repository_->Load("net").ok());
    const auto version = *repository_->Find("net", "");
    EXPECT_EQ(version->batching.max_batch, 8) << asked;
    const ExecutionTarget& target = version->Find(Precision::kFp32)->queue->target();
    ASSERT_EQ(target.batch.max_batch, 8) << asked;
    for (int64_t rows = 1; rows <= target.batch.max_batch; ++rows) {
      const Shape shape = {BucketFor(rows, target.batch.max_batch), 4};
      const auto plan = target.model->PlanFor({&shape, 1});
      EXPECT_TRUE(plan.ok()) << plan.status();
    }
  }
}

TEST_F(KeptVersionTest, ARampThatHasEndedWritesNothingWhoeverStillLooksAtIt) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", ScalingModel(2));
  const std::string routing =
      "routing: {guard: {bf16: {error_percent: 1, window_seconds: 10, min_samples: 1}}";
  folder_.Write("net/model.yaml", routing + ", ramp: {precision: bf16, steps: [5]}}");
  Open();
  const auto before = *repository_->Find("net", "");
  const std::vector<std::shared_ptr<const ModelVersion>> versions = {before};
  const ServedVariant& ramped = *before->Find(Precision::kBf16);
  ASSERT_NE(ramped.guard, nullptr);
  const TimePoint start = Clock::Real().Now();
  ramped.guard->Look(start);
  LookAtRamps(versions, start);
  folder_.Write("net/model.yaml", routing + "}");
  ASSERT_TRUE(repository_->Load("net").ok());
  ramped.metrics->request_duration.Observe(0.001);
  ramped.metrics->requests.Add(static_cast<size_t>(absl::StatusCode::kInternal));
  ramped.guard->Look(start + std::chrono::seconds(10));
  LookAtRamps(versions, start + std::chrono::seconds(10));
  EXPECT_TRUE(before->ramp->state().stopped);
  EXPECT_FALSE(std::ifstream(folder_.path("net/.ramp")).is_open());
}

TEST_F(KeptVersionTest, OfAPrecisionWhoseFileHasGoneTheGaugesAreNothing) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", ScalingModel(2));
  folder_.Write("net/model.yaml", "precisions: [fp32, bf16]");
  Open();
  const auto metrics = metrics_.ForVariant({"net", "1", "bf16"});
  EXPECT_GT(metrics->resident_weight_bytes.value(), 0);
  folder_.Remove("net/1/bf16.onnx");
  PollTwice();
  EXPECT_EQ(metrics->ready.value(), 0);
  EXPECT_EQ(metrics->resident_weight_bytes.value(), 0);
  EXPECT_EQ(metrics->load_seconds.value(), 0);
  EXPECT_THAT(metrics_.Text(),
              Not(HasSubstr(R"(octet_int8_mac_ratio{model="net",version="1",precision="bf16"})")));
}

TEST_F(KeptVersionTest, APrecisionThatIsServedNoMoreIsNotReadyWhoeverHoldsIt) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", ScalingModel(2));
  Open();
  const auto before = *repository_->Find("net", "");
  folder_.Remove("net/1/bf16.onnx");
  PollTwice();
  const std::string text = metrics_.Text();
  EXPECT_THAT(text,
              HasSubstr(R"(octet_variant_ready{model="net",version="1",precision="fp32"} 1)"));
  EXPECT_THAT(text,
              Not(HasSubstr(R"(octet_variant_ready{model="net",version="1",precision="bf16"})")));
}

TEST_F(KeptVersionTest, APrecisionThatNeverAnsweredAndHasGoneIsNeitherReadyNorNot) {
  folder_.Write("net/1/bf16.onnx", kGarbage);
  Open();
  const std::string row = R"(octet_variant_ready{model="net",version="1",precision="bf16"})";
  EXPECT_THAT(metrics_.Text(), HasSubstr(Format("{} 0\n", row)));
  folder_.Remove("net/1/bf16.onnx");
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  PollTwice();
  EXPECT_TRUE(repository_->Find("net", "").ok());
  EXPECT_THAT(metrics_.Text(), Not(HasSubstr(row))) << "an alert would never end";
}

}  // namespace kept_version_test
}  // namespace octet
