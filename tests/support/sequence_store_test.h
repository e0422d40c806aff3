// Sequences of a small model in a store, whose requests a test computes itself.
#pragma once

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/repository/model_version.h"
#include "server/sequence/sequence_store.h"
#include "tests/support/fake_clock.h"

namespace octet {

/// Sequences of a model x, before -> y, total of one FP32 each, which the test computes itself.
class SequenceStoreTest : public ::testing::Test {
 protected:
  /// Takes what a request's client is answered.
  class Answer final : public OutputSink {
   public:
    void* Reserve(size_t index, const TensorSpec& spec) override {
      EXPECT_EQ(index, 0U);
      EXPECT_EQ(spec.bytes(), sizeof(y));
      return &y;
    }
    absl::Status TakeStrings(size_t, ConstTensorView) override { return absl::OkStatus(); }
    float y = 0;
  };

  static std::shared_ptr<const StateLayout> MakeLayout(double initial) {
    Signature signature;
    signature.inputs = {{"x", DType::kF32, {1}}, {"before", DType::kF32, {1}}};
    signature.outputs = {{"y", DType::kF32, {1}}, {"total", DType::kF32, {1}}};
    auto layout = StateLayout::Make(signature, {{"before", {"total", initial}}});
    EXPECT_TRUE(layout.ok()) << layout.status();
    return std::make_shared<const StateLayout>(*std::move(layout));
  }

  SequenceHome Home() const { return home_; }
  SequenceHome OtherVersion(Precision precision) const {
    SequenceHome home = home_;
    home.version = std::make_shared<const ModelVersion>();
    home.route.precision = precision;
    return home;
  }

  /// A request, and what became of it.
  struct Asked {
    std::unique_ptr<SequenceStep> step;
    std::optional<absl::Status> turn;
    Answer answer;
    bool runs() const { return turn && turn->ok(); }
  };

  absl::Status TryEnter(uint64_t id, bool start, bool end, Asked& asked) {
    auto step = store_->Enter({id, start, end}, start ? std::optional(Home()) : std::nullopt);
    if (!step.ok()) return step.status();
    asked.step = *std::move(step);
    return absl::OkStatus();
  }
  std::unique_ptr<Asked> Enter(uint64_t id, bool start = false, bool end = false) {
    auto asked = std::make_unique<Asked>();
    const absl::Status entered = TryEnter(id, start, end, *asked);
    EXPECT_TRUE(entered.ok()) << entered;
    return asked;
  }
  /// Enters, and waits for its turn.
  std::unique_ptr<Asked> Ask(uint64_t id, bool start = false, bool end = false) {
    auto asked = Enter(id, start, end);
    Await(*asked);
    return asked;
  }
  static void Await(Asked& asked, size_t bytes = 4) { Await(asked, {.bytes = bytes}); }
  static void Await(Asked& asked, const SequenceStep::Wait& wait) {
    asked.step->AwaitTurn(wait, [&asked](const absl::Status& turn) { asked.turn = turn; });
  }
  /// What the worker does: y and total are before + x.
  static float Run(Asked& asked, float x) {
    const auto inputs = asked.step->Inputs({{&x, {DType::kF32, {1}}}}, asked.answer);
    const float total =
        *static_cast<const float*>(inputs[0].data) + *static_cast<const float*>(inputs[1].data);
    const TensorSpec spec = {DType::kF32, {1}};
    std::memcpy(asked.step->Reserve(0, spec), &total, sizeof(total));
    std::memcpy(asked.step->Reserve(1, spec), &total, sizeof(total));
    return total;
  }
  /// One whole request that is answered.
  float Step(uint64_t id, float x, bool start = false, bool end = false) {
    const auto asked = Ask(id, start, end);
    EXPECT_TRUE(asked->runs());
    const float total = Run(*asked, x);
    EXPECT_TRUE(asked->step->Commit().ok());
    EXPECT_EQ(asked->answer.y, total);
    return total;
  }
  std::string ErrorOf(uint64_t id, bool start = false) {
    Asked asked;
    return std::string(Message(TryEnter(id, start, false, asked)));
  }
  uint64_t Ended(SequenceEnd why) const {
    return home_.metrics->ended.value(static_cast<size_t>(why));
  }
  uint64_t Refused(SequenceRefusal why) const {
    return metrics_->refused.value(static_cast<size_t>(why));
  }

  FakeClock clock_;
  const std::shared_ptr<ModelSequenceMetrics> metrics_ = std::make_shared<ModelSequenceMetrics>();
  const SequenceHome home_ = {.version = std::make_shared<const ModelVersion>(),
                              .layout = MakeLayout(0),
                              .metrics = std::make_shared<SequenceMetrics>()};
  const std::shared_ptr<SequenceStore> store_ =
      std::make_shared<SequenceStore>("net", clock_, metrics_);
};

}  // namespace octet
