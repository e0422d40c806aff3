// com.microsoft's quantized elementwise operators and concat: QLinearAdd, QLinearMul, QLinearSigmoid,
// QLinearLeakyRelu, QLinearConcat.
// Source: ONNX Runtime, docs/ContribOperators.md.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <optional>
#include <vector>

#include "engine/ops/broadcast.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/op_list.h"
#include "engine/ops/qlinear_operand.h"
#include "engine/tensor/format.h"
#include "engine/tensor/parallel.h"

namespace octet {
namespace {

using Inputs = std::span<const ConstTensorView>;
using Outputs = std::span<const TensorView>;

// ---- QLinearAdd, QLinearMul: A, A_scale, A_zero, B, B_scale, B_zero, C_scale, C_zero

absl::Status InferQLinearBinary(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 7, 8));
  OCTET_RETURN_IF_ERROR(ExpectQuantized(context, 0));
  OCTET_RETURN_IF_ERROR(ExpectQuantized(context, 3));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 6, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 7));
  for (const size_t i : {1, 2, 4, 5, 6, 7}) OCTET_RETURN_IF_ERROR(ExpectScalar(context, i));
  if (!context.shape(0) || !context.shape(3))
    return context.SetOutput(0, context.dtype(0), std::nullopt);
  std::optional<Shape> out = Broadcast(*context.shape(0), *context.shape(3));
  if (!out) {
    return context.Error(Format("cannot broadcast {} with {}", context.shape(0)->ToString(),
                                context.shape(3)->ToString()));
  }
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

/// C = quantize(combine(dequantize(A), dequantize(B))).
template <typename Combine>
absl::StatusOr<Kernel> MakeQLinearBinary(const KernelContext& context, Combine combine) {
  const Shape shapes[] = {context.inputs[0].shape(), context.inputs[3].shape()};
  const DType dtype = context.outputs[0].dtype;
  return [plan = BroadcastPlan(context.outputs[0].shape, shapes), dtype, combine](Inputs inputs,
                                                                                  Outputs outputs) {
    const RunQuant a = RunQuant::At(inputs, 1);
    const RunQuant b = RunQuant::At(inputs, 4);
    const RunQuant c = RunQuant::At(inputs, 6);
    uint8_t* y = outputs[0].as<uint8_t>();
    ParallelFor(plan.elements(), int64_t{16} * 1024, [&](int64_t begin, int64_t end) {
      plan.ForEachRow(begin, end, [&](int64_t out, std::span<const int64_t> in, int64_t n) {
        for (int64_t i = 0; i < n; ++i) {
          const float left = a.Real(ByteAt(inputs[0], in[0] + i * plan.stride(0)));
          const float right = b.Real(ByteAt(inputs[3], in[1] + i * plan.stride(1)));
          y[out + i] = static_cast<uint8_t>(
              QuantizeOne(combine(left, right), c.scale, c.zero_point, RangeOf(dtype)));
        }
      });
    });
    return absl::OkStatus();
  };
}
absl::StatusOr<Kernel> MakeQLinearAdd(const KernelContext& context) {
  return MakeQLinearBinary(context, std::plus<float>());
}
absl::StatusOr<Kernel> MakeQLinearMul(const KernelContext& context) {
  return MakeQLinearBinary(context, std::multiplies<float>());
}

// ---- QLinearSigmoid, QLinearLeakyRelu

absl::Status InferQLinearUnary(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectQuantizedUnary(context));
  return context.SetOutput(0, context.dtype(0), context.shape(0));
}

/// y's byte for every byte of x.
using ByteTable = std::array<uint8_t, 256>;
template <typename Fn>
ByteTable TableOf(DType dtype, const RunQuant& x, const RunQuant& y, const Fn& fn) {
  ByteTable table;
  for (int byte = 0; byte < 256; ++byte) {
    const int32_t q = dtype == DType::kU8 ? byte : static_cast<int8_t>(byte);
    table[byte] =
        static_cast<uint8_t>(QuantizeOne(fn(x.Real(q)), y.scale, y.zero_point, RangeOf(dtype)));
  }
  return table;
}

void MapBytes(const ByteTable& table, const uint8_t* src, uint8_t* dst, int64_t count) {
  ParallelFor(count, int64_t{32} * 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) dst[i] = table[src[i]];
  });
}

template <typename Fn>
Kernel TableKernel(DType dtype, Fn fn) {
  return [=](Inputs inputs, Outputs outputs) {
    const ByteTable table = TableOf(dtype, RunQuant::At(inputs, 1), RunQuant::At(inputs, 3), fn);
    MapBytes(table, inputs[0].as<uint8_t>(), outputs[0].as<uint8_t>(), inputs[0].elements());
    return absl::OkStatus();
  };
}

