// Lowers the one node of a graph and runs the step, as a plan does.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/onednn/weight_cache.h"
#include "engine/ops/op.h"
#include "engine/tensor/status.h"

namespace octet::testing {

struct Lowered {
  std::vector<Tensor> outputs;
  LayerRecord layer;
};

/// Requires: one node, static shapes. `inputs` follow graph.inputs.
inline absl::StatusOr<Lowered> LowerAndRun(const Graph& graph, const std::vector<Tensor>& inputs,
                                           Precision requested = Precision::kInt8,
                                           const Target& target = {.isa = "test", .threads = 1}) {
  const Node& node = graph.node(graph.order()[0]);
  const OpDef* def = FindOp(node);
  if (def == nullptr || def->lower == nullptr) return UnsupportedOperator(node);
  onednn::WeightCache weights;
  Lowered result;
  const LowerContext context{graph, node, target, requested, weights, {}, result.layer};
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<Step> step, def->lower(context));
  std::vector<void*> in;
  std::vector<void*> out;
  for (const ValueId id : node.inputs) {
    const void* data = nullptr;
    if (id != kNone && graph.value(id).is_constant()) data = graph.value(id).constant.data();
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (graph.inputs[i] == id) data = inputs[i].data();
    }
    in.push_back(const_cast<void*>(data));
  }
  for (const ValueId id : node.outputs) {
    result.outputs.emplace_back(graph.value(id).dtype, *graph.value(id).shape);
    out.push_back(result.outputs.back().mutable_data());
  }
  const auto scratch = AllocateAligned(step->scratch_bytes());
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<StepState> state, step->NewState());
  OCTET_RETURN_IF_ERROR(
      step->Run({.inputs = in, .outputs = out, .scratch = scratch.get(), .state = state.get()}));
  return result;
}

}  // namespace octet::testing
