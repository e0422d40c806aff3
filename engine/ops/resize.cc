// Interpolation on a new grid: Resize, and Upsample as opsets before 10 call it. One axis after the other: an output is a
// weighted sum of a few inputs along that axis.
//   Source: ONNX Resize-10, -11, -13, -18, -19; Upsample-7, -9.
#include "engine/ops/resize.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

enum class Mode { kNearest, kLinear, kCubic };
enum class Coordinates {
  kHalfPixel,
  kHalfPixelSymmetric,
  kPytorchHalfPixel,
  kAlignCorners,
  kAsymmetric,
  kHalfPixelForNearest,
  kCropAndResize
};
enum class Rounding { kPreferFloor, kPreferCeil, kFloor, kCeil, kByScale };
enum class AspectRatio { kStretch, kNotLarger, kNotSmaller };

template <typename E>
struct Named {
  std::string_view name;
  E value;
};

/// The value that attribute `name` names, or `fallback`.
template <typename E, size_t kCount>
absl::StatusOr<E> ReadName(const Node& node, std::string_view name, const Named<E> (&known)[kCount],
                           E fallback) {
  if (!node.attributes.has(name)) return fallback;
  OCTET_ASSIGN_OR_RETURN(const std::string given, node.attributes.String(name, ""));
  for (const Named<E>& candidate : known) {
    if (candidate.name == given) return candidate.value;
  }
  return InvalidArgument("{}: unknown '{}': '{}'", Describe(node), name, given);
}

constexpr Named<Mode> kModes[] = {{"nearest", Mode::kNearest},
                                  {"linear", Mode::kLinear},
                                  {"bilinear", Mode::kLinear},
                                  {"cubic", Mode::kCubic}};
constexpr Named<Coordinates> kCoordinates[] = {
    {"half_pixel", Coordinates::kHalfPixel},
    {"half_pixel_symmetric", Coordinates::kHalfPixelSymmetric},
    {"pytorch_half_pixel", Coordinates::kPytorchHalfPixel},
    {"align_corners", Coordinates::kAlignCorners},
    {"asymmetric", Coordinates::kAsymmetric},
    {"tf_half_pixel_for_nn", Coordinates::kHalfPixelForNearest},
    {"tf_crop_and_resize", Coordinates::kCropAndResize}};
constexpr Named<Rounding> kRoundings[] = {{"round_prefer_floor", Rounding::kPreferFloor},
                                          {"round_prefer_ceil", Rounding::kPreferCeil},
                                          {"floor", Rounding::kFloor},
                                          {"ceil", Rounding::kCeil}};
constexpr Named<AspectRatio> kAspectRatios[] = {{"stretch", AspectRatio::kStretch},
                                                {"not_larger", AspectRatio::kNotLarger},
                                                {"not_smaller", AspectRatio::kNotSmaller}};

struct ResizeAttributes {
  Mode mode = Mode::kNearest;
  Coordinates coordinates = Coordinates::kHalfPixel;
  Rounding rounding = Rounding::kPreferFloor;
  AspectRatio aspect_ratio = AspectRatio::kStretch;
  double cubic_a = -0.75;
  double extrapolation = 0;
  bool exclude_outside = false;
  bool antialias = false;
};

/// Before opset 11 there is one way: output o lies at o / scale; nearest rounds up where the axis shrinks, else down.
/// ONNX says no more than its case test_resize_downsample_nearest; the rule is ONNX Runtime's.
bool IsUpsample(const Node& node) { return node.op == "Upsample" || node.version < 11; }

