// A layer of training held against its operator's reference kernel, and its gradient against differences of its own values.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/graph/graph.h"
#include "engine/ops/reference_step.h"
#include "engine/train/layer.h"
#include "tests/support/graph_builder.h"

namespace octet::testing {

/// Different multiples of 0.05 plus 0.025, at random: no two are equal, and none is nearer than 0.025 to where the operators
/// have kinks.
inline Tensor SpacedReals(const Shape& shape, uint32_t seed = TestSeed()) {
  Tensor tensor(DType::kF32, shape);
  const auto values = tensor.mutable_span<float>();
  const size_t middle = values.size() / 2;
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = 0.05F * (static_cast<float>(i) - static_cast<float>(middle)) + 0.025F;
  std::shuffle(values.begin(), values.end(), std::mt19937(seed));
  return tensor;
}

inline Tensor RowMajor(train::Activation& activation) {
  Tensor tensor(DType::kF32, activation.shape());
  train::CopyToRowMajor(activation.values(), activation.shape(),
                        tensor.mutable_span<float>().data());
  return tensor;
}

/// The activations of one node, and what its gradient is checked with.
class LayerUnderTest {
 public:
  /// `graph`: one node that is no DequantizeLinear; its FP32 inputs that are not constant are activations.
  explicit LayerUnderTest(const Graph& graph) : graph_(graph) {
    for (const NodeId id : graph_.order()) {
      if (!graph_.node(id).is("DequantizeLinear")) node_ = id;
    }
    for (const ValueId id : node().inputs) {
      const bool reads = id != kNone && graph_.is_graph_input(id);
      activations_.push_back(
          reads ? std::make_unique<train::Activation>(*graph_.value(id).shape, true) : nullptr);
      inputs_.push_back(activations_.back().get());
    }
    output_ = std::make_unique<train::Activation>(*graph_.value(node().outputs[0]).shape, true);
    for (train::Activation* x : inputs_) {
      if (x == nullptr) continue;
      samples_.push_back(
          SpacedReals(x->shape(), TestSeed() + static_cast<uint32_t>(samples_.size())));
      train::CopyToPhysical(samples_.back().span<float>().data(), x->shape(), x->values());
    }
    std::mt19937 random(TestSeed());
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (int64_t i = 0; i < output_->size(); ++i) weights_.push_back(uniform(random));
  }

  const Node& node() const { return graph_.node(node_); }
  train::LayerContext context() { return {graph_, node(), inputs_, *output_}; }
  train::Activation& input(size_t slot) { return *inputs_[slot]; }
  train::Activation& output() { return *output_; }

  /// What the gradient is of: sum weights[i] y[i], after Forward.
  double Sum(train::Layer& layer) {
    EXPECT_TRUE(layer.Forward().ok());
    double sum = 0;
    for (int64_t i = 0; i < output_->size(); ++i)
      sum += static_cast<double>(weights_[static_cast<size_t>(i)]) * output_->values()[i];
    return sum;
  }

  void RunBackward(train::Layer& layer) {
    for (train::Activation* x : inputs_) {
      if (x != nullptr) x->ClearGradient();
    }
    std::ranges::copy(weights_, output_->gradient());
    const absl::Status status = layer.Backward();
    EXPECT_TRUE(status.ok()) << status;
  }

  /// Forward() answers what the reference kernels do.
  void ExpectReference(train::Layer& layer) {
    ASSERT_TRUE(layer.Forward().ok());
    const auto expected = Evaluate(graph_, samples_);
    ASSERT_TRUE(expected.ok()) << expected.status();
    const Tensor got = RowMajor(*output_);
    for (size_t i = 0; i < got.span<float>().size(); ++i) {
      const float want = (*expected)[0].span<float>()[i];
      ASSERT_NEAR(got.span<float>()[i], want, 1e-4 * (1 + std::abs(want))) << "element " << i;
    }
  }

  /// Backward() gives each input (f(x + h) - f(x - h)) / 2h. Requires: Forward() was run.
  void ExpectDifferences(train::Layer& layer, float h = 0.01F) {
    RunBackward(layer);
    for (train::Activation* x : inputs_) {
      if (x == nullptr) continue;
      const std::vector<float> gradient(x->gradient(), x->gradient() + x->size());
      const int64_t step = std::max<int64_t>(1, x->size() / 60);
      for (int64_t i = 0; i < x->size(); i += step) {
        const double difference = Difference(layer, x->values()[i], h);
        ASSERT_NEAR(gradient[static_cast<size_t>(i)], difference, 0.01 * (1 + std::abs(difference)))
            << "element " << i;
      }
    }
  }

  double Difference(train::Layer& layer, float& at, float h) {
    const float before = at;
    at = before + h;
    const double above = Sum(layer);
    at = before - h;
    const double below = Sum(layer);
    at = before;
    return (above - below) / (2.0 * static_cast<double>(h));
  }

 private:
  Graph graph_;
  NodeId node_ = kNone;
  std::vector<std::unique_ptr<train::Activation>> activations_;
  std::vector<train::Activation*> inputs_;
  std::unique_ptr<train::Activation> output_;
  std::vector<Tensor> samples_;
  std::vector<float> weights_;
};

}  // namespace octet::testing
