// Sampling at positions that are data: GridSample, and AffineGrid, which makes such positions.
//   Source: ONNX GridSample-16, -20, -22; AffineGrid-20.
#include "engine/ops/grid_sample.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/op_list.h"
#include "engine/ops/window.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// x [N, C, d...], grid [N, o..., D]: y [N, C, o...], where D is the number of axes d; with channels_last x is [N, d..., C],
/// and y [N, o..., C].
absl::Status InferGridSample(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kNumbers));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kFloats));
  const int most = context.node().version < 20 ? 4 : kMostSampledAxes + 2;
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 3, most));
  OCTET_RETURN_IF_ERROR(ReadSampleAttributes(context.node()).status());
  if (!context.shape(0) || !context.shape(1))
    return context.SetOutput(0, context.dtype(0), std::nullopt);
  const Shape& x = *context.shape(0);
  const Shape& grid = *context.shape(1);
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, x.rank(), x.rank()));
  const bool batches = x[0] == grid[0] || x[0] == kUnknownDim || grid[0] == kUnknownDim;
  if (!batches || (grid.back() != x.rank() - 2 && grid.back() != kUnknownDim))
    return context.Error(Format("grid {} does not fit {}", grid.ToString(), x.ToString()));
  const bool last = context.node().attributes.IntOr("channels_last", 0) != 0;
  return context.SetOutput(
      0, context.dtype(0),
      JoinShape(x[0], last ? x.back() : x[1],
                grid.dims().subspan(1, static_cast<size_t>(grid.rank()) - 2), last));
}

/// Folds x back into [low, high] as often as it takes.
double Reflect(double x, double low, double high) {
  const double range = high - low;
  if (range <= 0) return low;
  const double period = 2 * range;
  double offset = std::fmod(x - low, period);
  if (offset < 0) offset += period;
  return low + (offset <= range ? offset : period - offset);
}

/// Weights of taps at distances 1 + f, f, 1 - f, 2 - f.
std::array<double, 4> CubicWeights(double f) {
  constexpr double kA = -0.75;
  const auto near = [](double d) { return ((kA + 2) * d - (kA + 3)) * d * d + 1; };
  const auto far = [](double d) { return ((d - 5) * d + 8) * d * kA - 4 * kA; };
  return {far(1 + f), near(f), near(1 - f), far(2 - f)};
}

}  // namespace

absl::StatusOr<SampleAttributes> ReadSampleAttributes(const Node& node) {
  SampleAttributes a;
  OCTET_ASSIGN_OR_RETURN(const std::string mode, node.attributes.String("mode", "linear"));
  OCTET_ASSIGN_OR_RETURN(const std::string padding,
                         node.attributes.String("padding_mode", "zeros"));
  OCTET_ASSIGN_OR_RETURN(const int64_t align, node.attributes.Int("align_corners", 0));
  if (mode == "nearest") {
    a.mode = SampleAttributes::Mode::kNearest;
  } else if (mode == "cubic" || mode == "bicubic") {
    a.mode = SampleAttributes::Mode::kCubic;
  } else if (mode != "linear" && mode != "bilinear") {
    return InvalidArgument("{}: unknown 'mode': '{}'", Describe(node), mode);
  }
  if (padding == "border") {
    a.padding = SampleAttributes::Padding::kBorder;
  } else if (padding == "reflection") {
    a.padding = SampleAttributes::Padding::kReflection;
  } else if (padding != "zeros") {
    return InvalidArgument("{}: unknown 'padding_mode': '{}'", Describe(node), padding);
  }
  a.align_corners = align != 0;
  a.channels_last = node.attributes.IntOr("channels_last", 0) != 0;
  return a;
}

SampleTaps SampleTapsOf(const SampleAttributes& a, double at, int64_t extent) {
  using Mode = SampleAttributes::Mode;
  using Padding = SampleAttributes::Padding;
  const auto length = static_cast<double>(extent);
  const double low = a.align_corners ? 0 : -0.5;
  const double high = a.align_corners ? length - 1 : length - 0.5;
  double x = a.align_corners ? (at + 1) / 2 * (length - 1) : ((at + 1) * length - 1) / 2;
  if (!std::isfinite(x)) x = -0x1p30;  // Far outside, whatever outside means.
  x = std::clamp(x, -0x1p30, 0x1p30);
  if (a.mode == Mode::kNearest) x = std::nearbyint(x);
  if (x < low || x > high) {
    // A cubic's taps are clamped each on its own, as PyTorch and ONNX Runtime do it: outside, the curve goes on.
    if (a.padding == Padding::kBorder && a.mode != Mode::kCubic) x = std::clamp(x, 0.0, length - 1);
    if (a.padding == Padding::kReflection) x = Reflect(x, low, high);
  }
  const auto resolve = [&](double position) -> int64_t {
    const bool inside = position >= 0 && position <= length - 1;
    if (inside) return static_cast<int64_t>(position);
    if (a.padding == Padding::kZeros) return -1;
    if (a.padding == Padding::kReflection) position = std::trunc(Reflect(position, low, high));
    return static_cast<int64_t>(std::clamp(position, 0.0, length - 1));
  };
  SampleTaps taps;
  if (a.mode == Mode::kNearest) {
    taps.index[0] = resolve(std::trunc(x));
    taps.weight[0] = 1;
    return taps;
  }
  const double base = std::floor(x);
  const double f = x - base;
  if (a.mode == Mode::kCubic) {
    taps.weight = CubicWeights(f);
  } else {
    taps.weight[0] = 1 - f;
    taps.weight[1] = f;
  }
  const double first = a.mode == Mode::kCubic ? base - 1 : base;
  for (int t = 0; t < a.taps(); ++t) taps.index[t] = resolve(first + t);
  return taps;
}

