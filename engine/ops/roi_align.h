// Which samples RoiAlign takes from a region.
//   Source: ONNX RoiAlign-10, -16, -22.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/ops/step.h"

namespace octet {

struct RoiForm {
  int64_t height = 1;  ///< Of the output.
  int64_t width = 1;
  int64_t samples = 0;  ///< Per bin and axis; 0: as many as the bin has pixels.
  double scale = 1;
  double offset = 0;  ///< Half a pixel, or none before opset 16.
  bool largest = false;
};

/// INVALID_ARGUMENT naming node and value for unknown modes and outputs that no memory holds.
absl::StatusOr<RoiForm> RoiFormOf(const Node& node);

/// Where a sample lies along one axis: between pixels `low` and `high`, `f` of the way.
struct RoiSample {
  int64_t low = 0;
  int64_t high = 0;
  double f = 0;
};

/// Requires: `at` lies inside, in [-1, extent].
RoiSample LocateRoiSample(double at, int64_t extent);

/// One axis of a region: where its bins begin, how long each is, and how many samples it takes.
struct RoiBins {
  double start = 0;
  double size = 0;
  int64_t samples = 1;

  double At(int64_t bin, int64_t sample) const {
    return start + (static_cast<double>(bin) +
                    (static_cast<double>(sample) + 0.5) / static_cast<double>(samples)) *
                       size;
  }
};

/// The axis of a region that reaches from `first` to `last`, cut into `bins` bins.
RoiBins RoiBinsOf(const RoiForm& form, double first, double last, int64_t bins);

/// Samples [first, last) of a bin, those that lie inside the image.
struct RoiInside {
  int64_t first = 0;
  int64_t last = 0;

  int64_t count() const { return last - first; }
};

/// Of each of `count` bins of an axis of `extent` pixels. Regions may be far larger than their image: samples lie in order, so the
/// ends are searched for, and what a region costs follows from the image.
std::vector<RoiInside> RoiInsideOf(const RoiBins& bins, int64_t count, int64_t extent);

/// INVALID_ARGUMENT naming `who` and the first region of an image that is not there.
absl::Status CheckRoiImages(const int64_t* images, int64_t regions, int64_t count,
                            std::string_view who);

/// Means, in float, on values of any RealFormat: "octet:roi_align". UNIMPLEMENTED for the largest of the samples, and for other types.
absl::StatusOr<std::unique_ptr<Step>> LowerRoiAlign(const LowerContext& context);

}  // namespace octet
