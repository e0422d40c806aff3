// Calibration: what values each activation takes, in memory per tensor and never per sample.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/recipe.h"
#include "engine/tensor/tensor.h"

namespace octet {

/// A closed range of reals.
struct Range {
  float min = 0;
  float max = 0;
  bool operator==(const Range&) const = default;
};

/// A histogram around zero whose bins merge in pairs when its range has to grow: after any number of
/// elements it holds kBins counts over [-limit, limit), limit a power of two, and the exact extremes.
/// Not thread-safe.
class Histogram {
 public:
  static constexpr int kBins = 8192;

  /// Adds finite elements. INVALID_ARGUMENT on the first NaN or infinity.
  absl::Status Add(std::span<const float> values);
  /// Adds the counts of another histogram.
  void Merge(const Histogram& other);

  uint64_t count() const { return count_; }
  Range extremes() const { return extremes_; }
  double limit() const { return limit_; }
  std::span<const uint64_t> bins() const { return bins_; }
  double bin_width() const { return 2 * limit_ / kBins; }
  double bin_center(int bin) const { return (bin + 0.5) * bin_width() - limit_; }

 private:
  void GrowTo(double magnitude);

  std::vector<uint64_t> bins_ = std::vector<uint64_t>(kBins);
  double limit_ = 0;  ///< 0: nothing but zeros so far.
  uint64_t count_ = 0;
  Range extremes_;
};

/// The range that `recipe.method` takes from a distribution; always contains 0, so that zero padding and
/// ReLU's zero are exact. Requires: histogram.count() > 0.
Range ChooseRange(const Histogram& histogram, const QuantizeRecipe& recipe);

/// Scale and zero point of a range for `dtype`. U8: asymmetric, scale = (max - min) / 255,
/// zero_point = round(-min / scale). I8: symmetric, scale = max(|min|, |max|) / 127, zero_point = 0. A range that is {0} gets
/// scale 1. Requires: range contains 0.
QuantParams ParamsFor(Range range, DType dtype);

/// Real-valued model inputs by name; each with one sample per index of axis 0.
using CalibrationSet = std::map<std::string, Tensor>;
/// Called with samples done and samples in all; return false to stop (CANCELLED).
using Progress = std::function<bool(int64_t done, int64_t total)>;

/// Runs the model over the set and returns a histogram for each of `values`.
/// Errors: INVALID_ARGUMENT naming the input for a missing or unknown input, an element type or shape that is not the model's,
/// an empty set, NaN or infinity in the data (with the sample's index) or in an activation; CANCELLED.
absl::StatusOr<std::map<ValueId, Histogram>> CollectHistograms(const Graph& graph,
                                                               std::span<const ValueId> values,
                                                               const CalibrationSet& set,
                                                               int threads,
                                                               const Progress& progress);

}  // namespace octet
