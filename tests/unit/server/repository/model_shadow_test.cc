// What a repository makes of routing.shadow.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/repository/model_repository.h"
#include "server/scheduling/dispatcher.h"
#include "tests/support/model_folder.h"
#include "tests/support/test_request.h"

namespace octet {
namespace model_shadow_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;

constexpr std::string_view kShadow =
    "routing: {shadow: {precision: bf16, percent: 100, max_queue_requests: 3}}\n";

class ModelShadowTest : public ::testing::Test {
 protected:
  void Open() {
    ServerConfig config;
    config.repository.path = folder_.path();
    auto opened = ModelRepository::Open(config, 1, metrics_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    repository_ = *std::move(opened);
  }
  std::shared_ptr<const ModelVersion> Find() { return *repository_->Find("net", ""); }
  /// A copy that waits, as far as a queue knows one.
  void Submit(const ServedShadow& shadow, TestCall& call) {
    auto request = call.Request(Clock::Real().Now());
    request->cancelled = &shadow.retired;
    dispatcher_.Submit(shadow.queue, std::move(request));
  }

  ModelFolder folder_;
  Dispatcher dispatcher_{Clock::Real()};
  MetricsRegistry metrics_{{}};
  std::unique_ptr<ModelRepository> repository_;
};

TEST_F(ModelShadowTest, CopiesHaveAQueueOfTheirOwnAndPairsTheirMetrics) {
  folder_.Write("net/model.yaml", kShadow);
  for (const std::string_view file : {"net/1/fp32.onnx", "net/1/fp16.onnx", "net/1/bf16.onnx"}) {
    folder_.Write(file, ScalingModel(2));
  }
  Open();
  const auto version = Find();
  ASSERT_NE(version->shadow, nullptr);
  EXPECT_EQ(version->shadow->name, "net/1/bf16");
  EXPECT_THAT(version->shadow->pairs, ElementsAre(Key(Precision::kFp32), Key(Precision::kFp16)));
  ASSERT_NE(version->shadow->queue, nullptr);
  const ExecutionTarget& target = version->shadow->queue->target();
  EXPECT_NE(version->shadow->queue, version->Find(Precision::kBf16)->queue);
  EXPECT_EQ(target.model, version->Find(Precision::kBf16)->queue->target().model);
  EXPECT_TRUE(target.background);
  EXPECT_FALSE(version->Find(Precision::kBf16)->queue->target().background);
  EXPECT_EQ(target.max_queue_requests, 3U);
  EXPECT_THAT(metrics_.Text(), HasSubstr(R"(precision="bf16",against="fp16"} 0)"));
}

TEST_F(ModelShadowTest, WithoutTheKeyThereIsNone) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  EXPECT_EQ(Find()->shadow, nullptr);
}

TEST_F(ModelShadowTest, AFileThatIsMissingIsNamedAndTheRestAnswers) {
  folder_.Write("net/model.yaml", kShadow);
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  const auto version = Find();
  EXPECT_TRUE(version->Find(Precision::kFp32)->ready());
  ASSERT_NE(version->shadow, nullptr);
  EXPECT_EQ(version->shadow->queue, nullptr);
  EXPECT_THAT(repository_->Index(false)[0].reason, HasSubstr("net/1/bf16.onnx"));
}

TEST_F(ModelShadowTest, AnotherFileOrConfigurationRetiresTheOneBefore) {
  folder_.Write("net/model.yaml", kShadow);
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", ScalingModel(2));
  Open();
  const auto first = Find()->shadow;
  folder_.Write("net/1/bf16.onnx", ScalingModel(3));
  ASSERT_TRUE(repository_->Load("net").ok());
  const auto second = Find()->shadow;
  EXPECT_TRUE(first->retired);
  EXPECT_FALSE(second->retired);
  EXPECT_EQ(second->pairs, first->pairs) << "the counts go on";
  folder_.Write("net/model.yaml", "");
  ASSERT_TRUE(repository_->Load("net").ok());
  EXPECT_TRUE(second->retired);
  EXPECT_EQ(Find()->shadow, nullptr);
}

TEST_F(ModelShadowTest, UnloadingDropsWhatWaits) {
  folder_.Write("net/model.yaml", kShadow);
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", ScalingModel(2));
  Open();
  TestCall call({1, 1, 1, 1}, {4});
  Submit(*Find()->shadow, call);
  const auto state = [&] { return repository_->Index(false)[0].state; };
  // The test's request does not hold the shadow itself as a real copy does: keep what it points at.
  const auto shadow = Find()->shadow;
  const std::weak_ptr<VariantQueue> queue = shadow->queue;
  ASSERT_TRUE(repository_->Unload("net").ok());
  EXPECT_EQ(state(), VersionState::kUnloading);
  EXPECT_FALSE(dispatcher_.TryTake().has_value());
  ASSERT_EQ(call.calls, 1);
  EXPECT_EQ(call.status->code(), absl::StatusCode::kCancelled);
  shadow->queue.reset();
  EXPECT_TRUE(queue.expired());
  EXPECT_EQ(state(), VersionState::kUnavailable);
}

TEST_F(ModelShadowTest, AGuardIsOfTheVariantThatAnswersAndBeginsAnewWithEachLoad) {
  folder_.Write("net/model.yaml",
                "routing:\n"
                "  split: {fp32: 1, bf16: 1}\n"
                "  shadow: {precision: bf16, percent: 100}\n"
                "  guard: {bf16: {agreement_percent: 95, min_samples: 1, action: fall_back}}\n");
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", ScalingModel(2));
  Open();
  const auto first = Find();
  EXPECT_EQ(first->Find(Precision::kFp32)->guard, nullptr);
  VariantGuard& guard = *first->Find(Precision::kBf16)->guard;
  const TimePoint now;
  guard.Look(now);
  first->shadow->pairs.at(Precision::kFp32)->class_rows.Add();
  EXPECT_EQ(ChoosePrecision(first->routes, {.draw = 0.9})->precision, Precision::kBf16);
  guard.Look(now + std::chrono::minutes(1));
  EXPECT_EQ(ChoosePrecision(first->routes, {.draw = 0.9})->precision, Precision::kFp32);
  ASSERT_TRUE(repository_->Load("net").ok());
  const auto second = Find();
  EXPECT_EQ(ChoosePrecision(second->routes, {.draw = 0.9})->precision, Precision::kBf16);
  EXPECT_EQ(second->Find(Precision::kBf16)->metrics->guard_tripped.value(), 0);
}

}  // namespace model_shadow_test
}  // namespace octet