absl::StatusOr<ResizeAttributes> ReadAttributes(const Node& node) {
  ResizeAttributes a;
  OCTET_ASSIGN_OR_RETURN(a.mode, ReadName(node, "mode", kModes, Mode::kNearest));
  if (IsUpsample(node)) {
    a.coordinates = Coordinates::kAsymmetric;
    a.rounding = Rounding::kByScale;
    return a;
  }
  OCTET_ASSIGN_OR_RETURN(a.coordinates, ReadName(node, "coordinate_transformation_mode",
                                                 kCoordinates, Coordinates::kHalfPixel));
  OCTET_ASSIGN_OR_RETURN(a.rounding,
                         ReadName(node, "nearest_mode", kRoundings, Rounding::kPreferFloor));
  OCTET_ASSIGN_OR_RETURN(a.aspect_ratio, ReadName(node, "keep_aspect_ratio_policy", kAspectRatios,
                                                  AspectRatio::kStretch));
  OCTET_ASSIGN_OR_RETURN(a.cubic_a, node.attributes.Float("cubic_coeff_a", -0.75F));
  OCTET_ASSIGN_OR_RETURN(a.extrapolation, node.attributes.Float("extrapolation_value", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t exclude, node.attributes.Int("exclude_outside", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t antialias, node.attributes.Int("antialias", 0));
  a.exclude_outside = exclude != 0;
  a.antialias = antialias != 0;
  return a;
}

/// Input slots: x, scales before opset 11; x, roi, scales, sizes since.
size_t ScalesSlot(const Node& node) { return IsUpsample(node) ? 1 : 2; }
constexpr size_t kRoi = 1;
constexpr size_t kSizes = 3;

/// Scale and output extent of every axis.
struct Grid {
  std::vector<double> scales;
  std::vector<int64_t> extents;
};

/// What a node says of its grid: scales or sizes, of all axes or of `axes`.
struct GridOperands {
  std::vector<float> scales;
  std::vector<int64_t> sizes;
  std::vector<int> axes;
};

constexpr double kMostExtent = 0x1p31;

/// Extents of the axes that keep their ratio: round(scale * in), one scale for all of them.
void KeepAspectRatio(AspectRatio policy, const std::vector<int>& axes, const Shape& in,
                     Grid& grid) {
  double scale = grid.scales[axes[0]];
  for (const int axis : axes) {
    scale = policy == AspectRatio::kNotLarger ? std::min(scale, grid.scales[axis])
                                              : std::max(scale, grid.scales[axis]);
  }
  for (const int axis : axes) {
    grid.scales[axis] = scale;
    grid.extents[axis] = std::llround(scale * static_cast<double>(in[axis]));
  }
}

/// floor(extent * scale), the product in float as ONNX and ONNX Runtime take it: 10 * 1.4F is 14, in double 13.9999998.
/// A scale of 1 keeps extents that no float holds.
double ScaledExtent(int64_t extent, float scale) {
  if (scale == 1) return static_cast<double>(extent);
  return std::floor(static_cast<float>(extent) * scale);
}

absl::StatusOr<Grid> MakeGrid(const Node& node, const ResizeAttributes& attributes,
                              const GridOperands& operands, const Shape& in) {
  Grid grid{std::vector<double>(static_cast<size_t>(in.rank()), 1.0), {in.begin(), in.end()}};
  const bool sized = !operands.sizes.empty();
  const size_t count = sized ? operands.sizes.size() : operands.scales.size();
  if (count != operands.axes.size()) {
    return InvalidArgument("{}: has {} scales or sizes for {} axes", Describe(node), count,
                           operands.axes.size());
  }
  for (size_t i = 0; i < count; ++i) {
    const int axis = operands.axes[i];
    const auto extent = static_cast<double>(in[axis]);
    const double out =
        sized ? static_cast<double>(operands.sizes[i]) : ScaledExtent(in[axis], operands.scales[i]);
    const double scale = sized ? out / extent : operands.scales[i];
    const bool empty = in[axis] == 0 && out == 0;
    if (!(out >= 0 && out <= kMostExtent) || (!empty && !(scale > 0 && std::isfinite(scale)))) {
      return InvalidArgument("{}: axis {} of {} cannot be resized to {} (scale {})", Describe(node),
                             axis, in.ToString(), out, scale);
    }
    grid.scales[axis] = empty ? 1 : scale;
    grid.extents[axis] = static_cast<int64_t>(out);
  }
  if (sized && attributes.aspect_ratio != AspectRatio::kStretch && count > 0)
    KeepAspectRatio(attributes.aspect_ratio, operands.axes, in, grid);
  return grid;
}

absl::StatusOr<std::vector<int>> ReadAxes(const Node& node, int rank) {
  std::vector<int64_t> axes;
  if (node.version >= 18 && node.op == "Resize") {
    OCTET_ASSIGN_OR_RETURN(axes, node.attributes.Ints("axes", {}));
  }
  if (!axes.empty()) return NormalizeNodeAxes(node, axes, rank);
  std::vector<int> all;
  for (int i = 0; i < rank; ++i) all.push_back(i);
  return all;
}

/// The grid's operands; nullopt while they are not constant. `floats` and `ints` give the elements of an input, or nullopt.
template <typename Floats, typename Ints>
absl::StatusOr<std::optional<GridOperands>> ReadOperands(const Node& node, int rank,
                                                         const Floats& floats, const Ints& ints) {
  GridOperands operands;
  OCTET_ASSIGN_OR_RETURN(operands.axes, ReadAxes(node, rank));
  if (node.op == "Upsample" && node.version < 9) {
    OCTET_ASSIGN_OR_RETURN(operands.scales, node.attributes.Floats("scales", {}));
    return operands;
  }
  const size_t slot = ScalesSlot(node);
  if (node.input(slot) != kNone) {
    const auto scales = floats(slot);
    if (!scales) return std::nullopt;
    operands.scales = *scales;
  }
  if (!operands.scales.empty()) return operands;
  if (IsUpsample(node) || node.input(kSizes) == kNone)
    return InvalidArgument("{}: has neither scales nor sizes", Describe(node));
  const auto sizes = ints(kSizes);
  if (!sizes) return std::nullopt;
  operands.sizes = *sizes;
  return operands;
}

absl::Status InferResize(InferContext& context) {
  const Node& node = context.node();
  const bool attribute = node.op == "Upsample" && node.version < 9;
  const size_t most = IsUpsample(node) ? (attribute ? 1 : 2) : 4;
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, most == 2 ? 2 : 1, most));
  OCTET_ASSIGN_OR_RETURN(const ResizeAttributes attributes, ReadAttributes(node));
  OCTET_RETURN_IF_ERROR(
      ExpectDType(context, 0, attributes.mode == Mode::kNearest ? kAnyTypes : kNumbers));
  if (!IsUpsample(node)) {
    OCTET_RETURN_IF_ERROR(ExpectDType(context, kRoi, {DType::kF32, DType::kF64, DType::kF16}));
    OCTET_RETURN_IF_ERROR(ExpectDType(context, kSizes, {DType::kI64}));
    OCTET_RETURN_IF_ERROR(ExpectRank(context, kSizes, 1, 1));
  }
  if (!attribute) {
    OCTET_RETURN_IF_ERROR(ExpectDType(context, ScalesSlot(node), {DType::kF32}));
    OCTET_RETURN_IF_ERROR(ExpectRank(context, ScalesSlot(node), 1, 1));
  }
  if (!context.shape(0)) {
    // Without a rank the operands cannot be checked, but they are asked for.
    for (const size_t i : {ScalesSlot(node), kSizes}) (void)context.constant(i);
    return context.SetOutput(0, context.dtype(0), std::nullopt);
  }
  const Shape& in = *context.shape(0);
  const auto floats = [&](size_t i) -> std::optional<std::vector<float>> {
    const Tensor* tensor = context.constant(i);
    if (tensor == nullptr || tensor->dtype() != DType::kF32) return std::nullopt;
    return std::vector<float>(tensor->span<float>().begin(), tensor->span<float>().end());
  };
  OCTET_ASSIGN_OR_RETURN(const auto operands, ReadOperands(node, in.rank(), floats, [&](size_t i) {
                           return context.ConstantInts(i);
                         }));
  if (!operands) return context.SetOutput(0, context.dtype(0), UnknownShape(in.rank()));
  Shape known = in;
  for (int i = 0; i < known.rank(); ++i) {
    if (known[i] == kUnknownDim) known[i] = 1;
  }
  OCTET_ASSIGN_OR_RETURN(const Grid grid, MakeGrid(node, attributes, *operands, known));
  Shape out(grid.extents);
  const bool exact = !operands->sizes.empty() && attributes.aspect_ratio == AspectRatio::kStretch;
  const bool partly = !in.is_static() && attributes.aspect_ratio != AspectRatio::kStretch;
  for (int i = 0; i < out.rank(); ++i) {
    const bool resized = std::ranges::contains(operands->axes, i);
    if (in[i] == kUnknownDim && !(exact && resized)) out[i] = kUnknownDim;
    if (partly && resized) out[i] = kUnknownDim;
    // A scale of 1 keeps what is not known yet.
  }
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

/// Where output o lies on the input axis, computed in T.
template <typename T>
T Position(Coordinates mode, int64_t o, int64_t in, int64_t out, T scale, T roi_start, T roi_end) {
  const auto x = static_cast<T>(o);
  const auto length = static_cast<T>(in);
  const T resized = scale * length;
  constexpr T kHalf{0.5};
  switch (mode) {
    case Coordinates::kHalfPixel:
      return (x + kHalf) / scale - kHalf;
    case Coordinates::kHalfPixelSymmetric:
      return length / 2 * (1 - static_cast<T>(out) / resized) + (x + kHalf) / scale - kHalf;
    case Coordinates::kPytorchHalfPixel:
      return out > 1 ? (x + kHalf) / scale - kHalf : 0;
    case Coordinates::kAlignCorners:
      return resized == 1 ? 0 : x * (length - 1) / (resized - 1);
    case Coordinates::kAsymmetric:
      return x / scale;
    case Coordinates::kHalfPixelForNearest:
      return (x + kHalf) / scale;
    case Coordinates::kCropAndResize:
      return roi_start * (length - 1) +
             (out > 1 ? x * (roi_end - roi_start) * (length - 1) / static_cast<T>(out - 1)
                      : (roi_end - roi_start) * (length - 1) / 2);
  }
  return 0;
}

/// Weights of an interpolation kernel: of a tap at distance d, stretched where antialiasing meets a scale below 1.
double KernelAt(const ResizeAttributes& a, double d) {
  d = std::abs(d);
  if (a.mode == Mode::kLinear) return std::max(0.0, 1 - d);
  if (d <= 1) return ((a.cubic_a + 2) * d - (a.cubic_a + 3)) * d * d + 1;
  if (d < 2) return ((d - 5) * d + 8) * d * a.cubic_a - 4 * a.cubic_a;
  return 0;
}

double RoundNearest(Rounding rounding, double x, double scale) {
  switch (rounding) {
    case Rounding::kPreferFloor:
      return std::ceil(x - 0.5);
    case Rounding::kPreferCeil:
      return std::floor(x + 0.5);
    case Rounding::kFloor:
      return std::floor(x);
    case Rounding::kCeil:
      return std::ceil(x);
    case Rounding::kByScale:
      return scale < 1 ? std::ceil(x) : std::floor(x);
  }
  return x;
}

/// Integers below are floats.
constexpr int64_t kExactFloats = int64_t{1} << 24;

AxisTable MakeTable(const ResizeAttributes& a, int64_t in, int64_t out, double scale,
                    double roi_start, double roi_end) {
  AxisTable table{.in = in, .out = out};
  if (out == 0) return table;
  const double stretch = a.antialias ? std::min(scale, 1.0) : 1.0;
  const double reach = (a.mode == Mode::kCubic ? 2 : 1) / stretch;
  const auto half = static_cast<int64_t>(std::ceil(reach));
  if (a.mode != Mode::kNearest) table.taps = 2 * half;
  // Where o / scale is whole, rounding must meet that number: 7 / 0.7F is 10 in float, 10.0000002 in double. Linear weights
  // are ONNX Runtime's to the bit, for what is rounded to 8 bits behind them is often a tie.
  const bool plain_linear = a.mode == Mode::kLinear && !a.antialias && !a.exclude_outside &&
                            a.coordinates != Coordinates::kCropAndResize;
  const bool in_float = (plain_linear && a.coordinates != Coordinates::kHalfPixelSymmetric) ||
                        (a.mode == Mode::kNearest && a.coordinates == Coordinates::kAsymmetric);
  // A stretched kernel is never wider than the input needs.
  for (int64_t o = 0; o < out; ++o) {
    double x = Position(a.coordinates, o, in, out, scale, roi_start, roi_end);
    const auto last = static_cast<double>(in - 1);
    if (in_float && o < kExactFloats)
      x = Position(a.coordinates, o, in, out, static_cast<float>(scale), 0.0F, 1.0F);
    // Beyond the ends all taps are the last element, which shares that add up to 1 without rounding keep as it is.
    if (plain_linear) x = std::clamp(x, 0.0, last);
    if (plain_linear && x == last) {
      table.index.insert(table.index.end(), 2, in - 1);
      table.weight.insert(table.weight.end(), 2, 0.5);
      continue;
    }
    if (a.coordinates == Coordinates::kCropAndResize)
      table.outside.push_back(!(x >= 0 && x <= last));
    if (a.mode == Mode::kNearest) {
      const double nearest = RoundNearest(a.rounding, std::clamp(x, -1.0, last + 1), scale);
      table.index.push_back(static_cast<int64_t>(std::clamp(nearest, 0.0, last)));
      table.weight.push_back(1);
      continue;
    }
    const double first = std::ceil(std::clamp(x, -1.0, last + 1)) - static_cast<double>(half);
    double sum = 0;
    for (int64_t t = 0; t < table.taps; ++t) {
      const double at = first + static_cast<double>(t);
      const bool inside = at >= 0 && at <= last;
      const double weight = a.exclude_outside && !inside ? 0 : KernelAt(a, (at - x) * stretch);
      table.index.push_back(static_cast<int64_t>(std::clamp(at, 0.0, last)));
      table.weight.push_back(weight);
      sum += weight;
    }
    for (int64_t t = 0; sum != 0 && t < table.taps; ++t)
      table.weight[static_cast<size_t>(o * table.taps + t)] /= sum;
  }
  return table;
}

/// Tables of all axes. `roi` has the starts of all resized axes, then their ends; empty where it does not matter.
std::vector<AxisTable> MakeTables(const ResizeAttributes& attributes, const Grid& grid,
                                  const Shape& in, const std::vector<int>& axes,
                                  std::span<const double> roi) {
  std::vector<AxisTable> tables;
  for (int axis = 0; axis < in.rank(); ++axis) {
    const auto at = static_cast<size_t>(std::ranges::find(axes, axis) - axes.begin());
    const bool cropped = at < axes.size() && roi.size() == 2 * axes.size();
    const double start = cropped ? roi[at] : 0;
    const double end = cropped ? roi[at + axes.size()] : 1;
    const bool same =
        grid.extents[axis] == in[axis] && grid.scales[axis] == 1 &&
        (attributes.coordinates != Coordinates::kCropAndResize || (start == 0 && end == 1));
    ResizeAttributes own = attributes;
    if (same) own = {.coordinates = Coordinates::kAsymmetric};
    tables.push_back(MakeTable(own, in[axis], grid.extents[axis], grid.scales[axis], start, end));
  }
  return tables;
}

/// Interpolates along one axis: src is [outer, table.in, inner].
std::vector<double> Interpolate(const std::vector<double>& src, const AxisTable& table,
                                int64_t outer, int64_t inner, double extrapolation) {
  std::vector<double> dst(static_cast<size_t>(outer * table.out * inner), 0.0);
  for (int64_t n = 0; n < outer; ++n) {
    for (int64_t o = 0; o < table.out; ++o) {
      double* row = dst.data() + (n * table.out + o) * inner;
      if (!table.outside.empty() && table.outside[o]) {
        std::fill_n(row, inner, extrapolation);
        continue;
      }
      for (int64_t t = 0; t < table.taps; ++t) {
        const auto at = static_cast<size_t>(o * table.taps + t);
        if (table.weight[at] == 0) continue;
        const double* from = src.data() + (n * table.in + table.index[at]) * inner;
        for (int64_t i = 0; i < inner; ++i) row[i] += table.weight[at] * from[i];
      }
    }
  }
  return dst;
}

template <typename T>
void RunInterpolation(const std::vector<AxisTable>& tables, double extrapolation, ConstTensorView x,
                      TensorView y) {
  std::vector<double> values(x.span<T>().begin(), x.span<T>().end());
  Shape shape = x.shape();
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const AxisTable& table = tables[axis];
    if (table.IsIdentity()) continue;
    values = Interpolate(values, table, shape.elements(0, axis),
                         shape.elements(axis + 1, shape.rank()), extrapolation);
    shape[axis] = table.out;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if constexpr (std::is_integral_v<T>) {
      using Limits = std::numeric_limits<T>;
      values[i] = std::clamp(values[i], static_cast<double>(Limits::min()),
                             static_cast<double>(Limits::max()));
      if (values[i] >= static_cast<double>(Limits::max())) {
        y.as<T>()[i] = Limits::max();
        continue;
      }
    }
    y.as<T>()[i] = static_cast<T>(values[i]);
  }
}

