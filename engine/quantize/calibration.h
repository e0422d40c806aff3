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
/// Both ends times a factor >= 0, or the largest floats.
Range Times(Range range, double factor);

/// Sees one activation while the model runs over a calibration set; keeps what it needs of it and no more.
class Collector {
 public:
  virtual ~Collector() = default;
  /// Takes in one batch, F32. INVALID_ARGUMENT on NaN or infinity.
  virtual absl::Status Observe(ConstTensorView batch) = 0;
};

/// A histogram around zero whose bins merge in pairs when its range has to grow: after any number of
/// elements it holds kBins counts (or as many as were asked for) over [-limit, limit), limit a power of two, and the exact extremes.
/// Not thread-safe.
class Histogram : public Collector {
 public:
  static constexpr int kBins = 8192;

  /// Requires: bins a multiple of 4.
  explicit Histogram(int bins = kBins) : bins_(static_cast<size_t>(bins)) {}
  /// One that was kept; its counts are as many as its bins. INVALID_ARGUMENT when no elements could have given it.
  static absl::StatusOr<Histogram> Restored(double limit, Range extremes,
                                            std::span<const uint64_t> bins);

  /// Adds finite elements. INVALID_ARGUMENT on the first NaN or infinity.
  absl::Status Add(std::span<const float> values);
  absl::Status Observe(ConstTensorView batch) override { return Add(batch.span<float>()); }
  /// Adds the counts of another histogram. Requires: as many bins.
  void Merge(const Histogram& other);
  /// Adds the counts of another histogram as if its elements had been multiplied by `factor` > 0. What a coarser bin holds is
  /// spread evenly over its width, but the bin that starts at zero stays there: it is where ReLU's zeros are.
  void AddScaled(const Histogram& other, double factor);

  uint64_t count() const { return count_; }
  Range extremes() const { return extremes_; }
  double limit() const { return limit_; }
  std::span<const uint64_t> bins() const { return bins_; }
  double bin_width() const { return 2 * limit_ / static_cast<double>(bins_.size()); }
  double bin_center(int bin) const { return (bin + 0.5) * bin_width() - limit_; }

 private:
  void GrowTo(double magnitude);
  void Widen(Range extremes, uint64_t count);
  int BinOf(double value) const;

  std::vector<uint64_t> bins_;
  double limit_ = 0;  ///< 0: nothing but zeros so far.
  uint64_t count_ = 0;
  Range extremes_;
};

/// Mean, mean square and extremes of every index along one axis, counted from the last one where it is negative. Not thread-safe.
class ChannelMoments : public Collector {
 public:
  explicit ChannelMoments(int axis) : axis_(axis) {}
  absl::Status Observe(ConstTensorView batch) override;
  /// Adds what others have seen: sums, sums of squares and extremes per index, of `count` elements each.
  /// INVALID_ARGUMENT when they are not as many as here.
  absl::Status Add(int64_t count, std::span<const double> sums, std::span<const double> squares,
                   std::span<const Range> extremes);
  /// As if every element had been multiplied by its index's factor > 0. Requires: one factor per index, or nothing seen.
  void Scale(std::span<const double> factors);
  /// Each with one element per index; empty before the first batch.
  std::vector<double> means() const { return PerElement(sums_); }
  std::vector<double> mean_squares() const { return PerElement(squares_); }
  const std::vector<Range>& extremes() const { return extremes_; }
  const std::vector<double>& sums() const { return sums_; }
  const std::vector<double>& squares() const { return squares_; }
  int64_t count() const { return count_; }

 private:
  std::vector<double> PerElement(std::vector<double> sums) const;

  int axis_;
  std::vector<double> sums_;
  std::vector<double> squares_;
  std::vector<Range> extremes_;
  int64_t count_ = 0;  ///< Elements per index.
};

/// A coarse histogram of every channel (axis 1): what tells how a tensor is distributed once its channels are scaled. Not
/// thread-safe.
class ChannelHistograms : public Collector {
 public:
  static constexpr int kBins = 512;

  absl::Status Observe(ConstTensorView batch) override;
  /// Adds what others have seen. INVALID_ARGUMENT when their channels are not as many.
  absl::Status Add(std::span<const Histogram> channels);
  const std::vector<Histogram>& channels() const { return channels_; }
  /// The tensor's histogram with one factor > 0 per channel.
  Histogram Scaled(std::span<const double> factors) const;

 private:
  std::vector<Histogram> channels_;
};

/// Real-valued model inputs by name; each with one sample per index of axis 0.
using CalibrationSet = std::map<std::string, Tensor>;
/// INVALID_ARGUMENT naming the input and the sample that holds NaN or infinity.
absl::Status CheckFinite(const CalibrationSet& set);
/// Called with samples done and samples in all; return false to stop (CANCELLED).
using Progress = std::function<bool(int64_t done, int64_t total)>;

/// How the model runs while it is calibrated.
struct CalibrationRun {
  int threads = 1;
  int64_t first = 0;  ///< Samples of the set to leave out, for they have been seen: whole batches.
  std::vector<std::string> disabled_passes;  ///< Graph passes to leave out, by name.
  Progress progress;
  /// Calibration files (FileStatistics) that take the place of a pass over the set, which then only serves what compares answers.
  std::vector<std::string> statistics_from;
  std::string statistics_to;  ///< The file that keeps the statistics; empty: none.
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
