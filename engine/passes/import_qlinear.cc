// import_qlinear: the QOperator dialect in Q/DQ form, so that import_qdq alone decides what runs on integers.
//
//   x:u8, w:i8, b:i32 -> QLinearConv {xs, xz, ws, wz, ys, yz} -> y:u8
//     =>  DequantizeLinear(x):f32, DequantizeLinear(w):f32, b * xs * ws:f32 -> Conv:f32 -> QuantizeLinear -> y:u8
//
// Alike: QLinearMatMul; com.microsoft QGemm, QLinearAdd, QLinearMul, QLinearConcat, QLinearAveragePool,
// QLinearGlobalAveragePool, QLinearSigmoid, QLinearLeakyRelu. Nodes whose scales are no constants stay as they are, as
// do those whose scales DequantizeLinear cannot take: a tensor of more than one axis, or along an axis that is not known.
// Source: ONNX QLinearConv, QLinearMatMul; ONNX Runtime's contrib operators.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/quantization.h"
#include "engine/passes/rewrite.h"
#include "engine/tensor/format.h"

namespace octet {
namespace {

// A quantized operand in a node's input list: integers, scale and zero point at these slots.
struct Slots {
  size_t value;
  size_t scale;
  size_t zero_point;
};

class QLinearImporter {
 public:
  QLinearImporter(Graph& graph, NodeId id) : graph_(graph), id_(id), node_(graph.node(id)) {}

  bool Run() {
    if (node_.is("QLinearConv")) return Conv();
    if (node_.is("QLinearMatMul")) return Plain("MatMul", {{0, 1, 2}, {3, 4, 5}}, {0, 6, 7});
    if (node_.domain != kMicrosoftDomain) return false;
    if (node_.op == "QGemm") return Gemm();
    if (node_.op == "QLinearAdd") return Plain("Add", {{0, 1, 2}, {3, 4, 5}}, {0, 6, 7});
    if (node_.op == "QLinearMul") return Plain("Mul", {{0, 1, 2}, {3, 4, 5}}, {0, 6, 7});
    if (node_.op == "QLinearSigmoid") return Plain("Sigmoid", {{0, 1, 2}}, {0, 3, 4});
    if (node_.op == "QLinearLeakyRelu") return Plain("LeakyRelu", {{0, 1, 2}}, {0, 3, 4});
    if (node_.op == "QLinearConcat") return Concat();
    if (node_.op != "QLinearAveragePool" && node_.op != "QLinearGlobalAveragePool") return false;
    return Plain(std::string_view(node_.op).substr(7), {{0, 1, 2}}, {0, 3, 4});
  }

 private:
  // The node becomes `op` on dequantized operands. Attributes stay: they mean the same in `op`.
  bool Plain(std::string_view op, std::vector<Slots> operands, Slots result) {
    if (!AllConstant(operands) || !IsConstant(result)) return false;
    for (const Slots& slots : operands) {
      if (!ScalesFit(slots, Axis(op, slots))) return false;
    }
    std::vector<ValueId> inputs;
    for (const Slots& slots : operands) inputs.push_back(Dequantized(slots, Axis(op, slots)));
    Finish(op, std::move(inputs), result);
    return true;
  }

  bool Concat() {
    std::vector<Slots> operands;
    for (size_t i = 2; i + 2 < node_.inputs.size(); i += 3) operands.push_back({i, i + 1, i + 2});
    return !operands.empty() && Plain("Concat", std::move(operands), {0, 0, 1});
  }

  bool Conv() {
    const Slots x{0, 1, 2};
    const Slots w{3, 4, 5};
    const Slots y{0, 6, 7};
    if (!AllConstant({x, w}) || !IsConstant(y)) return false;
    ValueId bias = kNone;
    if (node_.input(8) != kNone) {
      bias = Bias(8, 1.0F, x, w);
      if (bias == kNone) return false;
    }
    std::vector<ValueId> inputs = {Dequantized(x, 0), Dequantized(w, 0)};
    if (bias != kNone) inputs.push_back(bias);
    Finish("Conv", std::move(inputs), y);
    return true;
  }

