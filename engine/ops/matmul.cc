// Matrix products: MatMul, Gemm, MatMulInteger, and octet:MatMul, which the others become (engine/README.md).
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "engine/ops/binary_math.h"
#include "engine/ops/broadcast.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"

namespace octet {
namespace {

/// Two operands as stacks of matrices: [batch..., M, K] x [batch..., K, N]. A 1-D operand is a row or a column
/// whose extent of 1 is not part of the result.
struct Operands {
  Shape a;  ///< Rank >= 2.
  Shape b;  ///< Rank >= 2, [..., K, N].
  Shape out;
  int64_t m = 0, k = 0, n = 0;
};

bool Agree(int64_t a, int64_t b) { return a == b || a == kUnknownDim || b == kUnknownDim; }

// nullopt where the shapes do not multiply.
std::optional<Operands> Multiply(Shape a, Shape b, bool trans_b) {
  const bool a_vector = a.rank() == 1;
  const bool b_vector = b.rank() == 1;
  if (a.rank() == 0 || b.rank() == 0) return std::nullopt;
  if (a_vector) a = Shape{1, a[0]};
  if (b_vector) b = Shape{b[0], 1};
  if (trans_b && !b_vector) std::swap(b[b.rank() - 1], b[b.rank() - 2]);
  if (!Agree(a.back(), b[b.rank() - 2])) return std::nullopt;
  const auto batch = Broadcast(Shape(a.dims().first(a.dims().size() - 2)),
                               Shape(b.dims().first(b.dims().size() - 2)));
  if (!batch) return std::nullopt;
  Operands result{a, b, *batch, a[a.rank() - 2], std::max(a.back(), b[b.rank() - 2]), b.back()};
  if (!a_vector) result.out.push_back(result.m);
  if (!b_vector) result.out.push_back(result.n);
  return result;
}

absl::Status InferProduct(InferContext& context, size_t max_inputs, DTypeSet accepted,
                          std::optional<DType> result) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, max_inputs));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, accepted));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, accepted));
  const DType dtype = result.value_or(context.dtype(0));
  if (!context.shape(0) || !context.shape(1)) return context.SetOutput(0, dtype, std::nullopt);
  OCTET_ASSIGN_OR_RETURN(const int64_t trans_b, context.attributes().Int("trans_b", 0));
  const auto operands = Multiply(*context.shape(0), *context.shape(1), trans_b != 0);
  if (!operands) {
    return context.Error("shapes " + context.shape(0)->ToString() + " and " +
                         context.shape(1)->ToString() + " do not multiply");
  }
  return context.SetOutput(0, dtype, operands->out);
}

constexpr DTypeSet kProductTypes =
    kFloats | DTypeSet{DType::kI32, DType::kI64, DType::kU32, DType::kU64};

absl::Status InferMatMul(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 1));
  return InferProduct(context, 2, kProductTypes, std::nullopt);
}
absl::Status InferBiasedMatMul(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 1));
  // Operands of post-ops follow the bias.
  return InferProduct(context, SIZE_MAX, kFloats, std::nullopt);
}

/// Zero point `i` is one for all, or one for each of the `extent` rows or columns.
absl::Status ExpectZeroPoint(const InferContext& context, size_t i, int64_t extent) {
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, i - 2, i));
  if (!context.has_input(i) || !context.shape(i) || !context.shape(i)->is_static())
    return absl::OkStatus();
  const int64_t count = context.shape(i)->elements();
  if (count == 1 || count == extent || extent == kUnknownDim) return absl::OkStatus();
  return context.Error("zero point of shape " + context.shape(i)->ToString() +
                       " does not fit an extent of " + std::to_string(extent));
}

absl::Status InferMatMulInteger(InferContext& context) {
  const auto extent = [&](size_t i, int back) {
    const auto& shape = context.shape(i);
    return shape && shape->rank() >= back ? (*shape)[shape->rank() - back] : int64_t{1};
  };
  OCTET_RETURN_IF_ERROR(InferProduct(context, 4, {DType::kU8, DType::kI8}, DType::kI32));
  if (!context.shape(0) || !context.shape(1)) return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(ExpectZeroPoint(context, 2, extent(0, 2)));
  return ExpectZeroPoint(context, 3, context.shape(1)->rank() == 1 ? 1 : extent(1, 1));
}

/// c[M, N] += a[M, K] * b[K, N], rows of c in parallel; the inner loop runs along N.
template <typename T, typename A>
void Product(const T* a, const T* b, A* c, int64_t m, int64_t k, int64_t n, bool trans_b) {
  ParallelFor(m, 1 + 65536 / std::max<int64_t>(k * n, 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      A* row = c + i * n;
      if (trans_b) {
        for (int64_t j = 0; j < n; ++j) {
          A sum{};
          for (int64_t p = 0; p < k; ++p)
            sum += static_cast<A>(a[i * k + p]) * static_cast<A>(b[j * k + p]);
          row[j] += sum;
        }
        continue;
      }
      for (int64_t p = 0; p < k; ++p) {
        const A factor = static_cast<A>(a[i * k + p]);
        for (int64_t j = 0; j < n; ++j) row[j] += factor * static_cast<A>(b[p * n + j]);
      }
    }
  });
}

