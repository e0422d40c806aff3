// widen_reals: what a model declares as FLOAT16 or BFLOAT16 is F32 inside, so that all other passes know its reals.
//
//   x:f16 -> Conv(w:f16) -> Relu -> y:f16    =>   x -> octet:Convert:f32 -> Conv(w:f32) -> Relu:f32 -> octet:Convert -> y
//   x:f32 -> Cast:f16 -> Conv(w:f16) -> Cast:f32 -> y:f32   =>   x -> Conv(w:f32) -> y
//
// Inputs and outputs of the graph keep their types. What then multiplies in BF16 is lower_bf16's affair, as it is for files that
// only store weights in 16 bits. A Cast to these types rounds nothing any more between two values inside: they keep more bits than
// the model asks for, and what the type would turn into infinity (F16: beyond 65504) stays finite; it overflows where the
// graph's output is stored in it. Constants computed of others (fold_constants) have been rounded, each time.
//
// Runs once on a graph, before any pass stores a value in 16 bits (Graph::reals_widened). A graph with sub-graphs, whose bodies have
// declared types, stays as it is: its segments are widened one by one.
#include <map>
#include <utility>

#include "engine/graph/stored_value.h"
#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

Tensor Widened(const Tensor& narrow) {
  Tensor wide(DType::kF32, narrow.shape());
  ConvertTensor(narrow.view(), wide.mutable_view());
  return wide;
}

class RealWidening {
 public:
  explicit RealWidening(Graph& graph) : graph_(graph) {}

  int Run() {
    for (const NodeId id : graph_.OrderSnapshot()) {
      for (size_t slot = 0; slot < graph_.node(id).inputs.size(); ++slot) {
        const ValueId in = graph_.node(id).inputs[slot];
        if (IsNarrow(in)) graph_.SetInput(id, slot, WideTwin(id, in));
      }
      for (size_t slot = 0; slot < graph_.node(id).outputs.size(); ++slot) {
        if (IsNarrow(graph_.node(id).outputs[slot])) WidenOutput(id, slot);
      }
    }
    if (count_ == 0) return 0;
    for (const NodeId id : graph_.OrderSnapshot()) DropCast(id);
    return count_;
  }

 private:
  bool IsNarrow(ValueId id) const {
    if (id == kNone) return false;
    const Value& value = graph_.value(id);
    return value.is_tensor() && IsNarrowReal(value.dtype) && !value.quant;
  }

  // The F32 value that `reader` reads instead of a constant, an input, or an output of the graph, which has one already.
  ValueId WideTwin(NodeId reader, ValueId narrow) {
    const auto [it, fresh] = twins_.try_emplace(narrow, kNone);
    if (!fresh) return it->second;
    ++count_;
    const Value value = graph_.value(narrow);
    if (value.is_constant()) {
      return it->second = graph_.AddConstant(value.name, Widened(value.constant));
    }
    it->second = AddValue(graph_, value.name + "_f32", DType::kF32, value.shape);
    graph_.InsertNodeBefore(graph_.order().front(), MakeNode("Convert", graph_.node(reader),
                                                             {narrow}, {it->second}, kOctetDomain));
    return it->second;
  }

  void WidenOutput(NodeId id, size_t slot) {
    ++count_;
    WidenAttributes(graph_.mutable_node(id));
    const ValueId out = graph_.node(id).outputs[slot];
    if (!graph_.is_graph_output(out)) {
      graph_.mutable_value(out).dtype = DType::kF32;
      return;
    }
    const ValueId wide =
        AddValue(graph_, graph_.value(out).name + "_f32", DType::kF32, graph_.value(out).shape);
    graph_.SetOutput(id, slot, wide);
    graph_.InsertNodeAfter(id, MakeNode("Convert", graph_.node(id), {wide}, {out}, kOctetDomain));
    twins_[out] = wide;
  }

  // Where an attribute says what the result is made of. (Kernels of other operators with such an attribute look at the output.)
  static void WidenAttributes(Node& node) {
    if (node.is("Cast")) node.attributes.Set("to", kOnnxFloat);
    if (!node.is("Constant") && !node.is("ConstantOfShape")) return;
    const absl::StatusOr<const Tensor*> value = node.attributes.TensorOrNull("value");
    if (value.ok() && *value != nullptr) node.attributes.Set("value", Widened(**value));
  }

  void DropCast(NodeId id) {
    const Node& node = graph_.node(id);
    if (!node.is("Cast") && !node.is("CastLike")) return;
    const bool keeps = graph_.value(node.inputs[0]).dtype == DType::kF32 &&
                       graph_.value(node.outputs[0]).dtype == DType::kF32;
    if (keeps) Bypass(graph_, id);
  }

  Graph& graph_;
  std::map<ValueId, ValueId> twins_;  ///< Narrow value that stays -> its F32 twin.
  int count_ = 0;
};

bool HasSubgraphs(const Graph& graph) {
  for (const NodeId id : graph.order()) {
    const OpDef* def = FindOp(graph.node(id));
    if (def != nullptr && def->traits.control) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<int> WidenReals(Graph& graph, const PassContext& /*context*/) {
  if (graph.reals_widened || HasSubgraphs(graph)) return 0;
  graph.reals_widened = true;
  return RealWidening(graph).Run();
}

}  // namespace octet
