#include "engine/train/layer.h"

#include <algorithm>
#include <array>

#include "engine/ops/op.h"
#include "engine/tensor/status.h"

namespace octet::train {
namespace {

using Factory = MadeLayer (*)(const LayerContext&);
struct KnownOp {
  std::string_view name;
  Factory make;
};
// Operators with a derivative of their own; those that move data have none.
constexpr std::array<KnownOp, 16> kKnownOps = {{
    {"BatchNormalization", MakeBatchNorm},
    {"MaxPool", MakePool},
    {"AveragePool", MakePool},
    {"GlobalMaxPool", MakePool},
    {"GlobalAveragePool", MakePool},
    {"ReduceMean", MakePool},
    {"Relu", MakeUnary},
    {"LeakyRelu", MakeUnary},
    {"Clip", MakeUnary},
    {"Sigmoid", MakeUnary},
    {"HardSigmoid", MakeUnary},
    {"HardSwish", MakeUnary},
    {"Tanh", MakeUnary},
    {"Add", MakeBinary},
    {"Sub", MakeBinary},
    {"Mul", MakeBinary},
}};

}  // namespace

const Tensor* LayerContext::constant(size_t slot) const {
  const ValueId id = node.input(slot);
  return id != kNone && graph.value(id).is_constant() ? &graph.value(id).constant : nullptr;
}

MadeLayer MakeLayer(const LayerContext& context) {
  const Node& node = context.node;
  const auto known = std::ranges::find(kKnownOps, node.op, &KnownOp::name);
  const OpDef* op = FindOp(node);
  const bool moves =
      op != nullptr && op->kernel != nullptr && (op->traits.data_movement || op->traits.view);
  if (node.domain == kOnnxDomain && node.outputs.size() == 1) {
    if (known != kKnownOps.end()) {
      if (known->make == MakeBinary || context.inputs[0] != nullptr) return known->make(context);
      return Unimplemented("{}: training knows this on FP32 activations alone", Describe(node));
    }
    if (moves) return MakeMovement(context);
  }
  return Unimplemented("training does not know {}", Describe(node));
}

}  // namespace octet::train
