// Activation functions, sums and products with broadcasting, and frozen normalization.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/tensor/status.h"
#include "engine/train/layer.h"

namespace octet::train {
namespace {

constexpr int64_t kElementGrain = int64_t{1} << 15;

// y = value(x), dL/dx = dL/dy * slope(x, y).
template <typename Value, typename Slope>
class Unary : public Layer {
 public:
  Unary(const LayerContext& context, Value value, Slope slope)
      : x_(*context.inputs[0]), y_(context.output), value_(value), slope_(slope) {}

  absl::Status Forward() override {
    const float* const x = x_.values();
    float* const y = y_.values();
    ParallelFor(x_.size(), kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] = value_(x[i]);
    });
    return absl::OkStatus();
  }

  absl::Status Backward() override {
    x_.AddGradient([&](float* to) {
      const float* const x = x_.values();
      const float* const y = y_.values();
      const float* const dy = y_.gradient();
      ParallelFor(x_.size(), kElementGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) to[i] = dy[i] * slope_(x[i], y[i]);
      });
    });
    return absl::OkStatus();
  }

 private:
  Activation& x_;
  Activation& y_;
  Value value_;
  Slope slope_;
};

template <typename Value, typename Slope>
MadeLayer UnaryOf(const LayerContext& context, Value value, Slope slope) {
  return std::make_unique<Unary<Value, Slope>>(context, value, slope);
}

MadeLayer MakeClip(const LayerContext& context) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  float bounds[] = {-kInfinity, kInfinity};
  for (size_t slot = 1; slot < std::min<size_t>(context.node.inputs.size(), 3); ++slot) {
    if (context.node.inputs[slot] == kNone) continue;
    const Tensor* bound = context.constant(slot);
    if (bound == nullptr || bound->elements() != 1)
      return Unimplemented("{}: training needs constant bounds", Describe(context.node));
    bounds[slot - 1] = bound->span<float>()[0];
  }
  const auto [low, high] = bounds;
  return UnaryOf(
      context, [low, high](float x) { return std::min(std::max(x, low), high); },
      [low, high](float x, float) { return x > low && x < high ? 1.0F : 0.0F; });
}

// Position in an operand of each element of the output, both physical. `strides`: the operand's.
std::vector<int32_t> BroadcastPositions(const Shape& y, const Shape& operand,
                                        std::span<const int64_t> strides) {
  const std::vector<int64_t> y_strides = PhysicalStrides(y);
  const int lead = y.rank() - operand.rank();
  std::vector<int32_t> positions(static_cast<size_t>(y.elements()));
  for (int64_t i = 0; i < y.elements(); ++i) {
    int64_t to = 0;
    int64_t from = 0;
    int64_t rest = i;
    for (int axis = y.rank() - 1; axis >= 0; --axis) {
      const int64_t at = rest % y[axis];
      rest /= y[axis];
      to += at * y_strides[static_cast<size_t>(axis)];
      if (axis >= lead && operand[axis - lead] > 1)
        from += at * strides[static_cast<size_t>(axis - lead)];
    }
    positions[static_cast<size_t>(to)] = static_cast<int32_t>(from);
  }
  return positions;
}

enum class BinaryKind : uint8_t { kAdd, kSub, kMul };

// One side of a sum or product: an activation or a constant.
struct Operand {
  Activation* activation = nullptr;
  Tensor constant;
  std::vector<int32_t> positions;  ///< Empty: where the output is.

  const float* values() const {
    return activation != nullptr ? activation->values() : constant.span<float>().data();
  }
  int64_t At(int64_t i) const {
    return positions.empty() ? i : int64_t{positions[static_cast<size_t>(i)]};
  }
};

class Binary : public Layer {
 public:
  Binary(BinaryKind kind, Operand a, Operand b, Activation& y)
      : kind_(kind), a_(std::move(a)), b_(std::move(b)), y_(y) {}

  absl::Status Forward() override {
    const float* const a = a_.values();
    const float* const b = b_.values();
    float* const y = y_.values();
    ParallelFor(y_.size(), kElementGrain, [&](int64_t begin, int64_t end) {
      if (kind_ == BinaryKind::kAdd && a_.positions.empty() && b_.positions.empty()) {
        for (int64_t i = begin; i < end; ++i) y[i] = a[i] + b[i];
        return;
      }
      for (int64_t i = begin; i < end; ++i) y[i] = Combined(a[a_.At(i)], b[b_.At(i)]);
    });
    return absl::OkStatus();
  }

  absl::Status Backward() override {
    const float* const a = a_.values();
    const float* const b = b_.values();
    const float* const dy = y_.gradient();
    const bool product = kind_ == BinaryKind::kMul;
    Spread(a_, [&](int64_t i) { return product ? dy[i] * b[b_.At(i)] : dy[i]; });
    Spread(b_, [&](int64_t i) {
      return product ? dy[i] * a[a_.At(i)] : kind_ == BinaryKind::kSub ? -dy[i] : dy[i];
    });
    return absl::OkStatus();
  }

 private:
  float Combined(float a, float b) const {
    return kind_ == BinaryKind::kAdd ? a + b : kind_ == BinaryKind::kSub ? a - b : a * b;
  }

  template <typename Fn>
  void Spread(const Operand& operand, const Fn& gradient_at) {
    if (operand.activation == nullptr) return;
    operand.activation->AddGradient([&](float* to) {
      if (operand.positions.empty()) {
        for (int64_t i = 0; i < y_.size(); ++i) to[i] = gradient_at(i);
        return;
      }
      std::fill_n(to, operand.activation->size(), 0.0F);
      for (int64_t i = 0; i < y_.size(); ++i) to[operand.At(i)] += gradient_at(i);
    });
  }