  // Y = alpha * A * B + C in integers: C's scale is alpha * a_scale * b_scale. Without y_scale, Y is F32.
  bool Gemm() {
    const Slots a{0, 1, 2};
    const Slots b{3, 4, 5};
    const Slots y{0, 7, 8};
    const bool quantizes = node_.input(7) != kNone;
    const auto alpha = node_.attributes.Float("alpha", 1.0F);
    if (!AllConstant({a, b}) || (quantizes && !IsConstant(y)) || !alpha.ok()) return false;
    ValueId bias = kNone;
    if (node_.input(6) != kNone) {
      bias = Bias(6, *alpha, a, b);
      if (bias == kNone) return false;
    }
    const int64_t axis = node_.attributes.IntOr("transB", 0) != 0 ? 0 : 1;
    std::vector<ValueId> inputs = {Dequantized(a, 0), Dequantized(b, axis)};
    if (bias != kNone) inputs.push_back(bias);
    if (quantizes) {
      Finish("Gemm", std::move(inputs), y);
      return true;
    }
    Node gemm = MakeNode("Gemm", node_, std::move(inputs), {});
    gemm.attributes = node_.attributes;
    Replace(graph_, id_, std::move(gemm));
    return true;
  }

  // QLinearMatMul's left side may have a scale for each of its M rows, the right side one for each of its N columns.
  static int64_t Axis(std::string_view op, const Slots& slots) {
    if (op != "MatMul") return 1;
    return slots.value == 0 ? -2 : -1;
  }

  // One scale, or one for each index of an axis that is counted from the last one.
  bool ScalesFit(const Slots& slots, int64_t axis) const {
    int64_t scales = ConstantOf(graph_, node_.input(slots.scale))->elements();
    if (const Tensor* zeros = ConstantOf(graph_, node_.input(slots.zero_point)))
      scales = std::max(scales, zeros->elements());
    if (scales == 1) return true;
    const std::optional<Shape>& shape = graph_.value(node_.input(slots.value)).shape;
    if (axis >= 0 || !shape || shape->rank() < 2) return false;
    const int64_t extent = (*shape)[static_cast<int>(shape->rank() + axis)];
    return extent == scales || extent == kUnknownDim;
  }

  // A scale for each index may come with one zero point for all, and the other way round.
  bool IsConstant(const Slots& slots) const {
    if (!IsConstantVector(node_.input(slots.scale))) return false;
    if (node_.input(slots.zero_point) == kNone) return true;
    if (!IsConstantVector(node_.input(slots.zero_point))) return false;
    const int64_t scales = ConstantOf(graph_, node_.input(slots.scale))->elements();
    const int64_t zeros = ConstantOf(graph_, node_.input(slots.zero_point))->elements();
    return scales == zeros || scales == 1 || zeros == 1;
  }
  bool IsConstantVector(ValueId id) const {
    const Tensor* tensor = ConstantOf(graph_, id);
    return tensor != nullptr && tensor->shape().rank() <= 1;
  }
  bool AllConstant(const std::vector<Slots>& operands) const {
    for (const Slots& slots : operands) {
      if (!IsConstant(slots) || node_.input(slots.value) == kNone) return false;
    }
    return true;
  }

  ValueId Dequantized(const Slots& slots, int64_t axis) {
    const ValueId integers = node_.input(slots.value);
    const std::optional<Shape> shape = graph_.value(integers).shape;
    const ValueId reals =
        AddValue(graph_, Format("{}_real", graph_.value(integers).name), DType::kF32, shape);
    const ValueId scale = node_.input(slots.scale);
    const ValueId zero_point = node_.input(slots.zero_point);
    Node dq = MakeNode("DequantizeLinear", node_, {integers, Repeated(scale, zero_point)}, {reals});
    if (zero_point != kNone) dq.inputs.push_back(Repeated(zero_point, scale));
    const int rank = shape ? shape->rank() : 0;
    dq.attributes.Set("axis", axis < 0 ? std::max<int64_t>(rank + axis, 0) : axis);
    graph_.InsertNodeBefore(id_, std::move(dq));
    return reals;
  }

