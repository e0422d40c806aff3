#include "server/repository/experiment.h"

#include <gtest/gtest.h>

#include "engine/tensor/format.h"
#include "server/repository/model_repository.h"
#include "server/routing/guard.h"
#include "tests/support/model_folder.h"

namespace octet {
namespace experiment_test {

class ExperimentTest : public ::testing::Test {
 protected:
  ExperimentTest() {
    folder_.Write("net/1/fp32.onnx", ScalingModel(2));
    folder_.Write("net/1/bf16.onnx", ScalingModel(3));
    Configure("{fp32: 90, bf16: 10}");
    ServerConfig config;
    config.repository.path = folder_.path();
    repository_ = *ModelRepository::Open(config, 1, metrics_);
  }
  void Configure(std::string_view split) {
    folder_.Write("net/model.yaml",
                  Format("routing: {{split: {}, shadow: {{precision: bf16, percent: 50}}, "
                         "guard: {{bf16: {{error_percent: 50}}}}}}",
                         split));
    if (repository_ == nullptr) return;
    ASSERT_TRUE(repository_->Load("net").ok());
  }
  VariantMetrics& Of(Precision precision) {
    return *(*repository_->Find("net", ""))->Find(precision)->metrics;
  }
  void Answer(Precision precision, int count, double seconds,
              RouteReason reason = RouteReason::kSplit) {
    for (int i = 0; i < count; ++i) {
      Of(precision).routed.Add(static_cast<size_t>(reason));
      Of(precision).request_duration.Observe(seconds + (i % 2 == 0 ? 1e-4 : -1e-4));
    }
  }
  ExperimentFacts Read() {
    const auto version = *repository_->Find("net", "");
    return version->experiment->Read(*version);
  }
  static const ExperimentArm& Arm(const ExperimentFacts& facts, Precision precision) {
    return *std::ranges::find(facts.arms, precision, &ExperimentArm::precision);
  }

