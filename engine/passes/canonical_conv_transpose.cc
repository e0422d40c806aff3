// canonical_conv_transpose: transposed convolutions with constant weights, in the order that Conv has them in.
//
//   x:f32[N,IC,H,W] -> ConvTranspose(w:f32[IC,OC/g,kh,kw]) {auto_pad, output_shape} -> y:f32
//     =>  x -> octet:ConvTranspose(w:f32[OC,IC/g,kh,kw]) {pads, output_padding, ...} -> y
//
// So what passes know of a Conv's output channels holds for both. Weights behind a DequantizeLinear stay integers. An
// output_shape over unknown extents waits for the plan.
#include <cstring>

#include "engine/ops/conv_transpose.h"
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/quantization.h"
#include "engine/passes/rewrite.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// [IC, OC / g, k...] -> [OC, IC / g, k...].
Tensor OutputsFirst(const Tensor& w, int64_t group) {
  Shape grouped{group, w.shape()[0] / group, w.shape()[1]};
  Shape result{w.shape()[1] * group, w.shape()[0] / group};
  Permutation perm = {0, 2, 1};
  for (int i = 2; i < w.shape().rank(); ++i) {
    grouped.push_back(w.shape()[i]);
    result.push_back(w.shape()[i]);
    perm.push_back(i + 1);
  }
  return Permute(w.Reshaped(grouped), perm).Reshaped(result);
}

// A constant vector `group` times behind itself; anything else as it is.
ValueId Repeated(Graph& graph, ValueId vector, int64_t group) {
  const Tensor* tensor = ConstantOf(graph, vector);
  if (tensor == nullptr || tensor->elements() == 1 || group == 1) return vector;
  const Tensor once = *tensor;
  Tensor all(once.dtype(), Shape{once.elements() * group});
  for (int64_t g = 0; g < group; ++g) {
    std::memcpy(
        static_cast<std::byte*>(all.mutable_data()) + g * static_cast<int64_t>(once.bytes()),
        once.data(), once.bytes());
  }
  return graph.AddConstant(graph.value(vector).name, std::move(all));
}

// The weights of `id` in Conv's order, or kNone when they are computed.
ValueId Reordered(Graph& graph, NodeId id, int64_t group) {
  const ValueId w = graph.node(id).input(1);
  auto integers = AsQuantizedConstant(graph, w);
  // One scale for each of a group's outputs, or one for all; otherwise their reals.
  if (integers && !integers->params.per_tensor() && integers->params.axis != 1) {
    if (!FoldDequantize(graph, graph.producer(w))) return kNone;
    integers.reset();
  }
  if (!integers) {
    const Tensor* reals = ConstantOf(graph, w);
    if (reals == nullptr || reals->dtype() != DType::kF32) return kNone;
    return graph.AddConstant(graph.value(w).name, OutputsFirst(*reals, group));
  }
  const Node dequantize = graph.node(graph.producer(w));
  const ValueId ordered =
      graph.AddConstant(graph.value(integers->value).name,
                        OutputsFirst(graph.value(integers->value).constant, group));
  Node made = MakeNode("DequantizeLinear", dequantize,
                       {ordered, Repeated(graph, dequantize.input(1), group)}, {});
  if (dequantize.input(2) != kNone)
    made.inputs.push_back(Repeated(graph, dequantize.input(2), group));
  made.attributes.Set("axis", int64_t{0});
  const ValueId reals =
      AddValue(graph, graph.value(w).name, DType::kF32, graph.value(ordered).shape);
  made.outputs = {reals};
  graph.InsertNodeBefore(id, std::move(made));
  return reals;
}

absl::StatusOr<bool> Rewrite(Graph& graph, NodeId id) {
  const Node node = graph.node(id);
  const ValueId x = node.input(0);
  const ValueId w = node.input(1);
  if (!IsPlainF32(graph, x) || !IsPlainF32(graph, w) || !SameRank(graph, x, w)) return false;
  if (RankOf(graph, x) < 3 || !graph.value(w).has_static_shape()) return false;
  const Shape weights = *graph.value(w).shape;
  const int64_t group = node.attributes.IntOr("group", 1);
  OCTET_ASSIGN_OR_RETURN(const auto pads, TransposedPadsOf(node, *graph.value(x).shape, weights));
  if (!pads) return false;
  const ValueId ordered = Reordered(graph, id, group);
  if (ordered == kNone) return false;
  Node made = MakeNode("ConvTranspose", node, {x, ordered}, {}, kOctetDomain);
  if (node.input(2) != kNone) made.inputs.push_back(node.input(2));
  made.in_bf16 = node.in_bf16;
  const auto spatial = static_cast<size_t>(weights.rank() - 2);
  for (const std::string_view name : {"strides", "dilations"}) {
    OCTET_ASSIGN_OR_RETURN(auto steps,
                           node.attributes.Ints(name, std::vector<int64_t>(spatial, 1)));
    made.attributes.Set(std::string(name), std::move(steps));
  }
  made.attributes.Set("kernel_shape", std::vector<int64_t>(weights.begin() + 2, weights.end()));
  made.attributes.Set("pads", pads->pads);
  made.attributes.Set("output_padding", pads->output_padding);
  made.attributes.Set("group", group);
  Replace(graph, id, std::move(made));
  return true;
}

}  // namespace

absl::StatusOr<int> CanonicalConvTranspose(Graph& graph, const PassContext& /*context*/) {
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    if (!graph.node(id).is("ConvTranspose")) continue;
    OCTET_ASSIGN_OR_RETURN(const bool made, Rewrite(graph, id));
    count += made ? 1 : 0;
  }
  return count;
}

}  // namespace octet
