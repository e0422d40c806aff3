// Elements and blocks written by index: ScatterElements (and its first name, Scatter), ScatterND.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "engine/ops/binary_math.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/index_reader.h"
#include "engine/ops/index_rows.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

enum class Reduction { kNone, kAdd, kMul, kMax, kMin };

absl::StatusOr<Reduction> ReductionOf(const Node& node) {
  OCTET_ASSIGN_OR_RETURN(const std::string name, node.attributes.String("reduction", "none"));
  if (name == "none") return Reduction::kNone;
  if (name == "add") return Reduction::kAdd;
  if (name == "mul") return Reduction::kMul;
  if (name == "max") return Reduction::kMax;
  if (name == "min") return Reduction::kMin;
  return InvalidArgument("{}: unknown 'reduction': '{}'", Describe(node), name);
}

template <typename T>
void Reduce(Reduction reduction, T& target, T update) {
  switch (reduction) {
    case Reduction::kNone:
      target = update;
      break;
    case Reduction::kAdd:
      target = math::Add{}(target, update);
      break;
    case Reduction::kMul:
      target = math::Mul{}(target, update);
      break;
    case Reduction::kMax:
      target = std::max(target, update);
      break;
    case Reduction::kMin:
      target = std::min(target, update);
      break;
  }
}

/// Elements that are only replaced need no arithmetic: any type goes by its width.
template <typename Make>
absl::StatusOr<Kernel> ScatterKernelFor(const KernelContext& context, const Make& make) {
  OCTET_ASSIGN_OR_RETURN(const Reduction reduction, ReductionOf(context.node));
  const DType dtype = context.inputs[0].dtype();
  if (reduction == Reduction::kNone)
    return KernelFor(kStorageKernels, StorageOf(dtype), context.node, make);
  return KernelFor(kNumberKernels, dtype, context.node, make);
}

absl::Status InferScatterElements(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 3, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kIndexTypes));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 2));
  OCTET_RETURN_IF_ERROR(ReductionOf(context.node()).status());
  if (context.shape(0)) {
    const int rank = context.shape(0)->rank();
    OCTET_RETURN_IF_ERROR(AxisAttribute(context, "axis", 0, rank).status());
    OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, rank, rank));
    OCTET_RETURN_IF_ERROR(ExpectRank(context, 2, rank, rank));
  }
  return context.SetOutput(0, context.dtype(0), context.shape(0));
}

/// y = data; y[.., indices[.., i, ..], ..] <- updates[.., i, ..]
absl::StatusOr<Kernel> MakeScatterElements(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const Reduction reduction, ReductionOf(context.node));
  const Shape data = context.inputs[0].shape();
  const Shape updates = context.inputs[2].shape();
  OCTET_ASSIGN_OR_RETURN(const int64_t attribute, context.node.attributes.Int("axis", 0));
  OCTET_ASSIGN_OR_RETURN(const int axis, NormalizeNodeAxis(context.node, attribute, data.rank()));
  bool fits = updates == context.inputs[1].shape();
  for (int i = 0; i < data.rank(); ++i) fits = fits && (i == axis || updates[i] <= data[i]);
  if (!fits) {
    return InvalidArgument("{}: indices {} and updates {} do not fit data {}",
                           Describe(context.node), context.inputs[1].shape().ToString(),
                           updates.ToString(), data.ToString());
  }
  return ScatterKernelFor(context, [&]<typename T>() -> Kernel {
    return [=, rows = IndexRows(updates, data, axis), name = Describe(context.node)](
               std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
      const IndexReader indices(inputs[1]);
      if (absl::Status status = indices.CheckAll(data[axis], name); !status.ok()) return status;
      if (inputs[0].bytes() != 0) std::memcpy(outputs[0].data, inputs[0].data, inputs[0].bytes());
      T* y = outputs[0].as<T>();
      const T* x = inputs[2].as<T>();
      rows.ForEach(indices, 0, indices.size(),
                   [&](int64_t k, int64_t to) { Reduce(reduction, y[to], x[k]); });
      return absl::OkStatus();
    };
  });
}

absl::Status InferScatterND(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 3, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, {DType::kI64}));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 2));
  OCTET_RETURN_IF_ERROR(ReductionOf(context.node()).status());
  if (context.shape(0) && context.shape(1)) {
    const Shape& indices = *context.shape(1);
    if (indices.rank() < 1 || indices.back() > context.shape(0)->rank() || indices.back() == 0) {
      return context.Error(Format("indices {} do not fit data {}", indices.ToString(),
                                  context.shape(0)->ToString()));
    }
  }
  return context.SetOutput(0, context.dtype(0), context.shape(0));
}

/// y = data; y[indices[i..., :], ...] <- updates[i..., ...]
absl::StatusOr<Kernel> MakeScatterND(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const Reduction reduction, ReductionOf(context.node));
  const Shape data = context.inputs[0].shape();
  const Shape& index_shape = context.inputs[1].shape();
  const int depth = static_cast<int>(index_shape.back());
  const int64_t tuples = index_shape.elements(0, index_shape.rank() - 1);
  const int64_t block = data.elements(depth, data.rank());
  if (context.inputs[2].elements() != tuples * block) {
    return InvalidArgument("{}: updates {} do not fit indices {} and data {}",
                           Describe(context.node), context.inputs[2].shape().ToString(),
                           index_shape.ToString(), data.ToString());
  }
  return ScatterKernelFor(context, [&]<typename T>() -> Kernel {
    return [=, name = Describe(context.node)](std::span<const ConstTensorView> inputs,
                                              std::span<const TensorView> outputs) -> absl::Status {
      const IndexReader indices(inputs[1]);
      if (inputs[0].bytes() != 0) std::memcpy(outputs[0].data, inputs[0].data, inputs[0].bytes());
      const auto strides = data.strides();
      for (int64_t t = 0; t < tuples; ++t) {
        int64_t to = 0;
        for (int k = 0; k < depth; ++k) {
          if (!indices.InRange(t * depth + k, data[k]))
            return indices.OutOfRange(t * depth + k, data[k], name);
          to += indices.At(t * depth + k, data[k]) * strides[k];
        }
        for (int64_t i = 0; i < block; ++i) {
          Reduce(reduction, outputs[0].as<T>()[to + i], inputs[2].as<T>()[t * block + i]);
        }
      }
      return absl::OkStatus();
    };
  });
}

}  // namespace

std::span<const OpDef> ScatterOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "Scatter", 9, 10, InferScatterElements, MakeScatterElements},
      {kOnnxDomain, "ScatterElements", 11, INT_MAX, InferScatterElements, MakeScatterElements},
      {kOnnxDomain, "ScatterND", 11, INT_MAX, InferScatterND, MakeScatterND},
  };
  return kOps;
}

}  // namespace octet
