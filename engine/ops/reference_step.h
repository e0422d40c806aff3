// The oracle: any node, computed by its family's reference kernel on the reals that its values stand for.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/ops/op.h"

namespace octet {

/// Makes a kernel for `node` that honours typed values and post-ops:
///   1. inputs with quant, or stored as BF16/F16 by a pass, are widened to F32;
///   2. the family's kernel runs (on F32 outputs where the stored output type differs);
///   3. post-ops apply in order, in float;
///   4. outputs with quant are quantized (round half to even, saturate), BF16/F16 rounded.
/// Nodes whose attribute "dynamic_quant" is 1 quantize input 0 first: u8, asymmetric, range of the
/// whole tensor including 0 (ONNX DynamicQuantizeLinear).
/// Typed int8 data movement (OpTraits::data_movement, equal quant in and out) moves the integers.
absl::StatusOr<Kernel> MakeReferenceKernel(const Graph& graph, const Node& node);

/// The same as a Step; fills layer.runs ("f32", or "none" for data movement), layer.impl = "reference"
/// and layer.macs.
absl::StatusOr<std::unique_ptr<Step>> MakeReferenceStep(const LowerContext& context);

/// Multiply-adds of a node for its static shapes; 0 for operators that have none.
/// Conv: N*OC*OH*OW*(IC/groups)*KH*KW. MatMul/Gemm: batch*M*N*K. LSTM: T*N*4H*(I+H) per direction.
int64_t MultiplyAdds(const Graph& graph, const Node& node);

/// Evaluates a graph node by node with reference kernels: for constant folding, tests and bisection.
/// Inputs in the order of graph.inputs; returns every graph output. Requires: static shapes. UNIMPLEMENTED for strings,
/// unless they are only moved: they point into inputs and the graph's constants then.
absl::StatusOr<std::vector<Tensor>> Evaluate(const Graph& graph, std::span<const Tensor> inputs);

}  // namespace octet
