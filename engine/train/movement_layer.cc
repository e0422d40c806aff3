// Operators that move elements: where each one goes is what the operator's own kernel does to their positions.
#include <algorithm>

#include "engine/ops/op.h"
#include "engine/tensor/status.h"
#include "engine/train/layer.h"

namespace octet::train {
namespace {

/// y[to] = x[from], physical positions.
struct Move {
  int32_t to;
  int32_t from;
};

class Movement : public Layer {
 public:
  struct Source {
    Activation* x;
    std::vector<Move> moves;
  };

  Movement(std::vector<Source> sources, Activation& y) : sources_(std::move(sources)), y_(y) {
    size_t moves = 0;
    for (const Source& source : sources_) moves += source.moves.size();
    covers_ = static_cast<int64_t>(moves) == y.size();
  }

  absl::Status Forward() override {
    if (!covers_) std::fill_n(y_.values(), y_.size(), 0.0F);
    for (const Source& source : sources_) {
      const float* const x = source.x->values();
      float* const y = y_.values();
      for (const Move& move : source.moves) y[move.to] = x[move.from];
    }
    return absl::OkStatus();
  }

  absl::Status Backward() override {
    for (const Source& source : sources_) {
      source.x->AddGradient([&](float* to) {
        std::fill_n(to, source.x->size(), 0.0F);
        const float* const dy = y_.gradient();
        for (const Move& move : source.moves) to[move.from] += dy[move.to];
      });
    }
    return absl::OkStatus();
  }

 private:
  std::vector<Source> sources_;
  Activation& y_;
  bool covers_;  ///< Every element of y is moved to; else the others are 0 (Pad).
};

// Physical position of each element in row-major order.
std::vector<int32_t> PhysicalPositions(const Shape& shape) {
  const std::vector<int64_t> strides = PhysicalStrides(shape);
  std::vector<int32_t> positions(static_cast<size_t>(shape.elements()));
  for (int64_t i = 0; i < shape.elements(); ++i) {
    int64_t position = 0;
    int64_t rest = i;
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      position += rest % shape[axis] * strides[static_cast<size_t>(axis)];
      rest /= shape[axis];
    }
    positions[static_cast<size_t>(i)] = static_cast<int32_t>(position);
  }
  return positions;
}

// Tensors that the kernel moves: the numbers of the activations' elements, counted from 1 over all of them; a constant FP32
// operand is what Pad fills with, 0.
class NumberedInputs {
 public:
  static absl::StatusOr<NumberedInputs> Make(const LayerContext& context) {
    NumberedInputs made;
    int32_t next = 1;
    for (size_t slot = 0; slot < context.node.inputs.size(); ++slot) {
      made.first_.push_back(next);
      if (const Activation* x = context.inputs[slot]; x != nullptr) {
        Tensor& numbers = made.tensors_.emplace_back(DType::kI32, x->shape());
        for (int32_t& number : numbers.mutable_span<int32_t>()) number = next++;
        made.views_.push_back(numbers.view());
        continue;
      }
      OCTET_ASSIGN_OR_RETURN(const ConstTensorView constant, made.Constant(context, slot));
      made.views_.push_back(constant);
    }
    made.first_.push_back(next);
    return made;
  }

  std::span<const ConstTensorView> views() const { return views_; }
  /// Numbers of input `slot` are in [first(slot), first(slot + 1)).
  int32_t first(size_t slot) const { return first_[slot]; }

 private:
  absl::StatusOr<ConstTensorView> Constant(const LayerContext& context, size_t slot) {
    if (context.node.inputs[slot] == kNone) return ConstTensorView{};
    const Tensor* constant = context.constant(slot);
    if (constant == nullptr) {
      return Unimplemented("{}: input {} is neither a constant nor an FP32 activation",
                           Describe(context.node), slot);
    }
    if (constant->dtype() != DType::kF32) return constant->view();
    if (!context.node.is("Pad") ||
        std::ranges::any_of(constant->span<float>(), [](float fill) { return fill != 0; })) {
      return Unimplemented("{}: training knows no constants but a padding of 0 here",
                           Describe(context.node));
    }
    Tensor& zeros = tensors_.emplace_back(DType::kI32, constant->shape());
    std::ranges::fill(zeros.mutable_span<int32_t>(), 0);
    return zeros.view();
  }

  std::vector<Tensor> tensors_;
  std::vector<ConstTensorView> views_;
  std::vector<int32_t> first_;
};

}  // namespace

MadeLayer MakeMovement(const LayerContext& context) {
  OCTET_ASSIGN_OR_RETURN(const NumberedInputs numbered, NumberedInputs::Make(context));
  Tensor moved(DType::kI32, context.output.shape());
  const TensorSpec spec = moved.spec();
  const OpDef* op = FindOp(context.node);
  OCTET_ASSIGN_OR_RETURN(const Kernel kernel,
                         op->kernel({context.node, numbered.views(), {&spec, 1}}));
  const TensorView output = moved.mutable_view();
  OCTET_RETURN_IF_ERROR(kernel(numbered.views(), {&output, 1}));
  const std::vector<int32_t> to = PhysicalPositions(context.output.shape());
  const auto numbers = moved.span<int32_t>();
  std::vector<Movement::Source> sources;
  for (size_t slot = 0; slot < context.inputs.size(); ++slot) {
    if (context.inputs[slot] == nullptr) continue;
    const std::vector<int32_t> from = PhysicalPositions(context.inputs[slot]->shape());
    Movement::Source source{context.inputs[slot], {}};
    for (size_t i = 0; i < numbers.size(); ++i) {
      const int32_t number = numbers[i];
      if (number < numbered.first(slot) || number >= numbered.first(slot + 1)) continue;
      source.moves.push_back({to[i], from[static_cast<size_t>(number - numbered.first(slot))]});
    }
    std::ranges::sort(source.moves, {}, &Move::to);
    sources.push_back(std::move(source));
  }
  return std::make_unique<Movement>(std::move(sources), context.output);
}

}  // namespace octet::train
