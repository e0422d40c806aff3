// Integer convolution and matrix product with requantized results: QLinearConv, QLinearMatMul and
// com.microsoft QGemm. Sums are exact in int32; one float multiplication and one rounding follow, as in ONNX
// Runtime.
#include <algorithm>
#include <optional>
#include <vector>

#include "engine/ops/conv_loops.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/op_list.h"
#include "engine/ops/qlinear_operand.h"
#include "engine/tensor/format.h"
#include "engine/tensor/parallel.h"

namespace octet {
namespace {

// ---- QLinearConv: x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, B

absl::Status InferQLinearConv(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 8, 9));
  OCTET_RETURN_IF_ERROR(ExpectQuantized(context, 0));
  OCTET_RETURN_IF_ERROR(ExpectQuantized(context, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 6, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 7, {DType::kU8, DType::kI8}));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 8, {DType::kI32}));
  for (const size_t i : {1, 2, 6, 7}) OCTET_RETURN_IF_ERROR(ExpectScalar(context, i));
  OCTET_RETURN_IF_ERROR(ExpectPerChannel(context, 4, 3, true));
  OCTET_RETURN_IF_ERROR(ExpectPerChannel(context, 5, 3, true));
  OCTET_RETURN_IF_ERROR(ExpectPerChannel(context, 8, 3, false));
  OCTET_ASSIGN_OR_RETURN(std::optional<Shape> out, InferConvOutput(context, 0, 3));
  return context.SetOutput(0, context.dtype(7), std::move(out));
}

/// Multipliers x_scale * w_scale[c] / y_scale: one, or one per output channel.
std::vector<float> Multipliers(float x_scale, ConstTensorView w_scale, float y_scale) {
  std::vector<float> multipliers;
  for (const float scale : w_scale.span<float>()) multipliers.push_back(x_scale * scale / y_scale);
  return multipliers;
}

absl::StatusOr<Kernel> MakeQLinearConv(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(
      const ConvGeometry g,
      MakeConvGeometry(context.node, context.inputs[0].shape(), context.inputs[3].shape(), false));
  const IntRange range = RangeOf(context.outputs[0].dtype);
  return KernelFor(kByteKernels, context.inputs[0].dtype(), context.node, [&]<typename X>() {
    return KernelFor(
        kByteKernels, context.inputs[3].dtype(), context.node, [&]<typename W>() -> Kernel {
          return [g, range](std::span<const ConstTensorView> inputs,
                            std::span<const TensorView> outputs) {
            const RunQuant x = RunQuant::At(inputs, 1);
            const RunQuant y = RunQuant::At(inputs, 6);
            const std::vector<int32_t> w_zeros = ZeroPointsOf(inputs, 5);
            const std::vector<float> multipliers = Multipliers(x.scale, inputs[4], y.scale);
            const int32_t* bias = inputs.size() > 8 ? inputs[8].as<int32_t>() : nullptr;
            const int64_t channels = g.groups * g.out_channels;
            Convolve<int64_t>(
                g, inputs[0].as<X>(), inputs[3].as<W>(), {x.zero_point, w_zeros},
                [&](int64_t n, int64_t oc, int64_t first, std::span<const int64_t> row) {
                  uint8_t* out =
                      outputs[0].as<uint8_t>() + (n * channels + oc) * g.out_plane() + first;
                  const float multiplier = multipliers[multipliers.size() == 1 ? 0 : oc];
                  const int32_t offset = bias != nullptr ? bias[oc] : 0;
                  for (size_t i = 0; i < row.size(); ++i) {
                    out[i] = static_cast<uint8_t>(
                        Requantize(row[i] + offset, multiplier, y.zero_point, range));
                  }
                });
            return absl::OkStatus();
          };
        });
  });
}

/// A scale (input i) and its zero point (input j) have as many elements.
absl::Status ExpectSameCount(const InferContext& context, size_t i, size_t j) {
  if (!context.has_input(i) || !context.has_input(j)) return absl::OkStatus();
  const auto& scale = context.shape(i);
  const auto& zero = context.shape(j);
  if (!scale || !zero || !scale->is_static() || !zero->is_static() ||
      scale->elements() == zero->elements()) {
    return absl::OkStatus();
  }
  return context.Error(
      Format("scale {} and zero point {} differ in shape", scale->ToString(), zero->ToString()));
}

