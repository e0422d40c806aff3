// CenterCropPad: cuts or zero-pads each axis to a wanted extent, keeping the middle.
//   Source: ONNX CenterCropPad-18.
#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/op_list.h"
#include "engine/ops/strided_copy.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

absl::StatusOr<std::vector<int>> ReadAxes(const Node& node, int rank) {
  OCTET_ASSIGN_OR_RETURN(const auto axes, node.attributes.Ints("axes", {}));
  if (node.attributes.has("axes")) return NormalizeNodeAxes(node, axes, rank);
  std::vector<int> all;
  for (int i = 0; i < rank; ++i) all.push_back(i);
  return all;
}

absl::Status InferCenterCropPad(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kIndexTypes));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, 1, 1));
  const auto target = context.ConstantInts(1);
  if (!context.shape(0)) return context.SetOutput(0, context.dtype(0), std::nullopt);
  Shape out = *context.shape(0);
  OCTET_ASSIGN_OR_RETURN(const auto axes, ReadAxes(context.node(), out.rank()));
  if (target && target->size() != axes.size())
    return context.Error(Format("has {} extents for {} axes", target->size(), axes.size()));
  for (size_t i = 0; i < axes.size(); ++i) {
    out[axes[i]] = target ? (*target)[i] : kUnknownDim;
    if (target && out[axes[i]] < 0)
      return context.Error(Format("an extent is negative: {}", out[axes[i]]));
  }
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

/// The part of x that is in y: `count` elements of every axis from `x_first` and `y_first` on.
absl::StatusOr<Kernel> MakeCenterCropPad(const KernelContext& context) {
  const TensorSpec in = context.inputs[0].spec;
  const TensorSpec out = context.outputs[0];
  const auto x_strides = in.shape.strides();
  const auto y_strides = out.shape.strides();
  std::vector<CopyLoop> loops;
  int64_t x_first = 0;
  int64_t y_first = 0;
  for (int i = 0; i < in.shape.rank(); ++i) {
    const int64_t count = std::min(in.shape[i], out.shape[i]);
    x_first += (in.shape[i] - count) / 2 * x_strides[i];
    y_first += (out.shape[i] - count) / 2 * y_strides[i];
    loops.push_back({count, x_strides[i], y_strides[i]});
  }
  const size_t size = SizeOf(in.dtype);
  const bool empty = in.shape.elements() == 0 || out.shape.elements() == 0;
  return [=, copy = StridedCopy(loops, size)](std::span<const ConstTensorView> inputs,
                                              std::span<const TensorView> outputs) {
    if (outputs[0].bytes() != 0) std::memset(outputs[0].data, 0, outputs[0].bytes());
    if (empty) return absl::OkStatus();
    copy.Run(inputs[0].as<std::byte>() + static_cast<size_t>(x_first) * size,
             outputs[0].as<std::byte>() + static_cast<size_t>(y_first) * size);
    return absl::OkStatus();
  };
}

}  // namespace

std::span<const OpDef> CenterCropPadOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "CenterCropPad", 18, INT_MAX, InferCenterCropPad, MakeCenterCropPad},
  };
  return kOps;
}

}  // namespace octet
