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

/// Sees one activation while the model runs over a calibration set; keeps what it needs of it and no more.
class Collector {
 public:
  virtual ~Collector() = default;
  /// Takes in one batch, F32. INVALID_ARGUMENT on NaN or infinity.
  virtual absl::Status Observe(ConstTensorView batch) = 0;
};

/// A histogram around zero whose bins merge in pairs when its range has to grow: after any number of
/// elements it holds kBins counts over [-limit, limit), limit a power of two, and the exact extremes.
/// Not thread-safe.
class Histogram : public Collector {
 public:
  static constexpr int kBins = 8192;

  /// Adds finite elements. INVALID_ARGUMENT on the first NaN or infinity.
  absl::Status Add(std::span<const float> values);
  absl::Status Observe(ConstTensorView batch) override { return Add(batch.span<float>()); }
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

/// Mean, mean square and extremes of every index along one axis.
class ChannelMoments : public Collector {
 public:
  explicit ChannelMoments(int axis) : axis_(axis) {}
  absl::Status Observe(ConstTensorView batch) override;
  /// Each with one element per index; empty before the first batch.
  std::vector<double> means() const { return PerElement(sums_); }
  std::vector<double> mean_squares() const { return PerElement(squares_); }
  const std::vector<Range>& extremes() const { return extremes_; }

 private:
  std::vector<double> PerElement(std::vector<double> sums) const;

  int axis_;
  std::vector<double> sums_;
  std::vector<double> squares_;
  std::vector<Range> extremes_;
  int64_t count_ = 0;  ///< Elements per index.
};

/// The range that `recipe.method` takes (kAuto: min-max) from a distribution; always contains 0, so that zero padding and
/// ReLU's zero are exact. Requires: histogram.count() > 0.
Range ChooseRange(const Histogram& histogram, const QuantizeRecipe& recipe);

/// Widens a range, at most twofold, until its 8-bit grid rounds the distribution with the least squared error. A model's input
/// often holds a sensor's integers times a factor: the grid then falls on them and rounds nothing, or at least avoids lying
/// half a step beside all of them. Requires: range contains 0.
Range FitGrid(const Histogram& histogram, Range range, DType dtype);

/// Scale and zero point of a range for `dtype`. U8: asymmetric, scale = (max - min) / 255,
/// zero_point = round(-min / scale). I8: symmetric, scale = max(|min|, |max|) / 127, zero_point = 0. A range that is {0} gets
/// scale 1. Requires: range contains 0.
QuantParams ParamsFor(Range range, DType dtype);

/// Real-valued model inputs by name; each with one sample per index of axis 0.
using CalibrationSet = std::map<std::string, Tensor>;
/// Called with samples done and samples in all; return false to stop (CANCELLED).
using Progress = std::function<bool(int64_t done, int64_t total)>;

/// How the model runs while it is calibrated.
struct CalibrationRun {
  int threads = 1;
  std::vector<std::string> disabled_passes;  ///< Graph passes to leave out, by name.
  Progress progress;
  /// The class of each sample of the whole set, where it is known; read for AccuracyFloor::Kind::kMaxDrop alone.
  std::vector<int64_t> labels;
};

/// How a model ran over a set.
struct RunFigures {
  double seconds_per_sample = 0;  ///< In the fastest run.
  double int8_share = 0;          ///< Of the multiply-adds, 0..1, as the certificate has it.
};

/// Who looks at which activation.
struct Observation {
  ValueId value = kNone;
  Collector* collector = nullptr;
};

/// Runs the model in `precision` over the set and shows every batch of each value to its collectors; some values may be graph
/// inputs, and a value may have several collectors.
/// Errors: INVALID_ARGUMENT naming the input for a missing or unknown input, an element type or shape that is not the model's,
/// an empty set, fewer samples than a fixed batch takes, NaN or infinity in the data (with the sample's index) or in an
/// activation; CANCELLED when `progress` says so.
absl::Status Calibrate(const Graph& graph, std::span<const Observation> observations,
                       const CalibrationSet& set, const CalibrationRun& run,
                       Precision precision = Precision::kFp32, RunFigures* figures = nullptr);

}  // namespace octet