/// Moves whole elements of any type; T is the storage of y's.
template <typename T>
void RunNearest(const std::vector<AxisTable>& tables, double extrapolation, ConstTensorView x,
                TensorView y) {
  const Shape& out = y.shape();
  const auto strides = x.shape().strides();
  T fill{};
  ConvertTensor({&extrapolation, {DType::kF64, Shape{}}}, {&fill, {y.dtype(), Shape{}}});
  const int64_t count = out.elements();
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i;
    int64_t from = 0;
    bool outside = false;
    for (int axis = out.rank(); axis-- > 0; rest /= out[axis]) {
      const int64_t o = rest % out[axis];
      from += tables[axis].index[o] * strides[axis];
      outside = outside || (!tables[axis].outside.empty() && tables[axis].outside[o]);
    }
    y.as<T>()[i] = outside ? fill : x.as<T>()[from];
  }
}

std::vector<double> Reals(ConstTensorView view) {
  if (view.dtype() == DType::kF64) return {view.span<double>().begin(), view.span<double>().end()};
  return {view.span<float>().begin(), view.span<float>().end()};
}

/// All that a node says once its scales or sizes are known.
struct ResizeForm {
  ResizeAttributes attributes;
  Grid grid;
  std::vector<int> axes;

  bool crops() const { return attributes.coordinates == Coordinates::kCropAndResize; }
};

