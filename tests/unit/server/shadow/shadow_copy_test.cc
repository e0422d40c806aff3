#include "server/shadow/shadow_copy.h"

#include <limits>
#include <thread>

#include <gtest/gtest.h>

#include "engine/tensor/bytes_elements.h"
#include "engine/tensor/status.h"
#include "server/repository/version_builder.h"
#include "server/routing/shadow.h"
#include "server/scheduling/batch_runner.h"
#include "tests/support/fake_clock.h"
#include "tests/support/graph_builder.h"
#include "tests/support/rpc_test.h"

namespace octet {
namespace shadow_copy_test {

ModelConfig::Routing Copying(double percent = 100, int max_queue_requests = 64) {
  ModelConfig::Routing routing;
  routing.shadow = {.precision = Precision::kInt8,
                    .against = Precision::kFp32,
                    .percent = percent,
                    .max_queue_requests = max_queue_requests};
  return routing;
}

uint64_t Dropped(const ShadowMetrics& metrics, ShadowDrop reason) {
  return metrics.dropped.value(static_cast<size_t>(reason));
}

/// Copies to "net" as int8, y = 3 x, of answers y = 2 x; the test is the worker.
class ShadowCopyTest : public ::testing::Test {
 protected:
  ShadowCopyTest() { Serve(Copying()); }

  void Serve(const ModelConfig::Routing& routing) {
    version_ = repository_.Make("net", 1, {{Precision::kFp32, fp32_}, {Precision::kInt8, int8_}},
                                {}, routing);
  }
  ShadowMetrics& metrics() { return *version_->shadow->pairs.at(Precision::kFp32); }

  /// An answered request of one row. `kept` is let go when its copy is.
  void Submit(std::vector<float> x, std::vector<float> y, std::shared_ptr<const void> kept = {}) {
    struct Wire {
      std::vector<float> x;
      std::vector<float> y;
      std::shared_ptr<const void> kept;
    };
    const auto wire = std::make_shared<Wire>(std::move(x), std::move(y), std::move(kept));
    AnsweredRequest answered;
    answered.precision = Precision::kFp32;
    answered.inputs = {{wire->x.data(), {DType::kF32, {1, 4}}}};
    answered.outputs.resize(1);
    answered.outputs[0] = AnsweredOutput{
        .spec = {DType::kF32, {1, std::ssize(wire->y)}}, .data = wire->y.data(), .bytes = 16};
    answered.kept = {wire};
    SubmitShadow(version_->shadow, std::move(answered), dispatcher_);
  }
  void SubmitUsual(std::shared_ptr<const void> kept = {}) {
    Submit({1, 2, 3, 4}, {2, 4, 6, 8}, std::move(kept));
  }
  void Work() {
    BatchRunner runner(clock_);
    while (std::optional<Batch> batch = dispatcher_.TryTake()) runner.Run(*std::move(batch));
  }

