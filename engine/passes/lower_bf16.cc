// lower_bf16: what multiplies and adds runs on BF16 values, where the machine has such primitives.
//
//   x:f32 -> Conv(w:f32) + relu -> f32 -> MaxPool -> f32 -> Conv -> y:f32
//     =>  x -> octet:Convert:bf16 -> Conv(w:bf16) + relu -> bf16 -> MaxPool -> bf16 -> Conv -> y:f32
//
// A node is narrow when it is a Conv or octet:MatMul (but for convolutions of one input channel that bf16 kernels are slower at, and
// products of positions and frequencies, see Angles), an LSTM, GRU or RNN (its x, weights and Y; states stay F32), or when everything it reads comes from narrow nodes and it is an
// operator that keeps its accuracy in BF16. Values between narrow nodes are stored as BF16; borders get an octet:Convert;
// biases, addends, graph outputs and what other nodes make stay F32. Precisions bf16 and fp16 (which is a storage format here)
// ask for this; in int8 and int8-dynamic the nodes that are marked do (Node::in_bf16), and no others begin a narrow part. Without
// target.bf16 nothing changes, and the certificate says so.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <vector>

#include "engine/ops/op.h"
#include "engine/passes/angles.h"
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/quantization.h"
#include "engine/passes/rewrite.h"
#include "engine/tensor/quantize.h"

namespace octet {
namespace {

constexpr std::array kNarrowToo = {
    std::string_view("MaxPool"),
    std::string_view("AveragePool"),
    std::string_view("GlobalAveragePool"),
    std::string_view("Softmax"),
    std::string_view("LayerNormalization"),
    std::string_view("Gelu"),
    std::string_view("Resize"),
    std::string_view("Upsample"),
    std::string_view("InstanceNormalization"),
    std::string_view("GroupNormalization"),
};
// Elementwise, but with results whose small differences matter: a logarithm of a small number, a difference of squares.
constexpr std::array kStayWide = {
    std::string_view("Log"),  std::string_view("Exp"), std::string_view("Pow"),
    std::string_view("Sqrt"), std::string_view("Div"), std::string_view("Reciprocal"),
};

// The largest finite BF16, and the least F32 beyond it that is rounded to an infinity.
constexpr float kLargestBf16 = 0x1.FEp127F;
constexpr float kRoundsToInfinity = 0x1.FFp127F;

// Whether a constant holds finite numbers that BF16 has none for: masks of -FLT_MAX.
bool HoldsMoreThanBf16(const Graph& graph, ValueId id) {
  if (id == kNone || !graph.value(id).is_constant() || !IsPlainF32(graph, id)) return false;
  return std::ranges::any_of(graph.value(id).constant.span<float>(), [](float f) {
    return std::isfinite(f) && std::abs(f) >= kRoundsToInfinity;
  });
}

class Bf16Lowering {
 public:
  Bf16Lowering(Graph& graph, bool marked_only)
      : graph_(graph),
        marked_only_(marked_only),
        angles_(graph),
        narrow_value_(graph.value_count(), false) {}

  int Run() {
    Select();
    if (!any_wide_mac_) return 0;
    for (const NodeId id : nodes_) NarrowWeights(id);
    for (const NodeId id : nodes_) NarrowOutputs(id);
    for (const NodeId id : nodes_) NarrowInputs(id);
    FindMasks();
    for (const NodeId id : nodes_) BoundSums(id);
    for (ValueId id = 0; id < static_cast<ValueId>(narrow_value_.size()); ++id) WidenForOthers(id);
    return static_cast<int>(nodes_.size());
  }

 private:
  bool IsNarrow(ValueId id) const {
    if (id == kNone) return false;
    return graph_.value(id).dtype == DType::kBF16 ||
           (id < static_cast<ValueId>(narrow_value_.size()) && narrow_value_[id]);
  }

