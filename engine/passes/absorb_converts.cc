// absorb_converts: a node reads and writes stored types itself, so that octet:Convert is left at borders only.
//
//   a:u8{s} -> Convert:f32 -> Reshape:f32 -> ..          =>  a -> Reshape:u8{s} -> Convert:f32 -> ..
//   .. -> Reshape:f32 -> Convert -> y:u8{s}              =>  .. -> Convert:u8{s} -> Reshape -> y:u8{s}
//   a:u8{s} -> Convert:f32 -> Convert -> y:u8{t}         =>  a -> Convert -> y        (nothing when s = t)
//   x:u8{s} -> Convert:f32 -> Conv(DequantizeLinear(w:i8)) -> y:f32            =>  x:u8{s} -> Conv(w:i8{ws}) -> y:f32
//   x:u8{s} -> Conv(w:i8{ws}):f32 -> Convert -> y:u8{t}  =>  x -> Conv(w) -> y:u8{t}        octet:MatMul alike
//   x:u8{s} -> Convert:f32 -> LSTM(DequantizeLinear(w, r:i8)) -> ..            =>  x:u8{s} -> LSTM(w, r:i8{ws}) -> ..
//   x:f32 -> LSTM(DequantizeLinear(w, r:i8)) -> ..       =>  x -> LSTM(w, r:i8{ws}) {dynamic_quant=1}     GRU, RNN alike
//   a:u8{s}, b:u8{t} -> Convert:f32 each -> Add:f32 -> Convert -> y:u8{v}      =>  a, b -> Add -> y:u8{v}
//   x:f32 -> Mul:f32 -> Convert -> y:u8{s}               =>  x -> Mul -> y:u8{s}
//
// Dynamic quantization only where the variant asks for int8. Elementwise operators, Concat, averages, Softmax and
// LayerNormalization like Add: only when all their activations are stored in 8 bits on both sides. What is left of
// elementwise operators stores what it computes from reals. A Relu or Clip that storing implies is dropped. Each rewrite is
// exact: a node computes on the reals that its integers stand for, and rounds where the Convert rounded.
#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include "engine/graph/stored_value.h"
#include "engine/ops/binary_rows.h"
#include "engine/ops/op.h"
#include "engine/ops/post_ops.h"
#include "engine/ops/resize.h"
#include "engine/passes/activation.h"
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/quantization.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

constexpr int kMaxSweeps = 16;

constexpr std::array kComputesOnTyped = {
    std::string_view("AveragePool"),
    std::string_view("GlobalAveragePool"),
    std::string_view("ReduceMean"),
    std::string_view("Softmax"),
    std::string_view("LayerNormalization"),
    std::string_view("Concat"),
    std::string_view("Gelu"),
    std::string_view("Resize"),
    std::string_view("Upsample"),
    std::string_view("InstanceNormalization"),
    std::string_view("GroupNormalization"),
};

// Movements that a quantization may be done before: none of them reads more than it writes, but for MaxPool, which is
// faster on 8 bits.
constexpr std::array kQuantizeBefore = {
    std::string_view("Transpose"),
    std::string_view("Concat"),
    std::string_view("MaxPool"),
    std::string_view("Pad"),
};

bool SameStorage(const Value& a, const Value& b) {
  return a.dtype == b.dtype && a.quant == b.quant;
}

class ConvertAbsorber {
 public:
  ConvertAbsorber(Graph& graph, Precision precision)
      : graph_(graph),
        wants_int8_(precision == Precision::kInt8 || precision == Precision::kInt8Dynamic) {}