  FakeClock clock_;
  std::shared_ptr<FakeModel> fp32_ = std::make_shared<FakeModel>(Shape{kUnknownDim, 4}, 2.0F);
  std::shared_ptr<FakeModel> int8_ = std::make_shared<FakeModel>(Shape{kUnknownDim, 4}, 3.0F);
  MetricsRegistry registry_{BuildInfo{}};
  FakeRepository repository_{registry_};
  Dispatcher dispatcher_{clock_};
  std::shared_ptr<ModelVersion> version_;
};

TEST_F(ShadowCopyTest, IsComparedWithTheAnswer) {
  SubmitUsual();
  EXPECT_EQ(metrics().compared.value(), 0U);
  Work();
  EXPECT_EQ(metrics().compared.value(), 1U);
  EXPECT_EQ(metrics().class_rows.value(), 1U);
  EXPECT_EQ(metrics().top1_agreed.value(), 1U);
  EXPECT_EQ(metrics().top5_agreed.value(), 1U);
  EXPECT_EQ(metrics().max_abs.Read().sum, 4);
  EXPECT_EQ(metrics().relative_l2.Read().sum, 0.5);
  EXPECT_NEAR(metrics().sqnr.Read().sum, 6.0206, 1e-4);
  EXPECT_EQ(metrics().failed.value(), 0U);
}

TEST_F(ShadowCopyTest, CopiesRunTogetherAndEachIsComparedWithItsOwn) {
  for (int i = 0; i < 5; ++i) {
    const auto x = static_cast<float>(i);
    Submit({x, 1, 0, 0}, {3 * x, 3, 0, 0});
  }
  Work();
  EXPECT_LT(int8_->runs().size(), 5U);
  EXPECT_EQ(metrics().compared.value(), 5U);
  EXPECT_EQ(metrics().max_abs.Read().sum, 0);
  EXPECT_EQ(metrics().sqnr.Read().sum, 5 * 150) << "equal outputs";
  EXPECT_EQ(metrics().top1_agreed.value(), 5U);
}

TEST_F(ShadowCopyTest, DisagreementAndNansAreCounted) {
  Submit({1, 2, 3, 4}, {8, 6, 4, 2});
  Work();
  EXPECT_EQ(metrics().class_rows.value(), 1U);
  EXPECT_EQ(metrics().top1_agreed.value(), 0U);
  EXPECT_EQ(metrics().top5_agreed.value(), 1U);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Submit({nan, nan, nan, nan}, {1, 1, 1, 1});
  Work();
  EXPECT_EQ(metrics().non_finite.value(), 4U);
  EXPECT_EQ(metrics().compared.value(), 2U);
  EXPECT_EQ(metrics().top1_agreed.value(), 0U);
  EXPECT_EQ(metrics().sqnr.Read().total(), 2U);
  EXPECT_EQ(metrics().lost_outputs.value(), 1U) << "without bound, however the others are";
  Submit({nan, 1, 1, 1}, {1, 3, 3, 3});
  Work();
  EXPECT_EQ(metrics().lost_outputs.value(), 2U);
  EXPECT_EQ(metrics().relative_l2.Read().counts.at(metric_bounds::kDifference.size() - 1), 2U);
  Submit({nan, 1, 1, 1}, {nan, 3, 3, 3});
  Submit({nan, nan, nan, nan}, {nan, nan, nan, nan});
  Work();
  EXPECT_EQ(metrics().non_finite.value(), 10U);
  EXPECT_EQ(metrics().lost_outputs.value(), 2U) << "the answer has none there either";
  EXPECT_EQ(metrics().sqnr.Read().total(), 4U) << "where no difference is known there is no ratio";
}

TEST_F(ShadowCopyTest, AGuardsSqnrIsBrokenByOneOutputWithoutNumbersOrOfAnotherShape) {
  ModelConfig::Routing routing = Copying();
  routing.guard[Precision::kInt8] = {.sqnr_db = 20, .window_seconds = 10, .min_samples = 5};
  Serve(routing);
  VariantGuard& guard = *version_->Find(Precision::kInt8)->guard;
  guard.Look(clock_.Now());
  const auto window = [&](const std::vector<float>& x, const std::vector<float>& y) {
    for (int i = 0; i < 99; ++i) {
      Submit({1, 2, 3, 4}, {3, 6, 9, 12});
      Work();
    }
    Submit(x, y);
    Work();
    clock_.Advance(std::chrono::seconds(10));
    guard.Look(clock_.Now());
    return guard.report();
  };
  EXPECT_EQ(window({1, 2, 3, 4}, {3, 6, 9, 12}).kept_windows, 1U);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(window({nan, 2, 3, 4}, {3, 6, 9, 12}).broken_windows, 1U);
  EXPECT_EQ(guard.report().last_broken, "sqnr -inf dB < 20 dB");
  EXPECT_EQ(window({1, 2, 3, 4}, {3, 6, 9}).broken_windows, 2U);
  EXPECT_EQ(window({1, 2, 3, 4}, {3, 6, 9, 12}).kept_windows, 2U);
  EXPECT_EQ(metrics().lost_outputs.value(), 2U);
  EXPECT_EQ(window({0.001, 0, 0, 0}, {0, 0, 0, 0}).kept_windows, 3U)
      << "an answer without a signal has a ratio, and one of a hundred is not the mean";
  EXPECT_EQ(metrics().lost_outputs.value(), 2U);
}

TEST_F(ShadowCopyTest, AnotherShapeIsAMismatch) {
  Submit({1, 2, 3, 4}, {1, 2, 3});
  Work();
  EXPECT_EQ(metrics().shape_mismatches.value(), 1U);
  EXPECT_EQ(metrics().lost_outputs.value(), 1U);
  EXPECT_EQ(metrics().sqnr.Read().sum, -150);
  EXPECT_EQ(metrics().compared.value(), 1U);
  EXPECT_EQ(metrics().class_rows.value(), 0U);
}

TEST_F(ShadowCopyTest, AFullQueueDropsTheNewest) {
  Serve(Copying(100, 2));
  for (int i = 0; i < 3; ++i) SubmitUsual();
  EXPECT_EQ(Dropped(metrics(), ShadowDrop::kQueueFull), 1U);
  Work();
  EXPECT_EQ(metrics().compared.value(), 2U);
}

TEST_F(ShadowCopyTest, AVariantThatIsNotReadyDropsThem) {
  version_->shadow->queue = nullptr;
  SubmitUsual();
  EXPECT_EQ(Dropped(metrics(), ShadowDrop::kNotReady), 1U);
}

TEST_F(ShadowCopyTest, AVersionThatWasTakenOutDropsThem) {
  const auto kept = std::make_shared<int>(1);
  SubmitUsual(kept);
  version_->shadow->retired = true;
  Work();
  EXPECT_EQ(Dropped(metrics(), ShadowDrop::kUnloaded), 1U);
  EXPECT_EQ(int8_->runs().size(), 0U);
  EXPECT_EQ(kept.use_count(), 1);
}

TEST_F(ShadowCopyTest, AServerThatDrainsDropsThem) {
  SubmitUsual();
  dispatcher_.Close();
  SubmitUsual();
  EXPECT_EQ(Dropped(metrics(), ShadowDrop::kDraining), 2U);
  EXPECT_EQ(metrics().compared.value(), 0U);
}

TEST_F(ShadowCopyTest, AFailedRunIsNoDrop) {
  int8_->before_run = [] { return MakeError(absl::StatusCode::kResourceExhausted, "no room"); };
  SubmitUsual();
  Work();
  EXPECT_EQ(metrics().failed.value(), 1U);
  EXPECT_EQ(Dropped(metrics(), ShadowDrop::kQueueFull), 0U);
  EXPECT_EQ(metrics().compared.value(), 0U);
  EXPECT_TRUE(version_->shadow->failure_logged);
}

TEST_F(ShadowCopyTest, HoldsTheMessagesAndCountsTheirBytes) {
  const auto kept = std::make_shared<int>(1);
  SubmitUsual(kept);
  EXPECT_EQ(kept.use_count(), 2);
  const VariantMetrics& variant = *version_->Find(Precision::kInt8)->metrics;
  EXPECT_EQ(variant.shadow_queue_depth.value(), 1);
  EXPECT_EQ(variant.shadow_queue_bytes.value(), 32) << "16 of input, 16 of output";
  Work();
  EXPECT_EQ(kept.use_count(), 1);
  EXPECT_EQ(variant.shadow_queue_bytes.value(), 0);
  EXPECT_EQ(repository_.observer()->finished, 0) << "no client's request";
}

TEST_F(ShadowCopyTest, StringsAreEqualOrNot) {
  GraphBuilder b(20);
  const ValueId x = b.Input("x", {kUnknownDim}, DType::kString);
  b.Output(b.Op("Identity", {x}), "same");
  const auto model = Model::FromGraph(b.Build(), {});
  ASSERT_TRUE(model.ok()) << model.status();
  version_ = repository_.Make("words", 1, {{Precision::kFp32, *model}, {Precision::kInt8, *model}},
                              {}, Copying());
  const std::vector<std::string_view> words = {"a", "b", "c"};
  std::string wire;
  for (const std::string_view word : {"a", "b", "d"}) AppendBytesElement(word, wire);
  AnsweredRequest answered;
  answered.inputs = {{words.data(), {DType::kString, {3}}}};
  answered.outputs.resize(1);
  answered.outputs[0] =
      AnsweredOutput{.spec = {DType::kString, {3}}, .data = wire.data(), .bytes = wire.size()};
  SubmitShadow(version_->shadow, std::move(answered), dispatcher_);
  Work();
  EXPECT_EQ(metrics().exact_elements.value(), 3U);
  EXPECT_EQ(metrics().exact_equal.value(), 2U);

  AnsweredRequest of_step;
  of_step.inputs = {{words.data(), {DType::kString, {3}}}};
  const Tensor tensor = Tensor::Strings({3}, words);
  of_step.outputs = {
      AnsweredOutput{.spec = tensor.spec(), .data = tensor.data(), .tensor = tensor}};
  SubmitShadow(version_->shadow, std::move(of_step), dispatcher_);
  Work();
  EXPECT_EQ(metrics().exact_equal.value(), 5U);
  EXPECT_EQ(metrics().failed.value(), 0U);
}

/// Through a server: model "net" with a shadow of its answers in fp32.
class ShadowRpcTest : public RpcTest {
 protected:
  void SetUp() override {
    RpcTest::SetUp();
    Serve(Copying());
  }
  void Serve(const ModelConfig::Routing& routing) {
    version_ = repository_.Make("net", 1, {{Precision::kFp32, fp32_}, {Precision::kInt8, int8_}},
                                {}, routing);
    repository_.Put(version_);
  }
  ShadowMetrics& metrics() { return *version_->shadow->pairs.at(Precision::kFp32); }
  void AwaitCompared(uint64_t count) {
    while (metrics().compared.value() < count) std::this_thread::yield();
  }
  /// Lets runs of int8 wait until Release.
  void BlockCopies() {
    int8_->before_run = [this] {
      if (!entered_.HasBeenNotified()) entered_.Notify();
      released_.WaitForNotification();
      return absl::OkStatus();
    };
  }

