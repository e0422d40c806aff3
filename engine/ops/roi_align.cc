// RoiAlign: regions of an image, each resampled to one size.
//   Source: ONNX RoiAlign-10, -16, -22.
#include "engine/ops/roi_align.h"

#include <algorithm>
#include <cmath>
#include <ranges>
#include <string>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {

absl::StatusOr<RoiForm> RoiFormOf(const Node& node) {
  constexpr int64_t kMost = int64_t{1} << 16;
  RoiForm form;
  OCTET_ASSIGN_OR_RETURN(form.height, node.attributes.Int("output_height", 1));
  OCTET_ASSIGN_OR_RETURN(form.width, node.attributes.Int("output_width", 1));
  OCTET_ASSIGN_OR_RETURN(form.samples, node.attributes.Int("sampling_ratio", 0));
  OCTET_ASSIGN_OR_RETURN(form.scale, node.attributes.Float("spatial_scale", 1));
  OCTET_ASSIGN_OR_RETURN(const std::string mode, node.attributes.String("mode", "avg"));
  const char* fallback = node.version < 16 ? "output_half_pixel" : "half_pixel";
  OCTET_ASSIGN_OR_RETURN(const std::string coordinates,
                         node.attributes.String("coordinate_transformation_mode", fallback));
  if (mode != "avg" && mode != "max")
    return InvalidArgument("{}: unknown 'mode': '{}'", Describe(node), mode);
  if (coordinates != "half_pixel" && coordinates != "output_half_pixel") {
    return InvalidArgument("{}: unknown 'coordinate_transformation_mode': '{}'", Describe(node),
                           coordinates);
  }
  if (form.height < 1 || form.width < 1 || form.samples < 0 || form.height > kMost ||
      form.width > kMost || form.samples > kMost) {
    return InvalidArgument("{}: impossible output of {} by {} with {} samples", Describe(node),
                           form.height, form.width, form.samples);
  }
  form.offset = coordinates == "half_pixel" ? 0.5 : 0;
  form.largest = mode == "max";
  return form;
}

RoiSample LocateRoiSample(double at, int64_t extent) {
  at = std::max(at, 0.0);
  const auto low = static_cast<int64_t>(at);
  if (low >= extent - 1) return {extent - 1, extent - 1, 0};
  return {low, low + 1, at - static_cast<double>(low)};
}

RoiBins RoiBinsOf(const RoiForm& form, double first, double last, int64_t bins) {
  const double start = first * form.scale - form.offset;
  double length = last * form.scale - form.offset - start;
  if (form.offset == 0) length = std::max(length, 1.0);
  const double size = length / static_cast<double>(bins);
  // Regions arrive with requests: none may ask for more samples than any image has pixels.
  const double wanted = form.samples > 0 ? static_cast<double>(form.samples) : std::ceil(size);
  const double samples = std::isnan(wanted) ? 0 : std::clamp(wanted, 0.0, 0x1p12);
  return {start, size, static_cast<int64_t>(samples)};
}

std::vector<RoiInside> RoiInsideOf(const RoiBins& bins, int64_t count, int64_t extent) {
  const auto within = [&](double at) { return at >= -1 && at <= static_cast<double>(extent); };
  const auto before = [&](double at) {
    return bins.size < 0 ? !(at <= static_cast<double>(extent)) : !(at >= -1);
  };
  const auto samples = std::views::iota(0, static_cast<int>(bins.samples));
  std::vector<RoiInside> inside;
  for (int64_t bin = 0; bin < count; ++bin) {
    const auto at = [&](int64_t sample) { return bins.At(bin, sample); };
    const auto first = std::ranges::partition_point(samples, before, at);
    const auto last = std::ranges::partition_point(first, samples.end(), within, at);
    inside.push_back({first - samples.begin(), last - samples.begin()});
  }
  return inside;
}

absl::Status CheckRoiImages(const int64_t* images, int64_t regions, int64_t count,
                            std::string_view who) {
  for (int64_t r = 0; r < regions; ++r) {
    if (images[r] < 0 || images[r] >= count)
      return InvalidArgument("{}: region {} is of image {}, there are {}", who, r, images[r],
                             count);
  }
  return absl::OkStatus();
}