  // oneDNN's bf16 kernel fills up the pairs of input channels that it multiplies, and vectors of output channels. Where there is one
  // of the former, and the latter fill no vector, it took 1.3 (mnist-8) and 1.8 times (Silero VAD's spectrum) as long as f32's.
  bool IsSlowInBf16(const Node& node) const {
    constexpr int64_t kVector = 16;
    const std::optional<Shape>& w = graph_.value(node.input(1)).shape;
    return node.is("Conv") && w && w->rank() > 1 && (*w)[1] == 1 && (*w)[0] % kVector != 0 &&
           node.attributes.IntOr("group", 1) == 1;
  }

  bool RunsInBf16(const Node& node) const {
    if (marked_only_ && !node.in_bf16 && (IsMac(node) || IsRecurrent(node))) return false;
    if (IsMac(node)) {
      return !IsSlowInBf16(node) && !angles_.AreMadeBy(graph_, node) &&
             IsPlainF32(graph_, node.input(0)) && IsPlainF32(graph_, node.input(1)) &&
             IsPlainF32(graph_, node.output(0)) && node.attributes.IntOr("dynamic_quant", 0) == 0;
    }
    if (IsRecurrent(node)) {
      const auto constant = [&](size_t slot) {
        return IsPlainF32(graph_, node.input(slot)) && graph_.value(node.input(slot)).is_constant();
      };
      return IsPlainF32(graph_, node.input(0)) && constant(1) && constant(2) &&
             (node.output(0) == kNone || IsPlainF32(graph_, node.output(0)));
    }
    const OpDef* def = FindOp(node);
    if (def == nullptr || node.is("Convert", kOctetDomain)) return false;
    const auto listed = [&](const auto& names) {
      return std::ranges::find(names, std::string_view(node.op)) != names.end();
    };
    const bool capable = def->traits.elementwise_unary || def->traits.elementwise_broadcast ||
                         MovesElements(node) || listed(kNarrowToo);
    if (!capable || listed(kStayWide)) return false;
    const auto too_large = [&](ValueId in) { return HoldsMoreThanBf16(graph_, in); };
    if (def->traits.elementwise_broadcast && std::ranges::any_of(node.inputs, too_large))
      return false;
    for (const ValueId out : node.outputs) {
      if (out != kNone && !IsPlainF32(graph_, out)) return false;
    }
    bool reads_narrow = false;
    for (const ValueId in : node.inputs) {
      if (in == kNone || graph_.value(in).is_constant() || !IsFloat(graph_.value(in).dtype))
        continue;
      if (!IsNarrow(in)) return false;
      reads_narrow = true;
    }
    return reads_narrow;
  }

  void Select() {
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      if (!RunsInBf16(node)) continue;
      nodes_.push_back(id);
      any_wide_mac_ = any_wide_mac_ || IsMac(node) || IsRecurrent(node);
      for (size_t i = 0; i < NarrowOutputCount(node); ++i) {
        if (node.outputs[i] != kNone) narrow_value_[node.outputs[i]] = true;
      }
    }
    selected_.assign(nodes_.begin(), nodes_.end());
    std::ranges::sort(selected_);
  }

  static size_t NarrowInputCount(const Node& node) {
    return IsRecurrent(node) ? 1 : node.inputs.size();
  }
  // Biases, and what a normalization multiplies by and adds: F32 to every kernel.
  static bool IsWideSlot(const Node& node, size_t slot) {
    if (node.is("InstanceNormalization") || node.is("GroupNormalization")) return slot > 0;
    return IsMac(node) && slot == 2;
  }
  bool ReadsNarrow(NodeId id, ValueId value) const {
    const Node& node = graph_.node(id);
    for (size_t slot = 0; IsSelected(id) && slot < node.inputs.size(); ++slot) {
      if (node.inputs[slot] == value && !IsWideSlot(node, slot)) return true;
    }
    return false;
  }
  static size_t NarrowOutputCount(const Node& node) {
    return IsRecurrent(node) ? std::min<size_t>(node.outputs.size(), 1) : node.outputs.size();
  }

  bool IsSelected(NodeId id) const { return std::ranges::binary_search(selected_, id); }