  std::shared_ptr<ModelVersion> version_;
};

TEST_F(ShadowRpcTest, TheOriginalAnswersAndTheCopyIsCompared) {
  Response response;
  ASSERT_TRUE(Infer(Row(), &response).ok());
  EXPECT_EQ(Floats(response.raw_output_contents(0)), (std::vector<float>{2, 4, 6, 8}));
  EXPECT_EQ(response.parameters().at("precision").string_param(), "fp32");
  AwaitCompared(1);
  EXPECT_EQ(metrics().max_abs.Read().sum, 4);
  EXPECT_EQ(metrics().top1_agreed.value(), 1U);
  EXPECT_EQ(repository_.observer()->finished, 1) << "clients' figures stay clients' figures";
  EXPECT_EQ(repository_.observer()->batches, 1);
}

TEST_F(ShadowRpcTest, TheAnswerComesWhileItsCopyRunsAndItsTensorsOutliveTheCall) {
  BlockCopies();
  Request typed = Row();
  typed.clear_raw_input_contents();
  for (const float x : {4, 3, 2, 1}) {
    typed.mutable_inputs(0)->mutable_contents()->add_fp32_contents(x);
  }
  ASSERT_TRUE(Infer(typed).ok());
  entered_.WaitForNotification();  // the only worker is in the copy
  server_->Shutdown(Clock::Real().Now() + std::chrono::seconds(30));
  Release();
  AwaitCompared(1);
  EXPECT_EQ(int8_->last_input(), (std::vector<float>{4, 3, 2, 1}));
  EXPECT_EQ(metrics().max_abs.Read().sum, 4);
}

TEST_F(ShadowRpcTest, WhateverAnswersButItselfIsCopied) {
  ModelConfig::Routing routing = Copying();
  routing.shadow->against.reset();
  Serve(routing);
  Request request = Row();
  (*request.mutable_parameters())["precision"].set_string_param("int8");
  ASSERT_TRUE(Infer(request).ok());
  ASSERT_TRUE(Infer(Row()).ok());
  AwaitCompared(1);
  EXPECT_EQ(int8_->runs().size(), 2U) << "one of a client, one copy";
  EXPECT_EQ(version_->shadow->pairs.size(), 1U);
}

TEST_F(ShadowRpcTest, NothingIsCopiedOfNothing) {
  Serve(Copying(0));
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(Infer(Row()).ok());
  server_.reset();
  EXPECT_TRUE(int8_->runs().empty());
}

TEST_F(ShadowRpcTest, AShareIsCopied) {
  Serve(Copying(50));
  constexpr int kCount = 200;
  for (int i = 0; i < kCount; ++i) ASSERT_TRUE(Infer(Row()).ok());
  AwaitCompared(kCount / 4);  // by chance once in 10^12 runs
  EXPECT_LT(metrics().compared.value(), kCount * 3 / 4);
}

TEST_F(ShadowRpcTest, ACopyThatFailsIsNobodysError) {
  int8_->before_run = [] { return absl::InternalError("kernel said no"); };
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(Infer(Row()).ok());
  while (metrics().failed.value() < 5) std::this_thread::yield();
  EXPECT_EQ(metrics().compared.value(), 0U);
}

TEST_F(ShadowRpcTest, ARequestThatFailsIsNotCopied) {
  fp32_->before_run = [] { return absl::InternalError("kernel said no"); };
  EXPECT_FALSE(Infer(Row()).ok());
  fp32_->before_run = nullptr;
  ASSERT_TRUE(Infer(Row()).ok());
  AwaitCompared(1);
  EXPECT_EQ(int8_->runs().size(), 1U);
}

TEST_F(ShadowRpcTest, ClassesAreComparedByTheirScores) {
  Request request = Row({1, 4, 2, 3});
  auto& output = *request.add_outputs();
  output.set_name("y");
  (*output.mutable_parameters())["classification"].set_int64_param(2);
  ASSERT_TRUE(Infer(request).ok());
  AwaitCompared(1);
  EXPECT_EQ(metrics().class_rows.value(), 1U);
  EXPECT_EQ(metrics().max_abs.Read().sum, 4);
}

TEST_F(ShadowRpcTest, RequestsOfAStreamAreCopied) {
  constexpr int kCount = 40;
  const auto context = Context();
  const auto stream = stub_->ModelStreamInfer(context.get());
  inference::ModelStreamInferResponse response;
  for (int i = 0; i < kCount; ++i) {
    ASSERT_TRUE(stream->Write(Row({1, 2, 3, 4})));
    ASSERT_TRUE(stream->Read(&response));
    EXPECT_EQ(response.error_message(), "");
  }
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
  AwaitCompared(kCount);
  EXPECT_EQ(metrics().max_abs.Read().sum, 4 * kCount);
}

}  // namespace shadow_copy_test
}  // namespace octet
