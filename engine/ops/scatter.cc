// Elements and blocks written by index: ScatterElements (and its first name, Scatter), ScatterND.
#include "engine/ops/scatter.h"

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

template <typename T>
void Reduce(ScatterReduction reduction, T& target, T update) {
  switch (reduction) {
    case ScatterReduction::kOverwrite:
      target = update;
      break;
    case ScatterReduction::kAdd:
      target = math::Add{}(target, update);
      break;
    case ScatterReduction::kMul:
      target = math::Mul{}(target, update);
      break;
    case ScatterReduction::kMax:
      target = std::max(target, update);
      break;
    case ScatterReduction::kMin:
      target = std::min(target, update);
      break;
  }
}

/// Elements that are only replaced need no arithmetic: any type goes by its width.
template <typename Make>
absl::StatusOr<Kernel> ScatterKernelFor(const KernelContext& context, const Make& make) {
  OCTET_ASSIGN_OR_RETURN(const ScatterReduction reduction, ScatterReductionOf(context.node));
  const DType dtype = context.inputs[0].dtype();
  if (reduction == ScatterReduction::kOverwrite)
    return KernelFor(kStorageKernels, StorageOf(dtype), context.node, make);
  return KernelFor(kNumberKernels, dtype, context.node, make);
}

absl::Status InferScatterElements(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 3, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kIndexTypes));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 2));
  OCTET_RETURN_IF_ERROR(ScatterReductionOf(context.node()).status());
  if (context.shape(0)) {
    const int rank = context.shape(0)->rank();
    OCTET_RETURN_IF_ERROR(AxisAttribute(context, "axis", 0, rank).status());
    OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, rank, rank));
    OCTET_RETURN_IF_ERROR(ExpectRank(context, 2, rank, rank));
  }
  return context.SetOutput(0, context.dtype(0), context.shape(0));
}

absl::StatusOr<Kernel> MakeScatterElements(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const ScatterReduction reduction, ScatterReductionOf(context.node));
  OCTET_ASSIGN_OR_RETURN(const ElementScatter form,
                         ReadElementScatter(context.node, context.inputs[0].shape(),
                                            context.inputs[1].shape(), context.inputs[2].shape()));
  return ScatterKernelFor(context, [&]<typename T>() -> Kernel {
    return [=, rows = IndexRows(form.updates, form.data, form.axis), name = Describe(context.node)](
               std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
      const IndexReader indices(inputs[1]);
      if (absl::Status status = indices.CheckAll(form.data[form.axis], name); !status.ok())
        return status;
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
  OCTET_RETURN_IF_ERROR(ScatterReductionOf(context.node()).status());
  if (context.shape(0) && context.shape(1)) {
    const Shape& indices = *context.shape(1);
    if (indices.rank() < 1 || indices.back() > context.shape(0)->rank() || indices.back() == 0) {
      return context.Error(Format("indices {} do not fit data {}", indices.ToString(),
                                  context.shape(0)->ToString()));
    }
  }
  return context.SetOutput(0, context.dtype(0), context.shape(0));
}

absl::StatusOr<Kernel> MakeScatterND(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const ScatterReduction reduction, ScatterReductionOf(context.node));
  OCTET_ASSIGN_OR_RETURN(const BlockScatter form,
                         ReadBlockScatter(context.node, context.inputs[0].shape(),
                                          context.inputs[1].shape(), context.inputs[2].shape()));
  return ScatterKernelFor(context, [&]<typename T>() -> Kernel {
    return [=, name = Describe(context.node)](std::span<const ConstTensorView> inputs,
                                              std::span<const TensorView> outputs) -> absl::Status {
      const IndexReader indices(inputs[1]);
      if (inputs[0].bytes() != 0) std::memcpy(outputs[0].data, inputs[0].data, inputs[0].bytes());
      const auto strides = form.data.strides();
      for (int64_t t = 0; t < form.tuples; ++t) {
        int64_t to = 0;
        for (int k = 0; k < form.depth; ++k) {
          const int64_t at = t * form.depth + k;
          if (!indices.InRange(at, form.data[k])) return indices.OutOfRange(at, form.data[k], name);
          to += indices.At(at, form.data[k]) * strides[k];
        }
        for (int64_t i = 0; i < form.block; ++i) {
          Reduce(reduction, outputs[0].as<T>()[to + i], inputs[2].as<T>()[t * form.block + i]);
        }
      }
      return absl::OkStatus();
    };
  });
}

}  // namespace

absl::StatusOr<ScatterReduction> ScatterReductionOf(const Node& node) {
  OCTET_ASSIGN_OR_RETURN(const std::string name, node.attributes.String("reduction", "none"));
  if (name == "none") return ScatterReduction::kOverwrite;
  if (name == "add") return ScatterReduction::kAdd;
  if (name == "mul") return ScatterReduction::kMul;
  if (name == "max") return ScatterReduction::kMax;
  if (name == "min") return ScatterReduction::kMin;
  return InvalidArgument("{}: unknown 'reduction': '{}'", Describe(node), name);
}

absl::StatusOr<ElementScatter> ReadElementScatter(const Node& node, const Shape& data,
                                                  const Shape& indices, const Shape& updates) {
  OCTET_ASSIGN_OR_RETURN(const int64_t attribute, node.attributes.Int("axis", 0));
  OCTET_ASSIGN_OR_RETURN(const int axis, NormalizeNodeAxis(node, attribute, data.rank()));
  bool fits = updates == indices;
  for (int i = 0; i < data.rank(); ++i) fits = fits && (i == axis || updates[i] <= data[i]);
  if (fits) return ElementScatter{data, updates, axis};
  return InvalidArgument("{}: indices {} and updates {} do not fit data {}", Describe(node),
                         indices.ToString(), updates.ToString(), data.ToString());
}

absl::StatusOr<BlockScatter> ReadBlockScatter(const Node& node, const Shape& data,
                                              const Shape& indices, const Shape& updates) {
  BlockScatter form{.data = data, .depth = static_cast<int>(indices.back())};
  form.tuples = indices.elements(0, indices.rank() - 1);
  form.block = data.elements(form.depth, data.rank());
  if (updates.elements() == form.tuples * form.block) return form;
  return InvalidArgument("{}: updates {} do not fit indices {} and data {}", Describe(node),
                         updates.ToString(), indices.ToString(), data.ToString());
}

std::span<const OpDef> ScatterOps() {
  static constexpr OpTraits kScatters = {.lowers_empty = true};
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "Scatter", 9, 10, InferScatterElements, MakeScatterElements,
       LowerScatterElements, kScatters},
      {kOnnxDomain, "ScatterElements", 11, INT_MAX, InferScatterElements, MakeScatterElements,
       LowerScatterElements, kScatters},
      {kOnnxDomain, "ScatterND", 11, INT_MAX, InferScatterND, MakeScatterND, LowerScatterND,
       kScatters},
  };
  return kOps;
}

}  // namespace octet
