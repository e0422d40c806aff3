// Softmax, LogSoftmax and Hardmax. Before opset 13 the input is flattened to a matrix at `axis` and a whole row is
// normalised; from 13 on only `axis` is.
#include <algorithm>
#include <cmath>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/ops/row_math.h"
#include "engine/ops/row_step.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

enum class Kind { kSoftmax, kLogSoftmax, kHardmax };

/// What is normalised: `extent` elements, `inner` apart, for each of `outer` x `inner` positions.
struct Groups {
  int64_t outer = 1;
  int64_t extent = 1;
  int64_t inner = 1;
};

absl::Status InferSoftmax(InferContext& context) {
  OCTET_RETURN_IF_ERROR(InferSameAsInput(context, kFloats));
  if (!context.shape(0)) return absl::OkStatus();
  const int64_t fallback = context.node().version < 13 ? 1 : -1;
  return AxisAttribute(context, "axis", fallback, std::max(context.shape(0)->rank(), 1)).status();
}

absl::StatusOr<Groups> GroupsOf(const KernelContext& context) {
  const bool flattens = context.node.version < 13;
  const Shape& shape = context.inputs[0].shape();
  OCTET_ASSIGN_OR_RETURN(const int64_t raw, context.node.attributes.Int("axis", flattens ? 1 : -1));
  const int axis = static_cast<int>(raw < 0 ? raw + shape.rank() : raw);
  if (shape.rank() == 0) return Groups{};
  if (flattens) return Groups{shape.elements(0, axis), shape.elements(axis, shape.rank()), 1};
  return Groups{shape.elements(0, axis), shape[axis], shape.elements(axis + 1, shape.rank())};
}

template <Kind kKind, typename T>
void Normalise(const T* x, T* y, int64_t extent, int64_t stride) {
  T largest = x[0];
  int64_t at = 0;
  for (int64_t i = 1; i < extent; ++i) {
    if (x[i * stride] > largest) {
      largest = x[i * stride];
      at = i;
    }
  }
  if constexpr (kKind == Kind::kHardmax) {
    for (int64_t i = 0; i < extent; ++i) y[i * stride] = i == at ? T{1} : T{0};
    return;
  }
  double sum = 0;
  for (int64_t i = 0; i < extent; ++i) {
    const T e = std::exp(x[i * stride] - largest);
    if constexpr (kKind == Kind::kSoftmax) y[i * stride] = e;
    sum += static_cast<double>(e);
  }
  const T log_sum = static_cast<T>(std::log(sum));
  const T scale = static_cast<T>(1 / sum);
  for (int64_t i = 0; i < extent; ++i) {
    if constexpr (kKind == Kind::kSoftmax) {
      y[i * stride] *= scale;
    } else {
      y[i * stride] = x[i * stride] - largest - log_sum;
    }
  }
}

/// y = exp(x - max) / sum(exp(x - max)), its logarithm, or 1 at the first maximum and 0 elsewhere.
template <Kind kKind>
absl::StatusOr<Kernel> MakeSoftmax(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const Groups groups, GroupsOf(context));
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return
            [groups](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
              if (groups.extent == 0) return absl::OkStatus();
              const T* x = inputs[0].as<T>();
              T* y = outputs[0].as<T>();
              ParallelFor(groups.outer * groups.inner, 1 + 16384 / groups.extent,
                          [&](int64_t begin, int64_t end) {
                            for (int64_t g = begin; g < end; ++g) {
                              const int64_t base = g / groups.inner * groups.extent * groups.inner +
                                                   g % groups.inner;
                              Normalise<kKind>(x + base, y + base, groups.extent, groups.inner);
                            }
                          });
              return absl::OkStatus();
            };
      });
}

/// The kernel of rows, or of columns where the groups lie `inner` elements apart.
template <Kind kKind>
RowStep::Fn GroupFn(const Groups& groups) {
  static_assert(kKind != Kind::kHardmax);
  if (groups.inner == 1) {
    constexpr auto kRow = kKind == Kind::kSoftmax ? SoftmaxRow : LogSoftmaxRow;
    return
        [n = groups.extent](const StepArgs&, const float* x, float* y, float*) { kRow(x, y, n); };
  }
  constexpr auto kColumns = kKind == Kind::kSoftmax ? SoftmaxColumns : LogSoftmaxColumns;
  return [groups](const StepArgs&, const float* x, float* y, float* spare) {
    kColumns(x, y, groups.extent, groups.inner, spare);
  };
}

template <Kind kKind>
absl::StatusOr<std::unique_ptr<Step>> LowerSoftmax(const LowerContext& context) {
  const Value& x = context.input(0);
  if (!HasRealFormat(x) || !HasRealFormat(context.output()))
    return Unimplemented("values are neither float nor int8 with one scale");
  if (!context.node.post_ops.empty()) return Unimplemented("post-ops");
  if (x.shape->elements() == 0) return Unimplemented("empty input");
  const ConstTensorView input{nullptr, {DType::kF32, *x.shape}};
  OCTET_ASSIGN_OR_RETURN(const Groups groups, GroupsOf({context.node, {&input, 1}, {}}));
  context.layer.runs = "f32";
  context.layer.impl = kKind == Kind::kSoftmax ? "octet:softmax" : "octet:log_softmax";
  context.layer.isa = context.target.isa;
  return std::make_unique<RowStep>(context, groups.outer, groups.extent * groups.inner,
                                   GroupFn<kKind>(groups),
                                   groups.inner == 1 ? 0 : 2 * groups.inner);
}

}  // namespace

std::span<const OpDef> SoftmaxOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "Softmax", 1, 12, InferSoftmax, MakeSoftmax<Kind::kSoftmax>,
       LowerSoftmax<Kind::kSoftmax>},
      {kOnnxDomain, "Softmax", 13, INT_MAX, InferSoftmax, MakeSoftmax<Kind::kSoftmax>,
       LowerSoftmax<Kind::kSoftmax>},
      {kOnnxDomain, "LogSoftmax", 1, 12, InferSoftmax, MakeSoftmax<Kind::kLogSoftmax>,
       LowerSoftmax<Kind::kLogSoftmax>},
      {kOnnxDomain, "LogSoftmax", 13, INT_MAX, InferSoftmax, MakeSoftmax<Kind::kLogSoftmax>,
       LowerSoftmax<Kind::kLogSoftmax>},
      {kOnnxDomain, "Hardmax", 1, 12, InferSoftmax, MakeSoftmax<Kind::kHardmax>},
      {kOnnxDomain, "Hardmax", 13, INT_MAX, InferSoftmax, MakeSoftmax<Kind::kHardmax>},
  };
  return kOps;
}

}  // namespace octet