  void NarrowWeights(NodeId id) {
    const bool mac = IsMac(graph_.node(id));
    if (mac) {
      // A file may hold them in bytes.
      const NodeId producer = graph_.producer(graph_.node(id).input(1));
      if (producer != kNone) FoldDequantize(graph_, producer);
    }
    if (mac) NarrowConstant(id, 0);  // A matrix, or a vector, that multiplies from the left.
    if (mac || IsRecurrent(graph_.node(id))) NarrowConstant(id, 1);
    if (IsRecurrent(graph_.node(id))) NarrowConstant(id, 2);
  }

  void NarrowConstant(NodeId id, size_t slot) {
    const ValueId w = graph_.node(id).input(slot);
    if (!graph_.value(w).is_constant()) return;
    const auto [it, fresh] = weights_.try_emplace(w, kNone);
    if (fresh) {
      const Tensor wide = graph_.value(w).constant;
      Tensor narrow(DType::kBF16, wide.shape());
      ConvertTensor(wide.view(), narrow.mutable_view());
      it->second = graph_.AddConstant(graph_.value(w).name, std::move(narrow));
    }
    graph_.SetInput(id, slot, it->second);
  }

  // Values that no narrow node reads are stored as F32 by the node that computes them, unless it only moves them.
  void NarrowOutputs(NodeId id) {
    const bool mover = MovesElements(graph_.node(id));
    const size_t count = NarrowOutputCount(graph_.node(id));
    for (size_t i = 0; i < count; ++i) {
      const ValueId out = graph_.node(id).outputs[i];
      if (out == kNone) continue;
      const bool read =
          std::ranges::any_of(graph_.consumers(out), [&](NodeId n) { return ReadsNarrow(n, out); });
      if (!graph_.is_graph_output(out) && (read || mover)) {
        graph_.mutable_value(out).dtype = DType::kBF16;
        continue;
      }
      narrow_value_[out] = false;
      if (!mover) continue;
      const ValueId inner =
          AddValue(graph_, graph_.value(out).name + "_bf16", DType::kBF16, graph_.value(out).shape);
      graph_.SetOutput(id, i, inner);
      graph_.InsertNodeAfter(id,
                             MakeNode("Convert", graph_.node(id), {inner}, {out}, kOctetDomain));
      MoveReaders(out, inner);
    }
  }

  // Narrow readers of a graph output read the value before its Convert.
  void MoveReaders(ValueId from, ValueId to) {
    const std::vector<NodeId> readers(graph_.consumers(from).begin(), graph_.consumers(from).end());
    for (const NodeId reader : readers) {
      if (!IsSelected(reader)) continue;
      for (size_t slot = 0; slot < graph_.node(reader).inputs.size(); ++slot) {
        if (graph_.node(reader).inputs[slot] == from && !IsWideSlot(graph_.node(reader), slot))
          graph_.SetInput(reader, slot, to);
      }
    }
  }

  // What a Conv or octet:MatMul adds to its result is read as it is stored: a mask of -FLT_MAX is finite in F32 alone.
  static bool IsAddend(const Node& node, size_t slot) {
    return IsMac(node) && std::ranges::any_of(node.post_ops, [&](const PostOp& op) {
             return op.kind == PostOp::Kind::kAdd && op.operand == static_cast<int>(slot);
           });
  }

  // Whether each value may hold such a mask: an input of the graph does, a constant where it has one, what products make does not, and
  // what else is computed where something that it is computed from may. So may what is made of an attribute.
  void FindMasks() {
    may_hold_mask_.assign(graph_.value_count(), false);
    for (const ValueId id : graph_.inputs) may_hold_mask_[id] = true;
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      if (IsMac(node) || IsRecurrent(node)) continue;
      bool reads_reals = false;
      bool may = false;
      for (const ValueId in : node.inputs) {
        if (in == kNone || !IsFloat(graph_.value(in).dtype)) continue;
        reads_reals = true;
        may = may || may_hold_mask_[in] || HoldsMoreThanBf16(graph_, in);
      }
      for (const ValueId out : node.outputs) {
        if (out != kNone) may_hold_mask_[out] = may || !reads_reals;
      }
    }
  }
  bool MayHoldMask(ValueId id) const { return may_hold_mask_[id] || HoldsMoreThanBf16(graph_, id); }

