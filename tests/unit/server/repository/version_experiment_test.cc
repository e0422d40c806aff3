#include "server/repository/version_experiment.h"

#include <gtest/gtest.h>

#include "engine/tensor/format.h"
#include "server/repository/model_repository.h"
#include "tests/support/model_folder.h"

namespace octet {
namespace version_experiment_test {

class VersionExperimentTest : public ::testing::Test {
 protected:
  VersionExperimentTest() {
    folder_.Write("net/3/fp32.onnx", ScalingModel(3));
    folder_.Write("net/4/fp32.onnx", ScalingModel(4));
    folder_.Write("net/4/bf16.onnx", ScalingModel(4));
    Configure("{3: 80, 4: 20}");
    ServerConfig config;
    config.repository.path = folder_.path();
    repository_ = *ModelRepository::Open(config, 1, metrics_);
  }
  void Configure(std::string_view versions) {
    folder_.Write("net/model.yaml", Format("routing: {{versions: {}}}", versions));
    if (repository_ != nullptr) Load();
  }
  void Load() { ASSERT_TRUE(repository_->Load("net").ok()); }
  /// A request that names no version, and is answered by the one that is drawn.
  void Ask(RouteFacts facts, double seconds = 0.001) {
    const auto version = *repository_->FindShare("net", facts);
    version->Find(Precision::kFp32)->metrics->request_duration.Observe(seconds);
  }
  void Ask(int count, double draw, double seconds) {
    for (int i = 0; i < count; ++i) Ask({.draw = draw}, seconds + (i % 2 == 0 ? 1e-4 : -1e-4));
  }
  VersionExperimentFacts Read() {
    const auto all = repository_->VersionExperiments("net");
    EXPECT_EQ(all.size(), 1U);
    return all.empty() ? VersionExperimentFacts() : all[0];
  }

  ModelFolder folder_;
  MetricsRegistry metrics_{{}};
  std::unique_ptr<ModelRepository> repository_;
};

TEST_F(VersionExperimentTest, TellsHowTheVersionsDiffer) {
  Ask(400, 0.1, 0.004);
  Ask(100, 0.9, 0.003);
  Ask({.sticky_key = "somebody"}, 0.004);
  const VersionExperimentFacts facts = Read();
  EXPECT_EQ(facts.model, "net");
  EXPECT_EQ(facts.baseline, 3);
  ASSERT_EQ(facts.arms.size(), 2U);
  EXPECT_EQ(facts.arms[0].number, 3);
  EXPECT_EQ(facts.arms[1].weight, 20);
  EXPECT_EQ(facts.arms[0].drawn, 400U);
  EXPECT_EQ(facts.arms[1].drawn, 100U);
  EXPECT_EQ(facts.arms[0].sticky + facts.arms[1].sticky, 1U);
  EXPECT_EQ(facts.arms[0].seconds.count + facts.arms[1].seconds.count, 501U);
  EXPECT_FALSE(facts.arms[0].seconds_over_baseline);
  ASSERT_TRUE(facts.arms[1].seconds_over_baseline);
  EXPECT_NEAR(facts.arms[1].seconds_over_baseline->value, -0.001, 5e-5);
  ASSERT_TRUE(facts.sample_ratio);
  EXPECT_EQ(facts.sample_ratio->p_value, 1);
  EXPECT_FALSE(facts.sample_ratio->alarm);
}

TEST_F(VersionExperimentTest, DrawsThatDoNotFitTheWeightsAreAnAlarm) {
  Ask(500, 0.1, 0.004);
  ASSERT_TRUE(Read().sample_ratio);
  EXPECT_TRUE(Read().sample_ratio->alarm) << "nobody got 4";
}

TEST_F(VersionExperimentTest, WhatTheWeightsDoNotDecideIsNoDraw) {
  Ask({.precision = "bf16", .draw = 0.1});  // 3 has none
  (void)repository_->FindShare("net", {.draw = 0.1, .is_drawn = false});
  Ask({.precision = "fp32", .draw = 0.1});
  EXPECT_EQ(Read().arms[0].drawn, 1U);
  EXPECT_EQ(Read().arms[1].drawn, 0U);
}

TEST_F(VersionExperimentTest, BeginsAnewWithOtherWeightsOrModelsOnly) {
  Ask(10, 0.1, 0.004);
  Load();
  EXPECT_EQ(Read().arms[0].drawn, 10U);
  Configure("{3: 70, 4: 20}");
  EXPECT_EQ(Read().arms[0].drawn, 0U);
  EXPECT_EQ(Read().arms[0].seconds.count, 0U);
  Ask(10, 0.1, 0.004);
  folder_.Write("net/4/fp32.onnx", ScalingModel(5));
  Load();
  EXPECT_EQ(Read().arms[0].drawn, 0U) << "4 is another one";
  EXPECT_EQ(Read().arms[0].seconds.count, 0U) << "3 is not, but they are compared since then";
  folder_.Write("net/model.yaml", "versions: {all: true}");
  Load();
  EXPECT_TRUE(repository_->VersionExperiments("").empty());
}

}  // namespace version_experiment_test
}  // namespace octet