absl::StatusOr<Kernel> MakeQLinearSigmoid(const KernelContext& context) {
  return TableKernel(context.inputs[0].dtype(),
                     [](float x) { return 1.0f / (1.0f + std::exp(-x)); });
}

absl::StatusOr<Kernel> MakeQLinearLeakyRelu(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const float alpha, context.node.attributes.Float("alpha", 0.01f));
  return TableKernel(context.inputs[0].dtype(), [alpha](float x) { return x < 0 ? alpha * x : x; });
}

// ---- QLinearConcat: Y_scale, Y_zero, then X_i, X_i_scale, X_i_zero for every part

absl::Status InferQLinearConcat(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 5, SIZE_MAX));
  if (context.input_count() % 3 != 2)
    return context.Error("takes two inputs and three for each part");
  if (!context.attributes().has("axis")) return context.Error("lacks its attribute 'axis'");
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, {DType::kU8, DType::kI8}));
  OCTET_RETURN_IF_ERROR(ExpectScalar(context, 0));
  OCTET_RETURN_IF_ERROR(ExpectScalar(context, 1));
  std::optional<Shape> out = context.shape(2);
  for (size_t i = 2; i < context.input_count(); i += 3) {
    if (!context.has_input(i) || !context.has_input(i + 1))
      return context.Error(Format("part {} is missing", i / 3));
    OCTET_RETURN_IF_ERROR(ExpectQuantized(context, i));
    OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 1, i));
    OCTET_RETURN_IF_ERROR(ExpectScalar(context, i + 1));
    OCTET_RETURN_IF_ERROR(ExpectScalar(context, i + 2));
    if (!out || !context.shape(i)) {
      out = std::nullopt;
      continue;
    }
    const Shape& part = *context.shape(i);
    OCTET_ASSIGN_OR_RETURN(const int axis, AxisAttribute(context, "axis", 1, out->rank()));
    bool agrees = part.rank() == out->rank();
    for (int d = 0; agrees && i > 2 && d < part.rank(); ++d) {
      int64_t& extent = (*out)[d];
      if (d == axis)
        extent = extent == kUnknownDim || part[d] == kUnknownDim ? kUnknownDim : extent + part[d];
      else if (extent == kUnknownDim)
        extent = part[d];
      else
        agrees = part[d] == kUnknownDim || part[d] == extent;
    }
    if (!agrees) {
      return context.Error(Format("part {} of shape {} does not join with {}", i / 3,
                                  part.ToString(), out->ToString()));
    }
  }
  return context.SetOutput(0, context.dtype(1), std::move(out));
}

absl::StatusOr<Kernel> MakeQLinearConcat(const KernelContext& context) {
  const TensorSpec out = context.outputs[0];
  OCTET_ASSIGN_OR_RETURN(const int64_t attribute, context.node.attributes.Int("axis", 1));
  OCTET_ASSIGN_OR_RETURN(const int axis,
                         NormalizeNodeAxis(context.node, attribute, out.shape.rank()));
  const int64_t rows = out.shape.elements(0, axis);
  const int64_t inner = out.shape.elements(axis + 1, out.shape.rank());
  return [=](Inputs inputs, Outputs outputs) {
    const RunQuant y = RunQuant::At(inputs, 0);
    int64_t first = 0;
    for (size_t i = 2; i < inputs.size(); i += 3) {
      const RunQuant x = RunQuant::At(inputs, i + 1);
      const ByteTable table = TableOf(out.dtype, x, y, [](float real) { return real; });
      const int64_t run = inputs[i].shape()[axis] * inner;
      const bool same = x.scale == y.scale && x.zero_point == y.zero_point;
      for (int64_t r = 0; r < rows; ++r) {
        const uint8_t* src = inputs[i].as<uint8_t>() + r * run;
        uint8_t* dst = outputs[0].as<uint8_t>() + r * out.shape[axis] * inner + first;
        if (same)
          std::memcpy(dst, src, static_cast<size_t>(run));
        else
          MapBytes(table, src, dst, run);
      }
      first += run;
    }
    return absl::OkStatus();
  };
}

}  // namespace

std::span<const OpDef> QLinearOps() {
  static constexpr OpDef kOps[] = {
      {kMicrosoftDomain, "QLinearAdd", 1, INT_MAX, InferQLinearBinary, MakeQLinearAdd},
      {kMicrosoftDomain, "QLinearMul", 1, INT_MAX, InferQLinearBinary, MakeQLinearMul},
      {kMicrosoftDomain, "QLinearSigmoid", 1, INT_MAX, InferQLinearUnary, MakeQLinearSigmoid},
      {kMicrosoftDomain, "QLinearLeakyRelu", 1, INT_MAX, InferQLinearUnary, MakeQLinearLeakyRelu},
      {kMicrosoftDomain, "QLinearConcat", 1, INT_MAX, InferQLinearConcat, MakeQLinearConcat},
  };
  return kOps;
}

}  // namespace octet
