// Elements and blocks picked by index: Gather, GatherElements, GatherND.
#include <cstring>
#include <vector>

#include "engine/ops/index_reader.h"
#include "engine/ops/index_rows.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/movement_step.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// ---- Gather: y[outer, i..., inner] = data[outer, indices[i...], inner]

absl::Status InferGather(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kIndexTypes));
  if (!context.shape(0)) return context.SetOutput(0, context.dtype(0), std::nullopt);
  const Shape& data = *context.shape(0);
  if (data.rank() == 0) return context.Error("cannot gather from a scalar");
  OCTET_ASSIGN_OR_RETURN(const int axis, AxisAttribute(context, "axis", 0, data.rank()));
  if (!context.shape(1)) return context.SetOutput(0, context.dtype(0), std::nullopt);
  Shape out;
  for (int i = 0; i < axis; ++i) out.push_back(data[i]);
  for (const int64_t extent : *context.shape(1)) out.push_back(extent);
  for (int i = axis + 1; i < data.rank(); ++i) out.push_back(data[i]);
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

absl::StatusOr<Kernel> MakeGather(const KernelContext& context) {
  const TensorSpec& data = context.inputs[0].spec;
  OCTET_ASSIGN_OR_RETURN(const int64_t attribute, context.node.attributes.Int("axis", 0));
  OCTET_ASSIGN_OR_RETURN(const int axis,
                         NormalizeNodeAxis(context.node, attribute, data.shape.rank()));
  const int64_t outer = data.shape.elements(0, axis);
  const int64_t extent = data.shape[axis];
  const size_t block =
      static_cast<size_t>(data.shape.elements(axis + 1, data.shape.rank())) * SizeOf(data.dtype);
  return [=, name = Describe(context.node)](std::span<const ConstTensorView> inputs,
                                            std::span<const TensorView> outputs) {
    const IndexReader indices(inputs[1]);
    const int64_t count = indices.size();
    const auto* src = inputs[0].as<std::byte>();
    auto* dst = outputs[0].as<std::byte>();
    if (absl::Status status = indices.CheckAll(extent, name); !status.ok()) return status;
    const int64_t grain = int64_t{64} * 1024 / static_cast<int64_t>(std::max<size_t>(block, 1)) + 1;
    ParallelFor(outer * count, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t from = (i / count) * extent + indices.At(i % count, extent);
        std::memcpy(dst + static_cast<size_t>(i) * block, src + static_cast<size_t>(from) * block,
                    block);
      }
    });
    return absl::OkStatus();
  };
}

// ---- GatherElements: y[.., i, ..] = data[.., indices[.., i, ..], ..]

absl::Status InferGatherElements(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kIndexTypes));
  if (context.shape(0) && context.shape(1)) {
    if (context.shape(0)->rank() != context.shape(1)->rank()) {
      return context.Error(Format("data {} and indices {} differ in rank",
                                  context.shape(0)->ToString(), context.shape(1)->ToString()));
    }
    OCTET_RETURN_IF_ERROR(AxisAttribute(context, "axis", 0, context.shape(0)->rank()).status());
  }
  return context.SetOutput(0, context.dtype(0), context.shape(1));
}

absl::StatusOr<Kernel> MakeGatherElements(const KernelContext& context) {
  const TensorSpec& data = context.inputs[0].spec;
  const Shape out = context.outputs[0].shape;
  OCTET_ASSIGN_OR_RETURN(const int64_t attribute, context.node.attributes.Int("axis", 0));
  OCTET_ASSIGN_OR_RETURN(const int axis,
                         NormalizeNodeAxis(context.node, attribute, data.shape.rank()));
  for (int i = 0; i < out.rank(); ++i) {
    if (i != axis && out[i] > data.shape[i]) {
      return InvalidArgument("{}: indices {} reach beyond data {}", Describe(context.node),
                             out.ToString(), data.shape.ToString());
    }
  }
  const size_t size = SizeOf(data.dtype);
  return [=, rows = IndexRows(out, data.shape, axis), extent = data.shape[axis],
          name = Describe(context.node)](std::span<const ConstTensorView> inputs,
                                         std::span<const TensorView> outputs) {
    const IndexReader indices(inputs[1]);
    if (absl::Status status = indices.CheckAll(extent, name); !status.ok()) return status;
    const auto* src = inputs[0].as<std::byte>();
    auto* dst = outputs[0].as<std::byte>();
    ParallelFor(indices.size(), int64_t{16} * 1024, [&](int64_t begin, int64_t end) {
      rows.ForEach(indices, begin, end, [&](int64_t k, int64_t from) {
        std::memcpy(dst + static_cast<size_t>(k) * size, src + static_cast<size_t>(from) * size,
                    size);
      });
    });
    return absl::OkStatus();
  };
}

