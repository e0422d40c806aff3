// Lowers one node and runs the step, as a plan does, beside its reference kernel.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include <gtest/gtest.h>

#include "engine/onednn/weight_cache.h"
#include "engine/ops/op.h"
#include "engine/tensor/status.h"
#include "tests/support/one_node.h"

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

/// As LowerAndRun.
inline absl::StatusOr<Lowered> Lower(const OneNode& node,
                                     const Target& target = {.isa = "test", .threads = 1}) {
  OCTET_ASSIGN_OR_RETURN(const Graph graph, node.Infer());
  return LowerAndRun(graph, node.tensors(), Precision::kInt8, target);
}

/// What the reference kernel answers; a failure and nothing when it does not.
template <typename T = float>
std::vector<T> Reference(const OneNode& node, size_t output = 0) {
  const auto outputs = node.Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? Elements<T>((*outputs)[output]) : std::vector<T>{};
}

/// What the reference kernel and the fast form both answer; a failure when they differ.
template <typename T>
std::vector<T> Answer(const OneNode& node) {
  const auto lowered = Lower(node);
  EXPECT_TRUE(lowered.ok()) << lowered.status();
  if (!lowered.ok()) return {};
  const std::vector<T> expected = Reference<T>(node);
  EXPECT_EQ(Elements<T>(lowered->outputs[0]), expected);
  return expected;
}

}  // namespace octet::testing