namespace {

/// The weighted sum over `count` taps of each axis of a plane of the given extents, whose elements are `step` apart.
template <typename T>
double Sample(const T* plane, int64_t step, int count, std::span<const SampleTaps> taps,
              std::span<const int64_t> extents) {
  if (taps.empty()) return static_cast<double>(*plane);
  const int64_t element = step;
  for (const int64_t extent : extents.subspan(1)) step *= extent;
  double sum = 0;
  for (int t = 0; t < count; ++t) {
    if (taps[0].index[t] < 0) continue;
    sum += taps[0].weight[t] * Sample(plane + taps[0].index[t] * step, element, count,
                                      taps.subspan(1), extents.subspan(1));
  }
  return sum;
}

absl::StatusOr<Kernel> MakeGridSample(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const SampleAttributes attributes, ReadSampleAttributes(context.node));
  const Shape& x = context.inputs[0].shape();
  const Shape& out = context.outputs[0].shape;
  const bool last = attributes.channels_last;
  const size_t axes = static_cast<size_t>(x.rank()) - 2;
  const std::vector<int64_t> extents = SpatialExtents(x, last);
  const int64_t channels = x[last ? x.rank() - 1 : 1];
  const int64_t plane = last ? x.elements(1, x.rank() - 1) : x.elements(2, x.rank());
  const int64_t points = last ? out.elements(1, out.rank() - 1) : out.elements(2, out.rank());
  if (plane == 0 && out.elements() != 0)
    return InvalidArgument("{}: nothing to sample from in {}", Describe(context.node),
                           x.ToString());
  const bool wide_grid = context.inputs[1].dtype() == DType::kF64;
  return KernelFor(
      kNumberKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          ParallelFor(out[0] * points, 256, [&](int64_t begin, int64_t end) {
            std::array<SampleTaps, kMostSampledAxes> taps;
            for (int64_t p = begin; p < end; ++p) {
              // The grid names the last axis first.
              for (size_t d = 0; d < axes; ++d) {
                const size_t at = static_cast<size_t>(p) * axes + (axes - 1 - d);
                const double position =
                    wide_grid ? inputs[1].as<double>()[at] : inputs[1].as<float>()[at];
                taps[d] = SampleTapsOf(attributes, position, extents[d]);
              }
              for (int64_t c = 0; c < channels; ++c) {
                const int64_t image = p / points;
                const int64_t at =
                    last ? p * channels + c : (image * channels + c) * points + p % points;
                const T* from = inputs[0].as<T>() + image * channels * plane;
                outputs[0].as<T>()[at] =
                    static_cast<T>(Sample(from + (last ? c : c * plane), last ? channels : 1,
                                          attributes.taps(), std::span(taps).first(axes), extents));
              }
            }
          });
          return absl::OkStatus();
        };
      });
}

/// theta [N, D, D + 1], size [N, C, d...] as a list: grid [N, d..., D].
absl::Status InferAffineGrid(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, {DType::kI64}));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 3, 3));
  const auto size = context.ConstantInts(1);
  if (!size) return context.SetOutput(0, context.dtype(0), std::nullopt);
  const int axes = static_cast<int>(size->size()) - 2;
  if (axes < 2 || axes > kMostSampledAxes || !CheckedElements(*size))
    return context.Error(Format("impossible size: {}", Shape(*size).ToString()));
  const auto& theta = context.shape(0);
  if (theta && theta->is_static() && *theta != Shape{size->front(), axes, axes + 1}) {
    return context.Error(
        Format("theta {} does not fit size {}", theta->ToString(), Shape(*size).ToString()));
  }
  Shape out{size->front()};
  for (int i = 0; i < axes; ++i) out.push_back((*size)[static_cast<size_t>(i) + 2]);
  out.push_back(axes);
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

/// grid[n, o...] = theta[n] (x, [y, z,] 1), where x runs from -1 to 1 along the last axis.
absl::StatusOr<Kernel> MakeAffineGrid(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const int64_t align, context.node.attributes.Int("align_corners", 0));
  if (context.inputs[1].data == nullptr)
    return Unimplemented("{}: its size is known only when it runs", Describe(context.node));
  const Shape out = context.outputs[0].shape;
  const int axes = static_cast<int>(out.back());
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          const int64_t points = out.elements(1, out.rank() - 1);
          for (int64_t p = 0; p < out[0] * points; ++p) {
            std::array<double, kMostSampledAxes + 1> from{};
            int64_t rest = p;
            for (int i = 0; i < axes; ++i) {  // x first: the last axis.
              const int64_t extent = out[axes - i];
              from[i] = AffineCoordinate(rest % extent, extent, align != 0);
              rest /= extent;
            }
            from[axes] = 1;
            for (int row = 0; row < axes; ++row) {
              const T* theta = inputs[0].as<T>() + (p / points * axes + row) * (axes + 1);
              double sum = 0;
              for (int i = 0; i <= axes; ++i) sum += static_cast<double>(theta[i]) * from[i];
              outputs[0].as<T>()[p * axes + row] = static_cast<T>(sum);
            }
          }
          return absl::OkStatus();
        };
      });
}

}  // namespace

std::span<const OpDef> GridSampleOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "GridSample", 16, INT_MAX, InferGridSample, MakeGridSample, LowerGridSample},
      {kOnnxDomain, "AffineGrid", 20, INT_MAX, InferAffineGrid, MakeAffineGrid, LowerAffineGrid},
  };
  return kOps;
}

}  // namespace octet