// ---- QLinearMatMul: a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero

absl::Status InferQLinearMatMul(InferContext& context) {
  constexpr DTypeSet kBytes = {DType::kU8, DType::kI8};
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 8, 8));
  DTypeSet scales = {DType::kF32};
  if (context.node().version >= 21) scales = scales | DTypeSet{DType::kF16, DType::kBF16};
  for (const size_t i : {1, 4, 6}) OCTET_RETURN_IF_ERROR(ExpectDType(context, i, scales));
  for (const size_t i : {0, 3}) {
    OCTET_RETURN_IF_ERROR(ExpectDType(context, i, kBytes));
    OCTET_RETURN_IF_ERROR(ExpectSameDType(context, i, i + 2));
  }
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 7, {DType::kU8, DType::kI8}));
  OCTET_RETURN_IF_ERROR(ExpectScalar(context, 6));
  OCTET_RETURN_IF_ERROR(ExpectScalar(context, 7));
  OCTET_RETURN_IF_ERROR(ExpectSameCount(context, 1, 2));
  OCTET_RETURN_IF_ERROR(ExpectSameCount(context, 4, 5));
  if (!context.shape(0) || !context.shape(3))
    return context.SetOutput(0, context.dtype(7), std::nullopt);
  Shape a = *context.shape(0);
  Shape b = *context.shape(3);
  if (a.rank() == 0 || b.rank() == 0) return context.Error("a scalar is no matrix");
  const bool row = a.rank() == 1;
  const bool column = b.rank() == 1;
  if (row) a = Shape{1, a[0]};
  if (column) b = Shape{b[0], 1};
  const int64_t k = a.back();
  const int64_t bk = b[b.rank() - 2];
  const auto batch =
      Broadcast(Shape(a.dims().first(a.rank() - 2)), Shape(b.dims().first(b.rank() - 2)));
  if (!batch || (k != bk && k != kUnknownDim && bk != kUnknownDim)) {
    return context.Error(Format("cannot multiply {} by {}", a.ToString(), b.ToString()));
  }
  Shape out = *batch;
  if (!row) out.push_back(a[a.rank() - 2]);
  if (!column) out.push_back(b.back());
  return context.SetOutput(0, context.dtype(7), std::move(out));
}

/// The batched product's extents and the first element of each operand's matrix, per batch.
struct MatMulGeometry {
  int64_t m = 1, k = 1, n = 1;
  std::vector<int64_t> a_first, b_first;

  MatMulGeometry(Shape a, Shape b) {
    if (a.rank() == 1) a = Shape{1, a[0]};
    if (b.rank() == 1) b = Shape{b[0], 1};
    m = a[a.rank() - 2];
    k = a.back();
    n = b.back();
    const Shape a_batch(a.dims().first(a.rank() - 2));
    const Shape b_batch(b.dims().first(b.rank() - 2));
    const Shape batch = Broadcast(a_batch, b_batch).value_or(Shape{});
    for (int64_t i = 0; i < batch.elements(); ++i) {
      a_first.push_back(MatrixOf(a_batch, batch, i) * m * k);
      b_first.push_back(MatrixOf(b_batch, batch, i) * k * n);
    }
  }

 private:
  /// Which matrix of an operand serves batch i: extents of 1 repeat.
  static int64_t MatrixOf(const Shape& own, const Shape& batch, int64_t i) {
    int64_t matrix = 0;
    int64_t weight = 1;
    for (int d = batch.rank(), o = own.rank(); d-- > 0 && o-- > 0; i /= batch[d]) {
      if (own[o] != 1) matrix += i % batch[d] * weight;
      weight *= own[o];
    }
    return matrix;
  }
};

/// The scale or zero point of row or column `i` out of `count`: one for all, or one each.
template <typename T>
T PerIndex(std::span<const T> values, int64_t i, int64_t count) {
  return values.size() == static_cast<size_t>(count) ? values[i] : values[0];
}