  // The sum with such a mask stays finite where it is stored: of a row of infinities, Softmax makes NaN.
  void BoundSums(NodeId id) {
    Node& node = graph_.mutable_node(id);
    if (!IsMac(node) || graph_.value(node.output(0)).dtype != DType::kBF16) return;
    const bool wide = std::ranges::any_of(node.post_ops, [&](const PostOp& op) {
      if (op.kind != PostOp::Kind::kAdd) return false;
      const ValueId addend = node.input(static_cast<size_t>(op.operand));
      return IsPlainF32(graph_, addend) && MayHoldMask(addend);
    });
    if (wide) node.post_ops.push_back({PostOp::Kind::kClip, -kLargestBf16, kLargestBf16});
  }

  void NarrowInputs(NodeId id) {
    for (size_t slot = 0; slot < NarrowInputCount(graph_.node(id)); ++slot) {
      if (IsAddend(graph_.node(id), slot) || IsWideSlot(graph_.node(id), slot)) continue;
      const ValueId in = graph_.node(id).inputs[slot];
      if (in == kNone || graph_.value(in).is_constant() || !IsPlainF32(graph_, in)) continue;
      const auto [it, fresh] = converted_.try_emplace(in, kNone);
      if (fresh) {
        it->second =
            AddValue(graph_, graph_.value(in).name + "_bf16", DType::kBF16, graph_.value(in).shape);
        const Node convert = MakeNode("Convert", graph_.node(id), {in}, {it->second}, kOctetDomain);
        // Right behind its producer: the first reader in order is not known here.
        if (const NodeId producer = graph_.producer(in); producer != kNone) {
          graph_.InsertNodeAfter(producer, convert);
        } else {
          graph_.InsertNodeBefore(graph_.order().front(), convert);
        }
      }
      graph_.SetInput(id, slot, it->second);
    }
  }

  void WidenForOthers(ValueId id) {
    if (!narrow_value_[id] || graph_.value(id).dtype != DType::kBF16) return;
    struct Use {
      NodeId reader;
      size_t slot;
    };
    std::vector<Use> uses;
    for (const NodeId reader : graph_.consumers(id)) {
      const Node& node = graph_.node(reader);
      const bool other = !IsSelected(reader) && !node.is("Convert", kOctetDomain);
      for (size_t slot = 0; slot < node.inputs.size(); ++slot) {
        if (node.inputs[slot] == id && (other || IsWideSlot(node, slot)))
          uses.push_back({reader, slot});
      }
    }
    if (uses.empty()) return;
    const ValueId wide =
        AddValue(graph_, graph_.value(id).name + "_f32", DType::kF32, graph_.value(id).shape);
    const NodeId producer = graph_.producer(id);
    graph_.InsertNodeAfter(producer,
                           MakeNode("Convert", graph_.node(producer), {id}, {wide}, kOctetDomain));
    for (const Use& use : uses) graph_.SetInput(use.reader, use.slot, wide);
  }

  Graph& graph_;
  const bool marked_only_;
  const Angles angles_;
  std::vector<bool> narrow_value_;        ///< Per value: written by a selected node.
  std::vector<NodeId> nodes_;             ///< Selected, in order.
  std::vector<NodeId> selected_;          ///< The same, by id.
  std::map<ValueId, ValueId> weights_;    ///< F32 constant -> BF16 constant.
  std::map<ValueId, ValueId> converted_;  ///< F32 value -> its BF16 twin.
  std::vector<bool> may_hold_mask_;       ///< Per value.
  bool any_wide_mac_ = false;
};

}  // namespace

absl::StatusOr<int> LowerBf16(Graph& graph, const PassContext& context) {
  if (context.precision == Precision::kFp32 || !context.target.bf16) return 0;
  const bool integers =
      context.precision == Precision::kInt8 || context.precision == Precision::kInt8Dynamic;
  return Bf16Lowering(graph, integers).Run();
}

}  // namespace octet