absl::StatusOr<ResizeForm> ReadForm(const KernelContext& context) {
  const Node& node = context.node;
  const Shape in = context.inputs[0].shape();
  OCTET_ASSIGN_OR_RETURN(const ResizeAttributes attributes, ReadAttributes(node));
  const auto floats = [&](size_t i) -> std::optional<std::vector<float>> {
    if (context.inputs[i].data == nullptr) return std::nullopt;
    const auto span = context.inputs[i].span<float>();
    return std::vector<float>(span.begin(), span.end());
  };
  const auto ints = [&](size_t i) -> std::optional<std::vector<int64_t>> {
    if (context.inputs[i].data == nullptr) return std::nullopt;
    return ToInts(context.inputs[i]);
  };
  OCTET_ASSIGN_OR_RETURN(const auto operands, ReadOperands(node, in.rank(), floats, ints));
  if (!operands)
    return Unimplemented("{}: scales or sizes are known only when it runs", Describe(node));
  OCTET_ASSIGN_OR_RETURN(const Grid grid, MakeGrid(node, attributes, *operands, in));
  if (Shape(grid.extents) != context.outputs[0].shape)
    return InvalidArgument("{}: leads to {}, expected {}", Describe(node),
                           Shape(grid.extents).ToString(), context.outputs[0].shape.ToString());
  if (in.elements() == 0 && context.outputs[0].shape.elements() != 0)
    return InvalidArgument("{}: cannot resize {} to {}", Describe(node), in.ToString(),
                           context.outputs[0].shape.ToString());
  return ResizeForm{attributes, grid, operands->axes};
}