  ModelFolder folder_;
  MetricsRegistry metrics_{{}};
  std::unique_ptr<ModelRepository> repository_;
};

TEST_F(ExperimentTest, TellsHowThePrecisionsDiffer) {
  Answer(Precision::kFp32, 900, 0.004);
  Answer(Precision::kBf16, 90, 0.003);
  Answer(Precision::kBf16, 10, 0.003, RouteReason::kExplicit);
  Of(Precision::kBf16).requests.Add(static_cast<size_t>(absl::StatusCode::kInternal));
  const ExperimentFacts facts = Read();
  EXPECT_EQ(facts.baseline, Precision::kFp32);
  const ExperimentArm& bf16 = Arm(facts, Precision::kBf16);
  EXPECT_EQ(bf16.drawn, 90U);
  EXPECT_EQ(bf16.asked, 10U);
  EXPECT_EQ(bf16.errors, 1U);
  EXPECT_EQ(bf16.weight, 10);
  EXPECT_EQ(bf16.share, 0.1);
  EXPECT_EQ(Arm(facts, Precision::kFp32).share, 0.9);
  EXPECT_NEAR(bf16.seconds.mean(), 0.003, 1e-9);
  ASSERT_TRUE(bf16.seconds_over_baseline);
  EXPECT_NEAR(bf16.seconds_over_baseline->value, -0.001, 1e-9);
  EXPECT_NEAR(bf16.seconds_over_baseline->high, -0.001 + 1.96e-4 * std::sqrt(1.0 / 900 + 1.0 / 100),
              1e-6);
  EXPECT_FALSE(Arm(facts, Precision::kFp32).seconds_over_baseline);
  EXPECT_TRUE(bf16.guard);
  ASSERT_TRUE(facts.sample_ratio);
  EXPECT_FALSE(facts.sample_ratio->alarm);
}

TEST_F(ExperimentTest, WhatWasRefusedIsNoRequestButIsCounted) {
  const auto refuse = [this](Refusal reason) {
    Of(Precision::kBf16).refused.Add(static_cast<size_t>(reason));
  };
  refuse(Refusal::kExpired);  // before it began
  Configure("{fp32: 1, bf16: 1}");
  Answer(Precision::kBf16, 1, 0.003);
  for (int i = 0; i < 9; ++i) refuse(Refusal::kQueueFull);
  refuse(Refusal::kTarget);
  const ExperimentFacts facts = Read();
  const ExperimentArm& bf16 = Arm(facts, Precision::kBf16);
  EXPECT_EQ(bf16.seconds.count, 1U);
  EXPECT_EQ(bf16.errors, 0U);
  EXPECT_EQ(bf16.refused, (std::array<uint64_t, 4>{9, 0, 0, 1}));
}

TEST_F(ExperimentTest, APrecisionThatIsNotReadySaysWhy) {
  folder_.Write("net/1/int8.onnx", "no model");
  ASSERT_TRUE(repository_->Load("net").ok()) << "the others answer";
  const ExperimentFacts facts = Read();
  EXPECT_FALSE(Arm(facts, Precision::kInt8).ready);
  EXPECT_EQ(Arm(facts, Precision::kInt8).share, 0);
  EXPECT_NE(Arm(facts, Precision::kInt8).reason, "");
  EXPECT_EQ(Arm(facts, Precision::kFp32).reason, "");
}

TEST_F(ExperimentTest, APipelinesRequestsAreOneRow) {
  folder_.Write("pipe/model.yaml", "pipeline: {steps: {a: {model: net}}, outputs: {y: a.y}}");
  ASSERT_TRUE(repository_->Load("pipe").ok());
  const auto version = *repository_->Find("pipe", "");
  const auto metrics = metrics_.ForVariant({"pipe", "1", "pipeline"});
  metrics->request_duration.Observe(0.004);
  metrics->refused.Add(static_cast<size_t>(Refusal::kQueueFull));
  const ExperimentFacts facts = version->experiment->Read(*version);
  EXPECT_TRUE(facts.arms.empty());
  ASSERT_TRUE(facts.pipeline);
  EXPECT_EQ(facts.pipeline->seconds.count, 1U);
  EXPECT_EQ(facts.pipeline->refused[0], 1U);
  EXPECT_EQ(facts.pipeline->share, 1);
}

TEST_F(ExperimentTest, BeginsAnewWithAnotherSplitOrModelOnly) {
  Answer(Precision::kFp32, 100, 0.004);
  folder_.Write("net/1/int8.onnx", "no model");
  ASSERT_TRUE(repository_->Load("net").ok());
  EXPECT_EQ(Arm(Read(), Precision::kFp32).drawn, 0U) << "a third precision, though a broken one";
  Answer(Precision::kFp32, 100, 0.004);
  Configure("{fp32: 90, bf16: 10}");
  EXPECT_EQ(Arm(Read(), Precision::kFp32).drawn, 100U) << "the same split";
  Configure("{fp32: 80, bf16: 20}");
  EXPECT_EQ(Arm(Read(), Precision::kFp32).drawn, 0U);
  EXPECT_EQ(Arm(Read(), Precision::kFp32).seconds.count, 0U);
  Answer(Precision::kFp32, 100, 0.004);
  folder_.Write("net/1/bf16.onnx", ScalingModel(5));
  ASSERT_TRUE(repository_->Load("net").ok());
  EXPECT_EQ(Arm(Read(), Precision::kFp32).drawn, 0U);
}

TEST_F(ExperimentTest, SharesThatAGuardMovedAreNoMismatch) {
  Answer(Precision::kFp32, 1000, 0.004);
  ASSERT_TRUE(Read().sample_ratio);
  EXPECT_TRUE(Read().sample_ratio->alarm) << "nobody got bf16";
  Of(Precision::kBf16).guard_actions.Add(static_cast<size_t>(GuardAction::kAlert));
  ASSERT_TRUE(Read().sample_ratio) << "an alert moves nothing";
  EXPECT_TRUE(Read().sample_ratio->alarm);
  Of(Precision::kBf16).guard_actions.Add(static_cast<size_t>(GuardAction::kFallBack));
  EXPECT_FALSE(Read().sample_ratio);
}

TEST_F(ExperimentTest, ReadsWhatShadowCopiesShowedSinceItBegan) {
  const auto pair = (*repository_->Find("net", ""))->shadow->pairs.at(Precision::kFp32);
  pair->class_rows.Add(5);
  Configure("{fp32: 1, bf16: 1}");
  pair->class_rows.Add(100);
  pair->top1_agreed.Add(99);
  pair->sqnr.Observe(30);
  pair->sqnr.Observe(40);
  const ExperimentFacts facts = Read();
  ASSERT_EQ(facts.pairs.size(), 1U);
  EXPECT_EQ(facts.pairs[0].precision, Precision::kBf16);
  EXPECT_EQ(facts.pairs[0].against, Precision::kFp32);
  EXPECT_EQ(facts.pairs[0].class_rows, 100U);
  EXPECT_EQ(facts.pairs[0].top1_agreed, 99U);
  EXPECT_DOUBLE_EQ(facts.pairs[0].mean_sqnr_db, 35);
}

}  // namespace experiment_test
}  // namespace octet