namespace {

/// x [N, C, H, W], regions [R, 4] as x1 y1 x2 y2, the image of each [R]: y [R, C, height, width].
absl::Status InferRoiAlign(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 3, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 2, {DType::kI64}));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 4, 4));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 2, 1, 1));
  OCTET_ASSIGN_OR_RETURN(const RoiForm form, RoiFormOf(context.node()));
  const int64_t regions = context.shape(1) ? (*context.shape(1))[0] : kUnknownDim;
  OCTET_RETURN_IF_ERROR(ExpectVector(context, 2, regions));
  if (context.shape(1) && (*context.shape(1))[1] != 4 && (*context.shape(1))[1] != kUnknownDim)
    return context.Error(Format("regions {} need four numbers each", context.shape(1)->ToString()));
  const int64_t channels = context.shape(0) ? (*context.shape(0))[1] : kUnknownDim;
  return context.SetOutput(0, context.dtype(0), Shape{regions, channels, form.height, form.width});
}

/// One axis of one region: its bins, the samples of each inside the image, and the image's extent.
struct Axis {
  RoiBins bins;
  int64_t extent = 1;
  std::vector<RoiInside> inside;

  Axis(const RoiBins& all, int64_t count, int64_t image)
      : bins(all), extent(image), inside(RoiInsideOf(all, count, image)) {}
};

/// The mean or the largest of a bin's samples. Those outside of the image are 0.
template <typename T>
double Pool(const RoiForm& form, const T* plane, const Axis& rows, const Axis& columns, int64_t row,
            int64_t column) {
  const RoiInside down = rows.inside[row];
  const RoiInside across = columns.inside[column];
  double sum = 0;
  double largest = 0;
  bool first = true;
  for (int64_t i = down.first; i < down.last; ++i) {
    const RoiSample y = LocateRoiSample(rows.bins.At(row, i), rows.extent);
    for (int64_t j = across.first; j < across.last; ++j) {
      const RoiSample x = LocateRoiSample(columns.bins.At(column, j), columns.extent);
      const auto at = [&](int64_t r, int64_t c) {
        return static_cast<double>(plane[r * columns.extent + c]);
      };
      const double parts[4] = {(1 - y.f) * (1 - x.f) * at(y.low, x.low),
                               (1 - y.f) * x.f * at(y.low, x.high),
                               y.f * (1 - x.f) * at(y.high, x.low), y.f * x.f * at(y.high, x.high)};
      sum += parts[0] + parts[1] + parts[2] + parts[3];
      const double most = *std::ranges::max_element(parts);
      largest = first ? most : std::max(largest, most);
      first = false;
    }
  }
  const int64_t count = rows.bins.samples * columns.bins.samples;
  const bool all_inside = down.count() * across.count() == count;
  if (form.largest) return all_inside ? largest : std::max(largest, 0.0);
  return sum / static_cast<double>(std::max<int64_t>(count, 1));
}

absl::StatusOr<Kernel> MakeRoiAlign(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const RoiForm form, RoiFormOf(context.node));
  const Shape x = context.inputs[0].shape();
  const int64_t regions = context.outputs[0].shape[0];
  if (x[2] * x[3] == 0) return InvalidArgument("{}: an empty image", Describe(context.node));
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=, name = Describe(context.node)](
                   std::span<const ConstTensorView> inputs,
                   std::span<const TensorView> outputs) -> absl::Status {
          const int64_t* images = inputs[2].as<int64_t>();
          OCTET_RETURN_IF_ERROR(CheckRoiImages(images, regions, x[0], name));
          ParallelFor(regions * x[1], 1, [&](int64_t begin, int64_t end) {
            for (int64_t k = begin; k < end; ++k) {
              const T* roi = inputs[1].as<T>() + k / x[1] * 4;
              const Axis columns(RoiBinsOf(form, static_cast<double>(roi[0]),
                                           static_cast<double>(roi[2]), form.width),
                                 form.width, x[3]);
              const Axis rows(RoiBinsOf(form, static_cast<double>(roi[1]),
                                        static_cast<double>(roi[3]), form.height),
                              form.height, x[2]);
              const int64_t plane = images[k / x[1]] * x[1] + k % x[1];
              const T* from = inputs[0].as<T>() + plane * x[2] * x[3];
              T* to = outputs[0].as<T>() + k * form.height * form.width;
              for (int64_t o = 0; o < form.height * form.width; ++o) {
                to[o] =
                    static_cast<T>(Pool(form, from, rows, columns, o / form.width, o % form.width));
              }
            }
          });
          return absl::OkStatus();
        };
      });
}

}  // namespace

std::span<const OpDef> RoiAlignOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "RoiAlign", 10, INT_MAX, InferRoiAlign, MakeRoiAlign, LowerRoiAlign},
  };
  return kOps;
}

}  // namespace octet
