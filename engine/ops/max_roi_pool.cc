// MaxRoiPool: the largest pixels of regions of an image, each region in one number of bins.
//   Source: ONNX MaxRoiPool-1, -22; Girshick 2015; ONNX Runtime, which says how ends are rounded.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

struct RoiPoolForm {
  int64_t height = 1;  ///< Bins.
  int64_t width = 1;
  float scale = 1;
};

absl::StatusOr<RoiPoolForm> FormOf(const Node& node) {
  constexpr int64_t kMost = int64_t{1} << 16;
  OCTET_ASSIGN_OR_RETURN(const std::vector<int64_t> bins, node.attributes.Ints("pooled_shape", {}));
  OCTET_ASSIGN_OR_RETURN(const float scale, node.attributes.Float("spatial_scale", 1));
  const auto possible = [](int64_t count) { return count >= 1 && count <= kMost; };
  if (bins.size() != 2 || !std::ranges::all_of(bins, possible)) {
    return InvalidArgument("{}: impossible 'pooled_shape': {}", Describe(node),
                           Shape(bins).ToString());
  }
  return RoiPoolForm{bins[0], bins[1], scale};
}

/// x [N, C, H, W], regions [R, 5] as image x1 y1 x2 y2: y [R, C, height, width].
absl::Status InferMaxRoiPool(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 1));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 4, 4));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, 2, 2));
  OCTET_ASSIGN_OR_RETURN(const RoiPoolForm form, FormOf(context.node()));
  if (context.shape(1) && (*context.shape(1))[1] != 5 && (*context.shape(1))[1] != kUnknownDim)
    return context.Error(Format("regions {} need five numbers each", context.shape(1)->ToString()));
  const int64_t regions = context.shape(1) ? (*context.shape(1))[0] : kUnknownDim;
  const int64_t channels = context.shape(0) ? (*context.shape(0))[1] : kUnknownDim;
  return context.SetOutput(0, context.dtype(0), Shape{regions, channels, form.height, form.width});
}

/// Pixels [first, last) of one axis.
struct Pixels {
  int64_t first = 0;
  int64_t last = 0;
};

/// The nearest pixel; regions arrive with requests, and may be anything.
int64_t PixelAt(double at) {
  return std::isnan(at) ? 0 : static_cast<int64_t>(std::round(std::clamp(at, -0x1p30, 0x1p30)));
}

/// Those of each bin of one axis of a region, whose ends are both part of it. In the arithmetic of T, as ONNX Runtime.
template <typename T>
std::vector<Pixels> BinsOf(double first, double last, int64_t count, int64_t extent) {
  const int64_t start = PixelAt(first);
  const int64_t length = std::max<int64_t>(PixelAt(last) - start + 1, 1);
  const T size = static_cast<T>(length) / static_cast<T>(count);
  const auto inside = [&](T offset) {
    return std::clamp<int64_t>(start + static_cast<int64_t>(offset), 0, extent);
  };
  std::vector<Pixels> bins;
  for (int64_t bin = 0; bin < count; ++bin) {
    bins.push_back({inside(std::floor(static_cast<T>(bin) * size)),
                    inside(std::ceil(static_cast<T>(bin + 1) * size))});
  }
  return bins;
}

/// Of a bin of a plane of `width` columns; 0 where it is empty.
template <typename T>
T Largest(const T* plane, int64_t width, const Pixels& rows, const Pixels& columns) {
  if (rows.first >= rows.last || columns.first >= columns.last) return T{0};
  T largest = std::numeric_limits<T>::lowest();
  for (int64_t row = rows.first; row < rows.last; ++row) {
    for (int64_t column = columns.first; column < columns.last; ++column)
      largest = std::max(largest, plane[row * width + column]);
  }
  return largest;
}

template <typename T>
absl::Status RunMaxRoiPool(const RoiPoolForm& form, const std::string& name,
                           std::span<const ConstTensorView> inputs, const TensorView& output) {
  const Shape& x = inputs[0].shape();
  const int64_t channels = x[1];
  T* y = output.as<T>();
  for (int64_t r = 0; r < inputs[1].shape()[0]; ++r) {
    const T* region = inputs[1].as<T>() + r * 5;
    const auto image = static_cast<double>(region[0]);
    if (!(image >= 0 && image < static_cast<double>(x[0])))
      return InvalidArgument("{}: region {} is of image {}, there are {}", name, r, image, x[0]);
    const auto at = [&](int i) {
      return static_cast<double>(region[i] * static_cast<T>(form.scale));
    };
    const std::vector<Pixels> rows = BinsOf<T>(at(2), at(4), form.height, x[2]);
    const std::vector<Pixels> columns = BinsOf<T>(at(1), at(3), form.width, x[3]);
    for (int64_t c = 0; c < channels; ++c) {
      const T* plane =
          inputs[0].as<T>() + (static_cast<int64_t>(image) * channels + c) * x[2] * x[3];
      for (const Pixels& row : rows) {
        for (const Pixels& column : columns) *y++ = Largest(plane, x[3], row, column);
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Kernel> MakeMaxRoiPool(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const RoiPoolForm form, FormOf(context.node));
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [form, name = Describe(context.node)](std::span<const ConstTensorView> inputs,
                                                     std::span<const TensorView> outputs) {
          return RunMaxRoiPool<T>(form, name, inputs, outputs[0]);
        };
      });
}

}  // namespace

std::span<const OpDef> MaxRoiPoolOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "MaxRoiPool", 1, INT_MAX, InferMaxRoiPool, MakeMaxRoiPool},
  };
  return kOps;
}

}  // namespace octet