  BinaryKind kind_;
  Operand a_;
  Operand b_;
  Activation& y_;
};

// y = x factor[c] + addend[c], c along axis 1.
class Affine : public Layer {
 public:
  Affine(const LayerContext& context, std::vector<float> factors, std::vector<float> addends)
      : x_(*context.inputs[0]),
        y_(context.output),
        factors_(std::move(factors)),
        addends_(std::move(addends)),
        channel_stride_(PhysicalStrides(x_.shape())[1]) {}

  absl::Status Forward() override {
    const float* const x = x_.values();
    float* const y = y_.values();
    ParallelFor(x_.size(), kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const size_t c = ChannelOf(i);
        y[i] = x[i] * factors_[c] + addends_[c];
      }
    });
    return absl::OkStatus();
  }

  absl::Status Backward() override {
    x_.AddGradient([&](float* to) {
      const float* const dy = y_.gradient();
      ParallelFor(x_.size(), kElementGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) to[i] = dy[i] * factors_[ChannelOf(i)];
      });
    });
    return absl::OkStatus();
  }

 private:
  size_t ChannelOf(int64_t i) const {
    return static_cast<size_t>(i / channel_stride_) % factors_.size();
  }

  Activation& x_;
  Activation& y_;
  std::vector<float> factors_;
  std::vector<float> addends_;
  int64_t channel_stride_;
};

}  // namespace

MadeLayer MakeBatchNorm(const LayerContext& context) {
  const Node& node = context.node;
  const Shape& x = context.inputs[0]->shape();
  OCTET_ASSIGN_OR_RETURN(const float epsilon, node.attributes.Float("epsilon", 1e-5F));
  std::span<const float> constants[4];  // Scale, bias, mean, variance.
  for (size_t slot = 0; slot < 4; ++slot) {
    const Tensor* constant = context.constant(slot + 1);
    if (constant == nullptr || constant->dtype() != DType::kF32 || x.rank() < 2 ||
        constant->elements() != x[1] || node.attributes.IntOr("training_mode", 0) != 0)
      return Unimplemented("{}: training knows constants per channel", Describe(node));
    constants[slot] = constant->span<float>();
  }
  std::vector<float> factors;
  std::vector<float> addends;
  for (size_t c = 0; c < constants[0].size(); ++c) {
    const double factor =
        constants[0][c] / std::sqrt(static_cast<double>(constants[3][c]) + epsilon);
    factors.push_back(static_cast<float>(factor));
    addends.push_back(static_cast<float>(constants[1][c] - constants[2][c] * factor));
  }
  return std::make_unique<Affine>(context, std::move(factors), std::move(addends));
}

MadeLayer MakeUnary(const LayerContext& context) {
  const Node& node = context.node;
  if (node.op == "Relu") {
    return UnaryOf(
        context, [](float x) { return std::max(x, 0.0F); },
        [](float x, float) { return x > 0 ? 1.0F : 0.0F; });
  }
  if (node.op == "Clip") return MakeClip(context);
  if (node.op == "LeakyRelu") {
    OCTET_ASSIGN_OR_RETURN(const float alpha, node.attributes.Float("alpha", 0.01F));
    return UnaryOf(
        context, [alpha](float x) { return x > 0 ? x : alpha * x; },
        [alpha](float x, float) { return x > 0 ? 1.0F : alpha; });
  }
  if (node.op == "Sigmoid") {
    return UnaryOf(
        context, [](float x) { return 1 / (1 + std::exp(-x)); },
        [](float, float y) { return y * (1 - y); });
  }
  if (node.op == "Tanh") {
    return UnaryOf(
        context, [](float x) { return std::tanh(x); }, [](float, float y) { return 1 - y * y; });
  }
  if (node.op == "HardSigmoid") {
    OCTET_ASSIGN_OR_RETURN(const float alpha, node.attributes.Float("alpha", 0.2F));
    OCTET_ASSIGN_OR_RETURN(const float beta, node.attributes.Float("beta", 0.5F));
    return UnaryOf(
        context, [=](float x) { return std::clamp(alpha * x + beta, 0.0F, 1.0F); },
        [alpha](float, float y) { return y > 0 && y < 1 ? alpha : 0.0F; });
  }
  return UnaryOf(
      context, [](float x) { return x * std::clamp(x / 6 + 0.5F, 0.0F, 1.0F); },  // HardSwish
      [](float x, float) { return x <= -3  ? 0.0F
                                  : x >= 3 ? 1.0F
                                           : x / 3 + 0.5F; });
}

MadeLayer MakeBinary(const LayerContext& context) {
  const Node& node = context.node;
  const Shape& y = context.output.shape();
  Operand operands[2];
  for (size_t slot = 0; slot < 2; ++slot) {
    Operand& operand = operands[slot];
    operand.activation = context.inputs[slot];
    if (operand.activation != nullptr) {
      const Shape& shape = operand.activation->shape();
      if (shape != y) operand.positions = BroadcastPositions(y, shape, PhysicalStrides(shape));
      continue;
    }
    const Tensor* constant = context.constant(slot);
    if (constant == nullptr || constant->dtype() != DType::kF32)
      return Unimplemented("{}: training knows FP32 operands", Describe(node));
    operand.constant = *constant;
    operand.positions = BroadcastPositions(y, constant->shape(), constant->shape().strides());
  }
  const BinaryKind kind = node.op == "Add"   ? BinaryKind::kAdd
                          : node.op == "Sub" ? BinaryKind::kSub
                                             : BinaryKind::kMul;
  return std::make_unique<Binary>(kind, std::move(operands[0]), std::move(operands[1]),
                                  context.output);
}

}  // namespace octet::train