/// Walks the stacks: fn(a matrix, b matrix, out matrix), as offsets in matrices.
template <typename Fn>
void ForEachMatrix(const Operands& o, const Fn& fn) {
  const auto batch = [](const Shape& shape) {
    return Shape(shape.dims().first(shape.dims().size() - 2));
  };
  const Shape a = batch(o.a);
  const Shape b = batch(o.b);
  const Shape out = *Broadcast(a, b);
  const std::array<Shape, 2> inputs = {a, b};
  const BroadcastPlan plan(out, inputs);
  plan.ForEachRow(0, plan.elements(),
                  [&](int64_t at, std::span<const int64_t> offsets, int64_t count) {
                    for (int64_t i = 0; i < count; ++i) {
                      fn(offsets[0] + i * plan.stride(0), offsets[1] + i * plan.stride(1), at + i);
                    }
                  });
}

absl::StatusOr<Operands> OperandsOf(const KernelContext& context, bool trans_b) {
  const auto operands = Multiply(context.inputs[0].shape(), context.inputs[1].shape(), trans_b);
  if (!operands) return Internal("{}: shapes do not multiply", Describe(context.node));
  return *operands;
}

/// y = a b [+ bias along the last axis].
absl::StatusOr<Kernel> MakeMatMul(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const int64_t trans_b, context.node.attributes.Int("trans_b", 0));
  OCTET_ASSIGN_OR_RETURN(const Operands o, OperandsOf(context, trans_b != 0));
  const bool bias = context.node.domain == kOctetDomain && context.node.input(2) != kNone;
  return KernelFor(
      kNumberKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          ForEachMatrix(o, [&](int64_t a, int64_t b, int64_t out) {
            T* y = outputs[0].as<T>() + out * o.m * o.n;
            for (int64_t i = 0; i < o.m; ++i) {
              for (int64_t j = 0; j < o.n; ++j) y[i * o.n + j] = bias ? inputs[2].as<T>()[j] : T{};
            }
            Product<T, T>(inputs[0].as<T>() + a * o.m * o.k, inputs[1].as<T>() + b * o.k * o.n, y,
                          o.m, o.k, o.n, trans_b != 0);
          });
          return absl::OkStatus();
        };
      });
}

struct GemmForm {
  float alpha = 1;
  float beta = 1;
  bool trans_a = false;
  bool trans_b = false;
};

absl::StatusOr<GemmForm> FormOf(const Attributes& attributes) {
  GemmForm form;
  OCTET_ASSIGN_OR_RETURN(form.alpha, attributes.Float("alpha", 1));
  OCTET_ASSIGN_OR_RETURN(form.beta, attributes.Float("beta", 1));
  OCTET_ASSIGN_OR_RETURN(const int64_t trans_a, attributes.Int("transA", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t trans_b, attributes.Int("transB", 0));
  form.trans_a = trans_a != 0;
  form.trans_b = trans_b != 0;
  return form;
}

absl::Status InferGemm(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kProductTypes));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 1));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 2));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, 2, 2));
  OCTET_ASSIGN_OR_RETURN(const GemmForm form, FormOf(context.attributes()));
  if (!context.shape(0) || !context.shape(1))
    return context.SetOutput(0, context.dtype(0), std::nullopt);
  const Shape& a = *context.shape(0);
  const Shape& b = *context.shape(1);
  const Shape out{a[form.trans_a ? 1 : 0], b[form.trans_b ? 0 : 1]};
  if (!Agree(a[form.trans_a ? 0 : 1], b[form.trans_b ? 1 : 0])) {
    return context.Error("shapes " + a.ToString() + " and " + b.ToString() + " do not multiply");
  }
  if (context.has_input(2) && context.shape(2)) {
    const auto broadcast = Broadcast(out, *context.shape(2));
    // C may not make the product wider, whether or not the other extent is known.
    if (!broadcast || broadcast->rank() != 2 || !Agree((*broadcast)[0], out[0]) ||
        !Agree((*broadcast)[1], out[1])) {
      return context.Error("C of shape " + context.shape(2)->ToString() +
                           " does not broadcast to " + out.ToString());
    }
  }
  return context.SetOutput(0, context.dtype(0), out);
}

/// factor * x as T has it: of doubles in double; of integers exactly where the factor is whole, wrapping around, else
/// truncated, with what T cannot hold at its ends.
template <typename T>
T Scaled(float factor, T x) {
  if constexpr (std::is_floating_point_v<T>) {
    return static_cast<T>(factor) * x;
  } else {
    using Limits = std::numeric_limits<T>;
    constexpr float kMostWhole = 0x1p63F;
    if (std::trunc(factor) == factor && std::abs(factor) < kMostWhole)
      return static_cast<T>(static_cast<uint64_t>(static_cast<int64_t>(factor)) *
                            static_cast<uint64_t>(x));
    const double product = static_cast<double>(factor) * static_cast<double>(x);
    if (std::isnan(product)) return T{};
    if (product <= static_cast<double>(Limits::min())) return Limits::min();
    return product < static_cast<double>(Limits::max()) ? static_cast<T>(product) : Limits::max();
  }
}