absl::StatusOr<Kernel> MakeResize(const KernelContext& context) {
  const Node& node = context.node;
  const Shape in = context.inputs[0].shape();
  OCTET_ASSIGN_OR_RETURN(const ResizeForm form, ReadForm(context));
  const bool crops = form.crops();
  if (crops &&
      (node.input(kRoi) == kNone || context.inputs[kRoi].elements() != std::ssize(form.axes) * 2)) {
    return InvalidArgument("{}: tf_crop_and_resize needs a start and an end for each axis in 'roi'",
                           Describe(node));
  }
  const bool nearest = form.attributes.mode == Mode::kNearest;
  const auto make = [&]<typename T>(auto run) -> Kernel {
    std::vector<AxisTable> tables;
    if (!crops) tables = MakeTables(form.attributes, form.grid, in, form.axes, {});
    // Regions may arrive with the data: their tables are made when the node runs.
    return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
      if (outputs[0].elements() == 0) return absl::OkStatus();
      if (!crops) {
        run(tables, form.attributes.extrapolation, inputs[0], outputs[0]);
      } else {
        run(MakeTables(form.attributes, form.grid, in, form.axes, Reals(inputs[kRoi])),
            form.attributes.extrapolation, inputs[0], outputs[0]);
      }
      return absl::OkStatus();
    };
  };
  const DType dtype = context.inputs[0].dtype();
  if (nearest) {
    return KernelFor(kStorageKernels, StorageOf(dtype), node,
                     [&]<typename T>() { return make.template operator()<T>(RunNearest<T>); });
  }
  return KernelFor(kNumberKernels, dtype, node,
                   [&]<typename T>() { return make.template operator()<T>(RunInterpolation<T>); });
}

}  // namespace

bool ResizesByCopying(const Node& node) {
  if (!node.is("Resize") && !node.is("Upsample")) return false;
  const auto attributes = ReadAttributes(node);
  return attributes.ok() && attributes->mode == Mode::kNearest &&
         attributes->coordinates != Coordinates::kCropAndResize;
}

absl::StatusOr<std::vector<AxisTable>> ResizeTables(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const ResizeForm form, ReadForm(context));
  if (form.crops()) return Unimplemented("resizes regions");
  return MakeTables(form.attributes, form.grid, context.inputs[0].shape(), form.axes, {});
}

std::span<const OpDef> ResizeOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "Resize", 10, INT_MAX, InferResize, MakeResize, LowerResize},
      {kOnnxDomain, "Upsample", 7, 9, InferResize, MakeResize, LowerResize},
  };
  return kOps;
}

}  // namespace octet
