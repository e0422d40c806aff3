// The largest or smallest elements along an axis, in order: TopK.
#include "engine/ops/top_k.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// k from the attribute (opset 1) or input 1 (opset 10); nullopt while it is not constant.
absl::StatusOr<std::optional<int64_t>> ReadK(const InferContext& context) {
  OCTET_ASSIGN_OR_RETURN(const IntsOperand ints, ReadInts(context, "k", 1, 10));
  if (!ints.values) return std::nullopt;
  if (ints.values->size() != 1 || ints.values->front() < 0)
    return context.Error("'k' must be one number of at least 0");
  return ints.values->front();
}

absl::Status InferTopK(InferContext& context) {
  const bool attribute = context.node().version < 10;
  const size_t inputs = attribute ? 1 : 2;
  // Either output may be the one that is wanted.
  OCTET_RETURN_IF_ERROR(ExpectInputCount(context, inputs, inputs));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, context.node().version < 11 ? kFloats : kNumbers));
  std::optional<int64_t> k;
  if (attribute) {
    OCTET_ASSIGN_OR_RETURN(k, context.attributes().Int("k", -1));
    if (*k < 0) return context.Error("attribute 'k' must be at least 0");
  } else {
    OCTET_ASSIGN_OR_RETURN(k, ReadK(context));
  }
  std::optional<Shape> out = context.shape(0);
  if (out) {
    OCTET_ASSIGN_OR_RETURN(const int axis, AxisAttribute(context, "axis", -1, out->rank()));
    if (k && (*out)[axis] != kUnknownDim && *k > (*out)[axis])
      return context.Error(Format("'k' is {}, the axis has {}", *k, (*out)[axis]));
    (*out)[axis] = k.value_or(kUnknownDim);
  }
  OCTET_RETURN_IF_ERROR(context.SetOutput(0, context.dtype(0), out));
  return context.SetOutput(1, DType::kI64, out);
}

/// Fills `order` with the positions of the k first of `extent` elements that lie `step` apart. Equal elements keep their
/// order; NaN counts as the largest.
template <typename T>
void FirstK(const T* x, int64_t step, int64_t k, bool largest, std::vector<int64_t>& order) {
  const auto before = [&](int64_t i, int64_t j) {
    const T a = x[i * step];
    const T b = x[j * step];
    if constexpr (std::is_floating_point_v<T>) {
      if (std::isnan(a) != std::isnan(b)) return std::isnan(a) == largest;
    }
    if (a != b && !(a != a)) return largest ? a > b : a < b;
    return i < j;
  };
  std::iota(order.begin(), order.end(), int64_t{0});
  std::partial_sort(order.begin(), order.begin() + k, order.end(), before);
}

absl::StatusOr<Kernel> MakeTopK(const KernelContext& context) {
  const size_t known = context.node.output(0) != kNone ? 0 : 1;
  OCTET_ASSIGN_OR_RETURN(const TopKForm form, ReadTopK(context.node, context.inputs[0].shape(),
                                                       context.outputs[known].shape));
  return KernelFor(
      kNumberKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return
            [form](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
              T* values = outputs[0].as<T>();
              int64_t* indices = outputs.size() > 1 ? outputs[1].as<int64_t>() : nullptr;
              const int64_t grain = 1 + 4096 / std::max<int64_t>(form.extent, 1);
              ParallelFor(form.groups, grain, [&](int64_t begin, int64_t end) {
                std::vector<int64_t> order(static_cast<size_t>(form.extent));
                for (int64_t g = begin; g < end; ++g) {
                  const T* x = inputs[0].as<T>() + form.InputAt(g);
                  FirstK(x, form.inner, form.k, form.largest, order);
                  const int64_t to = form.OutputAt(g);
                  for (int64_t i = 0; i < form.k; ++i) {
                    if (values != nullptr) values[to + i * form.inner] = x[order[i] * form.inner];
                    if (indices != nullptr) indices[to + i * form.inner] = order[i];
                  }
                }
              });
              return absl::OkStatus();
            };
      });
}

}  // namespace

absl::StatusOr<TopKForm> ReadTopK(const Node& node, const Shape& x, const Shape& y) {
  OCTET_ASSIGN_OR_RETURN(const int64_t raw, node.attributes.Int("axis", -1));
  OCTET_ASSIGN_OR_RETURN(const int axis, NormalizeNodeAxis(node, raw, x.rank()));
  OCTET_ASSIGN_OR_RETURN(const int64_t largest, node.attributes.Int("largest", 1));
  TopKForm form{.extent = x[axis], .k = y[axis], .largest = largest != 0};
  // The number may arrive with the data, and the model say what it will be.
  if (form.k > form.extent)
    return InvalidArgument("{}: gives {} of {} elements", Describe(node), form.k, form.extent);
  form.inner = x.elements(axis + 1, x.rank());
  form.groups = x.elements(0, axis) * form.inner;
  return form;
}

std::span<const OpDef> TopKOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "TopK", 1, INT_MAX, InferTopK, MakeTopK, LowerTopK},
  };
  return kOps;
}

}  // namespace octet