  // `value`, which is repeated where it is one element and `other` several: DequantizeLinear takes as many of both.
  ValueId Repeated(ValueId value, ValueId other) {
    const Tensor* beside = ConstantOf(graph_, other);
    const Tensor single = *ConstantOf(graph_, value);
    if (beside == nullptr || single.elements() != 1 || beside->elements() == 1) return value;
    const Shape shape = beside->shape();
    Tensor repeated(single.dtype(), shape);
    const size_t bytes = single.bytes();
    auto* to = static_cast<std::byte*>(repeated.mutable_data());
    for (int64_t i = 0; i < shape.elements(); ++i)
      std::memcpy(to + static_cast<size_t>(i) * bytes, single.data(), bytes);
    return graph_.AddConstant(graph_.value(value).name, std::move(repeated));
  }

  // The I32 bias at `slot` as F32: bias * factor * x_scale * w_scale[c]; kNone when it is not constant, or where several
  // scales do not run along its last axis alone.
  ValueId Bias(size_t slot, float factor, const Slots& x, const Slots& w) {
    const auto integers = IntsOf(graph_, node_.input(slot));
    const auto x_scale = ScalarOf(graph_, node_.input(x.scale));
    const auto w_scale = FloatsOf(graph_, node_.input(w.scale));
    if (!integers || !x_scale || !w_scale || w_scale->empty()) return kNone;
    const Shape& extents = *graph_.value(node_.input(slot)).shape;
    const auto scales = std::ssize(*w_scale);
    const bool along_last = extents.rank() > 0 && extents.back() == scales;
    if (scales != 1 && (!along_last || std::ssize(*integers) != scales)) return kNone;
    std::vector<float> reals;
    for (size_t i = 0; i < integers->size(); ++i) {
      const double scale =
          static_cast<double>(*x_scale) * (*w_scale)[w_scale->size() == 1 ? 0 : i] * factor;
      reals.push_back(static_cast<float>(static_cast<double>((*integers)[i]) * scale));
    }
    const Value& bias = graph_.value(node_.input(slot));
    const std::string name = bias.name;
    const Shape shape = *bias.shape;
    return AddFloats(graph_, name, shape, std::move(reals));
  }

  void Finish(std::string_view op, std::vector<ValueId> inputs, const Slots& result) {
    const ValueId output = node_.output(0);
    const ValueId reals = AddValue(graph_, Format("{}_real", graph_.value(output).name),
                                   DType::kF32, graph_.value(output).shape);
    Node plain = MakeNode(op, node_, std::move(inputs), {reals});
    plain.attributes = node_.attributes;
    graph_.InsertNodeBefore(id_, std::move(plain));
    Node quantize = MakeNode("QuantizeLinear", node_, {reals, node_.input(result.scale)}, {});
    if (node_.input(result.zero_point) != kNone) {
      quantize.inputs.push_back(node_.input(result.zero_point));
    } else if (graph_.value(output).dtype == DType::kI8) {
      quantize.inputs.push_back(SignedZeros(*ConstantOf(graph_, node_.input(result.scale))));
    }
    Replace(graph_, id_, std::move(quantize));
  }

  // A QuantizeLinear without zero point makes UINT8; the operators here keep the type of their inputs.
  ValueId SignedZeros(const Tensor& scale) {
    Tensor zeros(DType::kI8, scale.shape());
    std::ranges::fill(zeros.mutable_span<int8_t>(), int8_t{0});
    return graph_.AddConstant(Format("{}_zero", node_.name), std::move(zeros));
  }

  Graph& graph_;
  const NodeId id_;
  const Node node_;  // A copy: the node goes.
};

}  // namespace

absl::StatusOr<int> ImportQLinear(Graph& graph, const PassContext& /*context*/) {
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    if (QLinearImporter(graph, id).Run()) ++count;
  }
  return count;
}

}  // namespace octet