/// y = alpha * A' B' + beta * C, C broadcast to [M, N].
absl::StatusOr<Kernel> MakeGemm(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const GemmForm form, FormOf(context.node.attributes));
  const Shape& a = context.inputs[0].shape();
  const int64_t m = a[form.trans_a ? 1 : 0];
  const int64_t k = a[form.trans_a ? 0 : 1];
  const int64_t n = context.outputs[0].shape[1];
  const bool has_c = context.node.input(2) != kNone;
  const std::array<Shape, 1> c_shape = {has_c ? context.inputs[2].shape() : Shape{}};
  const BroadcastPlan plan(Shape{m, n}, c_shape);
  return KernelFor(
      kNumberKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          T* y = outputs[0].as<T>();
          std::fill_n(y, m * n, T{});
          std::vector<T> turned;
          const T* left = inputs[0].as<T>();
          if (form.trans_a) {
            turned.resize(static_cast<size_t>(m * k));
            for (int64_t i = 0; i < m * k; ++i)
              turned[static_cast<size_t>(i)] = left[i % k * m + i / k];
            left = turned.data();
          }
          Product<T, T>(left, inputs[1].as<T>(), y, m, k, n, form.trans_b);
          if (form.alpha != 1) {
            for (int64_t i = 0; i < m * n; ++i) y[i] = Scaled(form.alpha, y[i]);
          }
          if (!has_c) return absl::OkStatus();
          const T* c = inputs[2].as<T>();
          plan.ForEachRow(
              0, m * n, [&](int64_t at, std::span<const int64_t> offsets, int64_t count) {
                for (int64_t i = 0; i < count; ++i) {
                  const T term = c[offsets[0] + i * plan.stride(0)];
                  y[at + i] =
                      math::Add{}(y[at + i], form.beta == 1 ? term : Scaled(form.beta, term));
                }
              });
          return absl::OkStatus();
        };
      });
}

// The zero point of row (or column) `i`: absent, one for all, or one each.
int32_t ZeroPoint(std::span<const ConstTensorView> inputs, size_t slot, int64_t i) {
  if (slot >= inputs.size() || inputs[slot].data == nullptr) return 0;
  const int64_t at = inputs[slot].elements() == 1 ? 0 : i;
  return inputs[slot].dtype() == DType::kU8 ? inputs[slot].as<uint8_t>()[at]
                                            : inputs[slot].as<int8_t>()[at];
}

int32_t Byte(const ConstTensorView& view, int64_t i) {
  return view.dtype() == DType::kU8 ? view.as<uint8_t>()[i] : view.as<int8_t>()[i];
}

/// y = (a - a_zero_point) (b - b_zero_point) in 32-bit integers; zero points per tensor, per row of a, per column of b.
absl::StatusOr<Kernel> MakeMatMulInteger(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const Operands o, OperandsOf(context, false));
  return Kernel([o](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    std::vector<int32_t> left(static_cast<size_t>(o.m * o.k));
    std::vector<int32_t> right(static_cast<size_t>(o.k * o.n));
    ForEachMatrix(o, [&](int64_t a, int64_t b, int64_t out) {
      for (int64_t i = 0; i < o.m * o.k; ++i) {
        left[static_cast<size_t>(i)] =
            Byte(inputs[0], a * o.m * o.k + i) - ZeroPoint(inputs, 2, i / o.k);
      }
      for (int64_t i = 0; i < o.k * o.n; ++i) {
        right[static_cast<size_t>(i)] =
            Byte(inputs[1], b * o.k * o.n + i) - ZeroPoint(inputs, 3, i % o.n);
      }
      // Unsigned: sums that leave 32 bits wrap around.
      auto* y = reinterpret_cast<uint32_t*>(outputs[0].as<int32_t>()) + out * o.m * o.n;
      std::fill_n(y, o.m * o.n, 0);
      Product<int32_t, uint32_t>(left.data(), right.data(), y, o.m, o.k, o.n, false);
    });
    return absl::OkStatus();
  });
}

}  // namespace

std::span<const OpDef> MatMulOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "MatMul", 1, INT_MAX, InferMatMul, MakeMatMul},
      {kOnnxDomain, "Gemm", 7, INT_MAX, InferGemm, MakeGemm},
      {kOnnxDomain, "MatMulInteger", 10, INT_MAX, InferMatMulInteger, MakeMatMulInteger,
       LowerMatMulInteger},
      {kOctetDomain, "MatMul", 1, INT_MAX, InferBiasedMatMul, MakeMatMul, LowerMatMul},
  };
  return kOps;
}

}  // namespace octet