// ---- GatherND: y[b, i...] = data[b, indices[b, i..., :], ...]

absl::Status InferGatherND(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, {DType::kI64}));
  if (!context.shape(0) || !context.shape(1))
    return context.SetOutput(0, context.dtype(0), std::nullopt);
  const Shape& data = *context.shape(0);
  const Shape& indices = *context.shape(1);
  OCTET_ASSIGN_OR_RETURN(const int64_t batch_dims, context.attributes().Int("batch_dims", 0));
  if (indices.rank() == 0 || batch_dims < 0 ||
      batch_dims >= std::min(data.rank(), indices.rank())) {
    return context.Error(Format("'batch_dims' does not fit data {} and indices {}: {}",
                                data.ToString(), indices.ToString(), batch_dims));
  }
  if (indices.back() == kUnknownDim) return context.SetOutput(0, context.dtype(0), std::nullopt);
  if (indices.back() < 1 || batch_dims + indices.back() > data.rank()) {
    return context.Error(Format("indices {} have more positions than data {} has axes",
                                indices.ToString(), data.ToString()));
  }
  for (int i = 0; i < batch_dims; ++i) {
    if (data[i] != indices[i] && data[i] != kUnknownDim && indices[i] != kUnknownDim) {
      return context.Error(Format("data {} and indices {} differ in batch extent {}",
                                  data.ToString(), indices.ToString(), i));
    }
  }
  Shape out;
  for (int i = 0; i + 1 < indices.rank(); ++i) out.push_back(indices[i]);
  for (int i = static_cast<int>(batch_dims + indices.back()); i < data.rank(); ++i)
    out.push_back(data[i]);
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

absl::StatusOr<Kernel> MakeGatherND(const KernelContext& context) {
  const TensorSpec& data = context.inputs[0].spec;
  const Shape& index_shape = context.inputs[1].shape();
  OCTET_ASSIGN_OR_RETURN(const int64_t batch_dims, context.node.attributes.Int("batch_dims", 0));
  const int first = static_cast<int>(batch_dims);
  const int depth = static_cast<int>(index_shape.back());
  const int64_t batches = data.shape.elements(0, first);
  const int64_t tuples = index_shape.elements(0, index_shape.rank() - 1);
  const int64_t batch_elements = data.shape.elements(first, data.shape.rank());
  const int64_t block = data.shape.elements(first + depth, data.shape.rank());
  const size_t size = SizeOf(data.dtype);
  return [=, shape = data.shape, name = Describe(context.node)](
             std::span<const ConstTensorView> inputs,
             std::span<const TensorView> outputs) -> absl::Status {
    const IndexReader indices(inputs[1]);
    const auto strides = shape.strides();
    for (int64_t t = 0; t < tuples; ++t) {
      int64_t from = t / (tuples / batches) * batch_elements;
      for (int k = 0; k < depth; ++k) {
        const int64_t extent = shape[first + k];
        if (!indices.InRange(t * depth + k, extent))
          return indices.OutOfRange(t * depth + k, extent, name);
        from += indices.At(t * depth + k, extent) * strides[first + k];
      }
      std::memcpy(outputs[0].as<std::byte>() + static_cast<size_t>(t * block) * size,
                  inputs[0].as<std::byte>() + static_cast<size_t>(from) * size,
                  static_cast<size_t>(block) * size);
    }
    return absl::OkStatus();
  };
}

}  // namespace

std::span<const OpDef> GatherOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "Gather", 1, INT_MAX, InferGather, MakeGather, LowerMovement, kMovement},
      {kOnnxDomain, "GatherElements", 11, INT_MAX, InferGatherElements, MakeGatherElements,
       LowerMovement, kMovement},
      {kOnnxDomain, "GatherND", 11, INT_MAX, InferGatherND, MakeGatherND, LowerMovement, kMovement},
  };
  return kOps;
}

}  // namespace octet