absl::StatusOr<Kernel> MakeQLinearMatMul(const KernelContext& context) {
  const MatMulGeometry g(context.inputs[0].shape(), context.inputs[3].shape());
  const int64_t a_scales = context.inputs[1].elements();
  const int64_t b_scales = context.inputs[4].elements();
  if ((a_scales != 1 && a_scales != g.m) || (b_scales != 1 && b_scales != g.n)) {
    return Unimplemented("{}: {} scales for {} rows, {} for {} columns", Describe(context.node),
                         a_scales, g.m, b_scales, g.n);
  }
  const IntRange range = RangeOf(context.outputs[0].dtype);
  return KernelFor(kByteKernels, context.inputs[0].dtype(), context.node, [&]<typename A>() {
    return KernelFor(
        kByteKernels, context.inputs[3].dtype(), context.node, [&]<typename B>() -> Kernel {
          return [g, range](std::span<const ConstTensorView> inputs,
                            std::span<const TensorView> outputs) {
            const RunQuant y = RunQuant::At(inputs, 6);
            const std::vector<int32_t> a_zeros = ZeroPointsOf(inputs, 2);
            const std::vector<int32_t> b_zeros = ZeroPointsOf(inputs, 5);
            ParallelFor(std::ssize(g.a_first) * g.m, 1 + 100'000 / (g.k * g.n + 1),
                        [&](int64_t begin, int64_t end) {
                          std::vector<int64_t> sums(static_cast<size_t>(g.n));
                          for (int64_t line = begin; line < end; ++line) {
                            const int64_t row = line % g.m;
                            const A* a = inputs[0].as<A>() + g.a_first[line / g.m] + row * g.k;
                            const B* b = inputs[3].as<B>() + g.b_first[line / g.m];
                            const int32_t a_zero = PerIndex<int32_t>(a_zeros, row, g.m);
                            std::ranges::fill(sums, 0);
                            for (int64_t k = 0; k < g.k; ++k, b += g.n) {
                              const int64_t left = a[k] - a_zero;
                              for (int64_t c = 0; c < g.n; ++c)
                                sums[c] += left * (b[c] - PerIndex<int32_t>(b_zeros, c, g.n));
                            }
                            const float a_scale = PerIndex(inputs[1].span<float>(), row, g.m);
                            for (int64_t c = 0; c < g.n; ++c) {
                              const float multiplier =
                                  a_scale * PerIndex(inputs[4].span<float>(), c, g.n) / y.scale;
                              outputs[0].as<uint8_t>()[line * g.n + c] = static_cast<uint8_t>(
                                  Requantize(sums[c], multiplier, y.zero_point, range));
                            }
                          }
                        });
            return absl::OkStatus();
          };
        });
  });
}

// ---- QGemm: A, a_scale, a_zero, B, b_scale, b_zero, C, y_scale, y_zero

/// Extents after transA and transB; unknown where the shapes are.
struct GemmExtents {
  int64_t m = kUnknownDim, k = kUnknownDim, n = kUnknownDim, b_k = kUnknownDim;
};

GemmExtents ExtentsOf(const Node& node, const std::optional<Shape>& a,
                      const std::optional<Shape>& b) {
  const int trans_a = node.attributes.IntOr("transA", 0) != 0;
  const int trans_b = node.attributes.IntOr("transB", 0) != 0;
  GemmExtents extents;
  if (a) extents.m = (*a)[trans_a], extents.k = (*a)[1 - trans_a];
  if (b) extents.n = (*b)[1 - trans_b], extents.b_k = (*b)[trans_b];
  return extents;
}