  int Run() {
    int total = 0;
    for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
      int count = Sweep();
      total += count;
      if (count == 0) break;
      graph_.RemoveDead();
    }
    for (const NodeId id : graph_.OrderSnapshot()) total += wants_int8_ && QuantizeWhenRun(id);
    for (const NodeId id : graph_.OrderSnapshot()) total += StoreTyped(id);
    for (const NodeId id : graph_.OrderSnapshot()) total += FoldDequantize(graph_, id);
    return total;
  }

 private:
  int Sweep() {
    int count = 0;
    std::vector<NodeId> order = graph_.OrderSnapshot();
    for (const NodeId id : order) {  // Downwards: dequantizations sink.
      if (!graph_.alive(id)) continue;
      count += MergeConverts(id) || SinkDequantize(id) || DropImplied(id);
    }
    order = graph_.OrderSnapshot();
    for (auto it = order.rbegin(); it != order.rend(); ++it) {  // Upwards: quantizations rise.
      if (graph_.alive(*it)) count += MergeEqual(*it) || Raise(*it);
    }
    for (const NodeId id : graph_.OrderSnapshot()) {
      if (graph_.alive(id)) {
        count += AbsorbIntoMac(id) || AbsorbIntoRecurrent(id) || AbsorbIntoOperator(id);
      }
    }
    return count;
  }

  bool IsConvert(NodeId id) const { return graph_.node(id).is("Convert", kOctetDomain); }

  // The 8-bit value behind a Convert to F32, or kNone.
  ValueId Typed(ValueId value) const {
    const NodeId convert = ProducerIf(graph_, value, "Convert", kOctetDomain);
    if (convert == kNone || !IsPlainF32(graph_, value)) return kNone;
    const ValueId source = graph_.node(convert).input(0);
    const Value& typed = graph_.value(source);
    return IsTyped(typed) && typed.quant->per_tensor() ? source : kNone;
  }

  // The Convert to 8 bits that alone reads `value`, or kNone.
  NodeId Quantizer(ValueId value) const {
    const NodeId reader = graph_.SoleConsumer(value);
    if (reader == kNone || !IsConvert(reader) || !IsPlainF32(graph_, value)) return kNone;
    const Value& typed = graph_.value(graph_.node(reader).output(0));
    return IsTyped(typed) && typed.quant->per_tensor() ? reader : kNone;
  }

  // Convert(Convert(x)) through F32, where x is narrower: one Convert, or none.
  bool MergeConverts(NodeId id) {
    if (!IsConvert(id)) return false;
    const ValueId x = graph_.node(id).input(0);
    const Value& from = graph_.value(x);
    const Value& to = graph_.value(graph_.node(id).output(0));
    if (SameStorage(from, to)) return Bypass(graph_, id);
    const NodeId first = ProducerIf(graph_, x, "Convert", kOctetDomain);
    if (first == kNone || !IsPlainF32(graph_, x)) return false;
    const Value& source = graph_.value(graph_.node(first).input(0));
    if (!source.quant && source.dtype != DType::kBF16 && source.dtype != DType::kF16) return false;
    graph_.SetInput(id, 0, graph_.node(first).input(0));
    if (SameStorage(source, to)) Bypass(graph_, id);
    return true;
  }

  // Two Converts of one value to one type are one.
  bool MergeEqual(NodeId id) {
    if (!IsConvert(id)) return false;
    const ValueId output = graph_.node(id).output(0);
    const std::vector<NodeId> readers(graph_.consumers(graph_.node(id).input(0)).begin(),
                                      graph_.consumers(graph_.node(id).input(0)).end());
    for (const NodeId other : readers) {
      if (other == id || !IsConvert(other)) continue;
      const ValueId same = graph_.node(other).output(0);
      if (!SameStorage(graph_.value(same), graph_.value(output)) ||
          !MayReplace(graph_, output, same))
        continue;
      const auto order = graph_.order();
      if (std::ranges::find(order, other) > std::ranges::find(order, id)) continue;
      graph_.RemoveNode(id);
      graph_.ReplaceUses(output, same);
      return true;
    }
    return false;
  }

  // True for a node that hands stored integers through, if all its data has one quantization.
  bool MovesData(const Node& node) const {
    if (!node.post_ops.empty()) return false;
    if (node.is("Pad")) return PadsZeros(node);
    return MovesElements(node) || ResizesByCopying(node);
  }

  // A typed Pad fills with a real; 0 is always one that an integer stands for.
  bool PadsZeros(const Node& pad) const {
    if (pad.version < 11) {
      const auto value = pad.attributes.Float("value", 0);
      return value.ok() && *value == 0;
    }
    return pad.input(2) == kNone || ScalarOf(graph_, pad.input(2)) == 0.0F;
  }

  // The slots of float data of a movement: of a Concat all, else the first.
  std::vector<size_t> DataSlots(const Node& node) const {
    std::vector<size_t> slots = {0};
    for (size_t i = 1; node.is("Concat") && i < node.inputs.size(); ++i) slots.push_back(i);
    return slots;
  }

  bool SinkDequantize(NodeId id) {
    const Node node = graph_.node(id);
    if (node.inputs.empty() || Typed(node.input(0)) == kNone || !MovesData(node)) return false;
    std::vector<ValueId> sources;
    for (const size_t slot : DataSlots(node)) {
      const ValueId source = Typed(node.input(slot));
      if (source == kNone) return false;
      if (!sources.empty() && !SameStorage(graph_.value(source), graph_.value(sources[0])))
        return false;
      sources.push_back(source);
    }
    for (size_t slot = sources.size();
         slot < node.inputs.size() && !node.is("Pad") && !ResizesByCopying(node); ++slot) {
      if (IsPlainF32(graph_, node.input(slot))) return false;  // More data than is known here.
    }
    for (const ValueId out : node.outputs) {
      if (out != kNone && !IsPlainF32(graph_, out)) return false;
    }
    const Value storage = graph_.value(sources[0]);
    if (node.is("Concat") && Quantizer(node.output(0)) != kNone) {
      // It requantizes while it copies (AbsorbIntoOperator).
      const Value& wanted = graph_.value(graph_.node(Quantizer(node.output(0))).output(0));
      if (!SameStorage(storage, wanted)) return false;
    }
    const std::vector<size_t> slots = DataSlots(node);
    for (size_t i = 0; i < slots.size(); ++i) graph_.SetInput(id, slots[i], sources[i]);
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const ValueId reals = node.outputs[i];
      if (reals == kNone) continue;
      const ValueId typed = AddValue(graph_, graph_.value(reals).name + "_q", storage.dtype,
                                     graph_.value(reals).shape, storage.quant);
      graph_.SetOutput(id, i, typed);
      graph_.InsertNodeAfter(id, MakeNode("Convert", node, {typed}, {reals}, kOctetDomain));
    }
    return true;
  }

  // As far up as it goes.
  bool Raise(NodeId id) {
    std::vector<NodeId> open = {id};
    int count = 0;
    while (!open.empty()) {
      const NodeId next = open.back();
      open.pop_back();
      count += RaiseQuantize(next, open);
    }
    return count > 0;
  }

  // One step; the Converts that it makes are added to `made`.
  bool RaiseQuantize(NodeId id, std::vector<NodeId>& made) {
    if (!IsConvert(id)) return false;
    const ValueId reals = graph_.node(id).input(0);
    if (Quantizer(reals) != id) return false;
    const NodeId mover = graph_.producer(reals);
    if (mover == kNone || graph_.node(mover).outputs.size() != 1 || !MovesData(graph_.node(mover)))
      return false;
    const Node node = graph_.node(mover);
    const OpDef* def = FindOp(node);
    const bool listed =
        std::ranges::find(kQuantizeBefore, std::string_view(node.op)) != kQuantizeBefore.end();
    if (!def->traits.view && !listed) return false;
    const std::vector<size_t> slots = DataSlots(node);
    for (const size_t slot : slots) {
      if (!IsPlainF32(graph_, node.input(slot)) || graph_.value(node.input(slot)).is_constant())
        return false;
    }
    // Dequantized on every side: it requantizes while it copies (AbsorbIntoOperator).
    const auto typed_slot = [&](size_t slot) { return Typed(node.input(slot)) != kNone; };
    if (node.is("Concat") && std::ranges::all_of(slots, typed_slot)) return false;
    const Value storage = graph_.value(graph_.node(id).output(0));
    for (const size_t slot : slots) {
      const Value& from = graph_.value(node.input(slot));
      const ValueId typed =
          AddValue(graph_, from.name + "_q", storage.dtype, from.shape, storage.quant);
      made.push_back(graph_.InsertNodeBefore(
          mover, MakeNode("Convert", node, {node.input(slot)}, {typed}, kOctetDomain)));
      graph_.SetInput(mover, slot, typed);
    }
    TakeOver(graph_, mover, id);
    return true;
  }

  // The integers behind a DequantizeLinear of constant weights as kernels take them, or kNone. Shared weights stay
  // shared.
  ValueId WeightsOf(const Node& mac) {
    const ValueId reals = mac.input(1);
    const auto weights = AsQuantizedConstant(graph_, reals);
    if (!weights || (!IsConvolution(mac) && RankOf(graph_, weights->value) != 2)) return kNone;
    const auto key = std::pair(reals, WeightAxis(graph_, mac));
    const auto [it, fresh] = weights_.try_emplace(key, kNone);
    if (fresh) it->second = TypedWeights(graph_, *weights, key.second);
    return it->second;
  }

  // Both sides of a product at once: integers times reals is nothing that kernels know.
  bool TypeProduct(NodeId id) {
    const Node& node = graph_.node(id);
    const ValueId x = Typed(node.input(0));
    if (!IsMac(node) || x == kNone || !TakesIntegers(node)) return false;
    ValueId w = node.is("MatMul", kOctetDomain) ? Typed(node.input(1)) : kNone;
    if (w == kNone) w = WeightsOf(node);
    if (w == kNone) return false;
    graph_.SetInput(id, 0, x);
    graph_.SetInput(id, 1, w);
    return true;
  }

  // Kernels add integers with a zero point to their sums, but multiply by reals alone.
  static bool Multiplies(const Node& mac, size_t slot) {
    return std::ranges::any_of(mac.post_ops, [&](const PostOp& op) {
      return op.kind == PostOp::Kind::kMul && op.operand == static_cast<int>(slot);
    });
  }

  bool AbsorbIntoMac(NodeId id) {
    const bool typed_now = TypeProduct(id);
    const Node& node = graph_.node(id);
    if (!IsMac(node) || !IsTyped(graph_.value(node.input(0)))) return false;
    bool changed = typed_now;
    for (size_t slot = 3; slot < graph_.node(id).inputs.size(); ++slot) {
      const ValueId typed = Typed(graph_.node(id).input(slot));
      if (typed == kNone || Multiplies(graph_.node(id), slot)) continue;
      graph_.SetInput(id, slot, typed);
      changed = true;
    }
    const NodeId quantizer = Quantizer(graph_.node(id).output(0));
    if (quantizer == kNone) return changed;
    TakeOver(graph_, id, quantizer);
    return true;
  }

  bool AbsorbIntoRecurrent(NodeId id) {
    if (!IsRecurrent(graph_.node(id))) return false;
    const ValueId x = Typed(graph_.node(id).input(0));
    const bool typed_now = x != kNone && TypeRecurrentWeights(graph_, id);
    if (typed_now) graph_.SetInput(id, 0, x);
    if (!IsTyped(graph_.value(graph_.node(id).input(0)))) return false;
    const ValueId y = graph_.node(id).output(0);
    const NodeId quantizer = y == kNone ? kNone : Quantizer(y);
    if (quantizer == kNone) return typed_now;
    TakeOver(graph_, id, quantizer);
    return true;
  }

  // A recurrent layer whose weights alone are integers: its state is quantized when it runs, and so is x.
  bool QuantizeWhenRun(NodeId id) {
    if (!graph_.alive(id) || !IsRecurrent(graph_.node(id))) return false;
    if (!IsPlainF32(graph_, graph_.node(id).input(0)) || !TypeRecurrentWeights(graph_, id))
      return false;
    graph_.mutable_node(id).attributes.Set("dynamic_quant", int64_t{1});
    return true;
  }

  bool ComputesOnTyped(const Node& node) const {
    const OpDef* def = FindOp(node);
    if (def == nullptr || node.outputs.size() != 1) return false;
    if (def->traits.elementwise_unary || def->traits.elementwise_broadcast)
      return !IsConvert(graph_.producer(node.output(0)));
    return std::ranges::find(kComputesOnTyped, std::string_view(node.op)) != kComputesOnTyped.end();
  }

  bool AbsorbIntoOperator(NodeId id) {
    const Node& node = graph_.node(id);
    if (!ComputesOnTyped(node)) return false;
    const NodeId quantizer = Quantizer(node.output(0));
    if (quantizer == kNone) return false;
    std::vector<std::pair<size_t, ValueId>> sources;
    for (size_t slot = 0; slot < node.inputs.size(); ++slot) {
      const ValueId input = node.input(slot);
      if (!IsPlainF32(graph_, input) || graph_.value(input).is_constant()) continue;
      const ValueId typed = Typed(input);
      if (typed == kNone) return false;
      sources.emplace_back(slot, typed);
    }
    if (sources.empty()) return false;
    for (const auto& [slot, typed] : sources) graph_.SetInput(id, slot, typed);
    TakeOver(graph_, id, quantizer);
    return true;
  }

  // An elementwise operator of reals that are stored otherwise rounds its results itself. After all else: an operator
  // whose operands become typed is one on integers.
  bool StoreTyped(NodeId id) {
    if (!graph_.alive(id)) return false;
    const Node& node = graph_.node(id);
    const OpDef* def = FindOp(node);
    if (def == nullptr || node.outputs.size() != 1 || IsConvert(id)) return false;
    const bool binary = FindBinaryRow(node.op) != nullptr && OwnInputCount(node) == 2;
    if (!def->traits.elementwise_unary && !binary) return false;
    const NodeId quantizer = Quantizer(node.output(0));
    if (quantizer == kNone) return false;
    for (const ValueId input : node.inputs) {
      if (input != kNone && !HasRealFormat(graph_.value(input))) return false;
    }
    TakeOver(graph_, id, quantizer);
    DropImplied(id);
    return true;
  }

  // The last post-op of a node, or an activation between equally stored values, that storing does anyway.
  bool DropImplied(NodeId id) {
    Node& node = graph_.mutable_node(id);
    if (node.output(0) == kNone) return false;
    const Value& output = graph_.value(node.output(0));
    if (!node.post_ops.empty() && ImpliedByStorage(node.post_ops.back(), output)) {
      node.post_ops.pop_back();
      return true;
    }
    if (node.inputs.empty() || node.input(0) == kNone || !node.post_ops.empty() || !IsTyped(output))
      return false;
    const auto activation = AsPostOp(graph_, node);
    if (!activation || !ImpliedByStorage(*activation, output)) return false;
    return SameStorage(graph_.value(node.input(0)), output) && Bypass(graph_, id);
  }

  Graph& graph_;
  const bool wants_int8_;
  std::map<std::pair<ValueId, int>, ValueId> weights_;  ///< By dequantized value and axis.
};

}  // namespace

absl::StatusOr<int> AbsorbConverts(Graph& graph, const PassContext& context) {
  return ConvertAbsorber(graph, context.precision).Run();
}

}  // namespace octet
