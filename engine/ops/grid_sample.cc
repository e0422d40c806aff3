// Sampling at positions that are data: GridSample, and AffineGrid, which makes such positions.
//   Source: ONNX GridSample-16, -20, -22; AffineGrid-20.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

enum class Mode { kNearest, kLinear, kCubic };
enum class Padding { kZeros, kBorder, kReflection };
constexpr int kMostAxes = 3;

struct SampleAttributes {
  Mode mode = Mode::kLinear;
  Padding padding = Padding::kZeros;
  bool align_corners = false;
};

absl::StatusOr<SampleAttributes> ReadAttributes(const Node& node) {
  SampleAttributes a;
  OCTET_ASSIGN_OR_RETURN(const std::string mode, node.attributes.String("mode", "linear"));
  OCTET_ASSIGN_OR_RETURN(const std::string padding,
                         node.attributes.String("padding_mode", "zeros"));
  OCTET_ASSIGN_OR_RETURN(const int64_t align, node.attributes.Int("align_corners", 0));
  if (mode == "nearest") {
    a.mode = Mode::kNearest;
  } else if (mode == "cubic" || mode == "bicubic") {
    a.mode = Mode::kCubic;
  } else if (mode != "linear" && mode != "bilinear") {
    return InvalidArgument("{}: unknown 'mode': '{}'", Describe(node), mode);
  }
  if (padding == "border") {
    a.padding = Padding::kBorder;
  } else if (padding == "reflection") {
    a.padding = Padding::kReflection;
  } else if (padding != "zeros") {
    return InvalidArgument("{}: unknown 'padding_mode': '{}'", Describe(node), padding);
  }
  a.align_corners = align != 0;
  return a;
}

/// x [N, C, d...], grid [N, o..., D]: y [N, C, o...], where D is the number of axes d.
absl::Status InferGridSample(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kNumbers));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kFloats));
  const int most = context.node().version < 20 ? 4 : kMostAxes + 2;
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 3, most));
  OCTET_RETURN_IF_ERROR(ReadAttributes(context.node()).status());
  if (!context.shape(0) || !context.shape(1))
    return context.SetOutput(0, context.dtype(0), std::nullopt);
  const Shape& x = *context.shape(0);
  const Shape& grid = *context.shape(1);
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, x.rank(), x.rank()));
  const bool batches = x[0] == grid[0] || x[0] == kUnknownDim || grid[0] == kUnknownDim;
  if (!batches || (grid.back() != x.rank() - 2 && grid.back() != kUnknownDim))
    return context.Error(Format("grid {} does not fit {}", grid.ToString(), x.ToString()));
  Shape out{x[0], x[1]};
  for (int i = 1; i + 1 < grid.rank(); ++i) out.push_back(grid[i]);
  return context.SetOutput(0, context.dtype(0), std::move(out));
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

/// What a position on one axis takes from it: `index[t]` (-1: outside, a zero) with `weight[t]`.
struct Taps {
  int count = 0;
  std::array<int64_t, 4> index;
  std::array<double, 4> weight;
};

/// Weights of taps at distances 1 + f, f, 1 - f, 2 - f.
std::array<double, 4> CubicWeights(double f) {
  constexpr double kA = -0.75;
  const auto near = [](double d) { return ((kA + 2) * d - (kA + 3)) * d * d + 1; };
  const auto far = [](double d) { return ((d - 5) * d + 8) * d * kA - 4 * kA; };
  return {far(1 + f), near(f), near(1 - f), far(2 - f)};
}

/// The taps of grid coordinate `at`, -1 and 1 being the ends of the axis.
Taps TapsOf(const SampleAttributes& a, double at, int64_t extent) {
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
  Taps taps;
  if (a.mode == Mode::kNearest) {
    taps.count = 1;
    taps.index[0] = resolve(std::trunc(x));
    taps.weight[0] = 1;
    return taps;
  }
  const double base = std::floor(x);
  const double f = x - base;
  taps.count = a.mode == Mode::kCubic ? 4 : 2;
  if (a.mode == Mode::kCubic) {
    taps.weight = CubicWeights(f);
  } else {
    taps.weight[0] = 1 - f;
    taps.weight[1] = f;
  }
  const double first = a.mode == Mode::kCubic ? base - 1 : base;
  for (int t = 0; t < taps.count; ++t) taps.index[t] = resolve(first + t);
  return taps;
}

/// The weighted sum over the taps of axes [axis, axes), in a plane of the given extents.
template <typename T>
double Sample(const T* plane, std::span<const Taps> taps, std::span<const int64_t> extents) {
  if (taps.empty()) return static_cast<double>(*plane);
  int64_t step = 1;
  for (const int64_t extent : extents.subspan(1)) step *= extent;
  double sum = 0;
  for (int t = 0; t < taps[0].count; ++t) {
    if (taps[0].index[t] < 0) continue;
    sum += taps[0].weight[t] *
           Sample(plane + taps[0].index[t] * step, taps.subspan(1), extents.subspan(1));
  }
  return sum;
}

absl::StatusOr<Kernel> MakeGridSample(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const SampleAttributes attributes, ReadAttributes(context.node));
  const Shape& x = context.inputs[0].shape();
  const Shape& out = context.outputs[0].shape;
  const size_t axes = static_cast<size_t>(x.rank()) - 2;
  const std::vector<int64_t> extents(x.begin() + 2, x.end());
  const int64_t plane = x.elements(2, x.rank());
  const int64_t points = out.elements(2, out.rank());
  const int64_t channels = x[1];
  if (plane == 0 && out.elements() != 0)
    return InvalidArgument("{}: nothing to sample from in {}", Describe(context.node),
                           x.ToString());
  const bool wide_grid = context.inputs[1].dtype() == DType::kF64;
  return KernelFor(
      kNumberKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          ParallelFor(out[0] * points, 256, [&](int64_t begin, int64_t end) {
            std::array<Taps, kMostAxes> taps;
            for (int64_t p = begin; p < end; ++p) {
              // The grid names the last axis first.
              for (size_t d = 0; d < axes; ++d) {
                const size_t at = static_cast<size_t>(p) * axes + (axes - 1 - d);
                const double position =
                    wide_grid ? inputs[1].as<double>()[at] : inputs[1].as<float>()[at];
                taps[d] = TapsOf(attributes, position, extents[d]);
              }
              for (int64_t c = 0; c < channels; ++c) {
                const int64_t image = p / points * channels + c;
                outputs[0].as<T>()[image * points + p % points] = static_cast<T>(Sample(
                    inputs[0].as<T>() + image * plane, std::span(taps).first(axes), extents));
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
  if (axes < 2 || axes > kMostAxes || !CheckedElements(*size))
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
            std::array<double, kMostAxes + 1> from{};
            int64_t rest = p;
            for (int i = 0; i < axes; ++i) {  // x first: the last axis.
              const int64_t extent = out[axes - i];
              const auto k = static_cast<double>(rest % extent);
              const auto n = static_cast<double>(extent);
              from[i] = align == 0 ? (2 * k + 1) / n - 1 : extent == 1 ? -1 : 2 * k / (n - 1) - 1;
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
      {kOnnxDomain, "GridSample", 16, INT_MAX, InferGridSample, MakeGridSample},
      {kOnnxDomain, "AffineGrid", 20, INT_MAX, InferAffineGrid, MakeAffineGrid},
  };
  return kOps;
}

}  // namespace octet