absl::Status InferQGemm(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 6, 9));
  OCTET_RETURN_IF_ERROR(ExpectQuantized(context, 0));
  OCTET_RETURN_IF_ERROR(ExpectQuantized(context, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 6, {DType::kI32}));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 7, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 8, {DType::kU8, DType::kI8}));
  for (const size_t i : {1, 2, 7, 8}) OCTET_RETURN_IF_ERROR(ExpectScalar(context, i));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 3, 2, 2));
  OCTET_RETURN_IF_ERROR(context.attributes().Float("alpha", 1).status());
  const GemmExtents e = ExtentsOf(context.node(), context.shape(0), context.shape(3));
  OCTET_RETURN_IF_ERROR(ExpectSameCount(context, 4, 5));
  if (context.shape(4) && context.shape(4)->is_static() && context.shape(4)->elements() != 1 &&
      context.shape(4)->elements() != e.n && e.n != kUnknownDim) {
    return context.Error(
        Format("scales {} of B do not fit its {} columns", context.shape(4)->ToString(), e.n));
  }
  if (e.k != e.b_k && e.k != kUnknownDim && e.b_k != kUnknownDim) {
    return context.Error(Format("inner extents differ: {} and {}", e.k, e.b_k));
  }
  const DType dtype = !context.has_input(7)  ? DType::kF32
                      : context.has_input(8) ? context.dtype(8)
                                             : context.dtype(0);
  return context.SetOutput(0, dtype, Shape{e.m, e.n});
}

/// y = alpha * a_scale * b_scale * (A - a_zero) (B - b_zero) + C in int32 before the scales, requantized when
/// y_scale is given.
absl::StatusOr<Kernel> MakeQGemm(const KernelContext& context) {
  const GemmExtents e =
      ExtentsOf(context.node, context.inputs[0].shape(), context.inputs[3].shape());
  OCTET_ASSIGN_OR_RETURN(const float alpha, context.node.attributes.Float("alpha", 1));
  const bool trans_a = context.node.attributes.IntOr("transA", 0) != 0;
  const bool trans_b = context.node.attributes.IntOr("transB", 0) != 0;
  const bool has_c = context.node.input(6) != kNone;
  // C broadcasts to [m, n]: a step of 0 along an extent of 1.
  int64_t c_row = 0, c_column = 0;
  if (has_c) {
    const Shape& c = context.inputs[6].shape();
    if (Broadcast(c, Shape{e.m, e.n}) != Shape{e.m, e.n}) {
      return InvalidArgument("{}: C {} does not broadcast to [{},{}]", Describe(context.node),
                             c.ToString(), e.m, e.n);
    }
    c_column = c.rank() > 0 && c.back() != 1 ? 1 : 0;
    c_row = c.rank() > 1 && c[0] != 1 ? c.back() : 0;
  }
  const DType y_type = context.outputs[0].dtype;
  return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    const RunQuant a = RunQuant::At(inputs, 1);
    const bool quantizes = y_type != DType::kF32;
    const RunQuant y = quantizes ? RunQuant::At(inputs, 7) : RunQuant{};
    const ConstTensorView &av = inputs[0], &bv = inputs[3];
    const int32_t* c = has_c ? inputs[6].as<int32_t>() : nullptr;
    ParallelFor(e.m, 1 + 100'000 / (e.k * e.n + 1), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * e.n; i < end * e.n; ++i) {
        const int64_t row = i / e.n, column = i % e.n;
        const int32_t b_zero = ZeroPointAt(inputs, 5, column);
        int64_t sum = c != nullptr ? c[row * c_row + column * c_column] : 0;
        for (int64_t k = 0; k < e.k; ++k) {
          sum += int64_t{ByteAt(av, trans_a ? k * e.m + row : row * e.k + k) - a.zero_point} *
                 (ByteAt(bv, trans_b ? column * e.k + k : k * e.n + column) - b_zero);
        }
        const float scale = alpha * a.scale * PerIndex(inputs[4].span<float>(), column, e.n);
        if (quantizes) {
          outputs[0].as<uint8_t>()[i] =
              static_cast<uint8_t>(Requantize(sum, scale / y.scale, y.zero_point, RangeOf(y_type)));
        } else {
          outputs[0].as<float>()[i] = static_cast<float>(sum) * scale;
        }
      }
    });
    return absl::OkStatus();
  };
}

}  // namespace

std::span<const OpDef> QLinearConvOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "QLinearConv", 10, INT_MAX, InferQLinearConv, MakeQLinearConv},
      {kOnnxDomain, "QLinearMatMul", 10, INT_MAX, InferQLinearMatMul, MakeQLinearMatMul},
      {kMicrosoftDomain, "QGemm", 1, INT_MAX, InferQGemm, MakeQGemm},
  };
  return kOps;
}

}  // namespace octet
