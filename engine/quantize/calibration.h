// Calibration: what values each activation takes, in memory per tensor and never per sample.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/calibration_data.h"
#include "engine/quantize/recipe.h"
#include "engine/tensor/tensor.h"

namespace octet {

struct Signature;

/// A closed range of reals.
struct Range {
  float min = 0;
  float max = 0;
  bool operator==(const Range&) const = default;
};
/// How far it goes from 0.
inline double Reach(const Range& range) {
  return std::max({-double{range.min}, double{range.max}, 0.0});
}
/// Both ends times a factor >= 0, or the largest floats.
Range Times(Range range, double factor);

/// Sees one activation while the model runs over a calibration set; keeps what it needs of it and no more.
class Collector {
 public:
  virtual ~Collector() = default;
  /// Takes in one batch, F32. INVALID_ARGUMENT on NaN or infinity.
  virtual absl::Status Observe(ConstTensorView batch) = 0;
};

/// Where the extremes of a sequence of samples lie, the later ones weighing more. Of samples X_1 to X_n, with c = kAveraging:
///   min = sum over i of (1 - c)^(n - i) min(X_i) / sum over i of (1 - c)^(n - i),    max alike
/// TensorFlow's moving average (assign_moving_average, zero_debias) with a decay of 1 - c; c is that of ONNX Runtime's CalibMovingAverage and
/// of PyTorch's observer, which begins with X_1 at full weight where this, for few samples, is close to ONNX Runtime's plain mean over the
/// batches. A sample is one index of axis 0, so that the result does not depend on how many run at once. Not thread-safe.
class MovingExtremes {
 public:
  static constexpr double kAveraging = 0.01;
  /// What the sums of so many samples are divided by: the sum of their weights.
  static double WeightOf(int64_t samples);

  /// One that was kept. INVALID_ARGUMENT when no samples could have given it.
  static absl::StatusOr<MovingExtremes> Restored(int64_t samples, double min_sum, double max_sum);

  void Add(Range sample);
  /// As if the samples of `later` had been added behind those here.
  void Merge(const MovingExtremes& later);
  /// As if the lower end of every sample had been multiplied by one factor and the upper one by another; never crosses them.
  void Scale(double min_factor, double max_factor);
  /// {0} of no samples.
  Range average() const;
  int64_t samples() const { return samples_; }
  /// Sums over i of (1 - c)^(n - i) times an end of X_i.
  double min_sum() const { return min_sum_; }
  double max_sum() const { return max_sum_; }

 private:
  int64_t samples_ = 0;
  double min_sum_ = 0;
  double max_sum_ = 0;
};

/// A histogram around zero whose bins merge in pairs when its range has to grow: after any number of
/// elements it holds kBins counts (or as many as were asked for) over [-limit, limit), limit a power of two, the exact extremes, and the moving average of those
/// of each sample observed.
/// Not thread-safe.
class Histogram : public Collector {
 public:
  static constexpr int kBins = 8192;

  /// Requires: bins a multiple of 4.
  explicit Histogram(int bins = kBins) : bins_(static_cast<size_t>(bins)) {}
  /// One that was kept; its counts are as many as its bins. INVALID_ARGUMENT when no elements could have given it.
  static absl::StatusOr<Histogram> Restored(double limit, Range extremes,
                                            std::span<const uint64_t> bins,
                                            const MovingExtremes& moving = {});

  /// Adds finite elements. INVALID_ARGUMENT on the first NaN or infinity.
  absl::Status Add(std::span<const float> values);
  /// As Add, and takes each index of axis 0 for a sample.
  absl::Status Observe(ConstTensorView batch) override;
  /// Adds the counts of another histogram, whose samples count as later ones. Requires: as many bins.
  void Merge(const Histogram& other);
  /// Adds the counts of another histogram as if its elements had been multiplied by `factor` > 0. What a coarser bin holds is
  /// spread evenly over its width, but the bin that starts at zero stays there: it is where ReLU's zeros are.
  void AddScaled(const Histogram& other, double factor);
  /// Takes over a moving average, each end as far inside the extremes here as it is there.
  void AverageLike(const Histogram& other);

  uint64_t count() const { return count_; }
  Range extremes() const { return extremes_; }
  const MovingExtremes& moving() const { return moving_; }
  double limit() const { return limit_; }
  std::span<const uint64_t> bins() const { return bins_; }
  double bin_width() const { return 2 * limit_ / static_cast<double>(bins_.size()); }
  double bin_center(int bin) const { return (bin + 0.5) * bin_width() - limit_; }

 private:
  void GrowTo(double magnitude);
  void Widen(Range extremes, uint64_t count);
  int BinOf(double value) const;
  void Count(std::span<const float> values, Range extremes);

  std::vector<uint64_t> bins_;
  double limit_ = 0;  ///< 0: nothing but zeros so far.
  uint64_t count_ = 0;
  Range extremes_;
  MovingExtremes moving_;
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
  int axis() const { return axis_; }

 private:
  std::vector<double> PerElement(std::vector<double> sums) const;

  int axis_;
  std::vector<double> sums_;
  std::vector<double> squares_;
  std::vector<Range> extremes_;
  int64_t count_ = 0;  ///< Elements per index.
};

/// A coarse histogram of every channel, an index along one axis (1, or -1, the last one): what tells how a tensor is distributed once its channels are scaled. Not
/// thread-safe.
class ChannelHistograms : public Collector {
 public:
  static constexpr int kBins = 512;

  explicit ChannelHistograms(int axis) : axis_(axis) {}
  absl::Status Observe(ConstTensorView batch) override;
  /// Adds what others have seen. INVALID_ARGUMENT when their channels are not as many.
  absl::Status Add(std::span<const Histogram> channels);
  const std::vector<Histogram>& channels() const { return channels_; }
  int axis() const { return axis_; }
  /// The tensor's histogram with one factor > 0 per channel. `unscaled`: the same tensor's without them, whose moving average lies inside
  /// its extremes as the result's does.
  Histogram Scaled(std::span<const double> factors, const Histogram& unscaled) const;

 private:
  int axis_;
  std::vector<Histogram> channels_;
};

/// INVALID_ARGUMENT naming the input of the model for one that is missing or unknown, of another type or shape, empty, or of another
/// count than the others; and for samples of several shapes where the model's own batch is more than one.
absl::Status MatchInputs(const Signature& signature, const CalibrationData& set);
/// Reads all samples once. INVALID_ARGUMENT naming the input and the sample that holds NaN or infinity; as CheckCounts and
/// SampleSource::Read.
absl::Status CheckFinite(const CalibrationData& set);
/// Called with samples done and samples in all; return false to stop (CANCELLED).
using Progress = std::function<bool(int64_t done, int64_t total)>;

/// The shortest time of one step of a plan.
struct StepTime {
  std::string layer;        ///< Name of the node that it computes, or is about.
  bool multiplies = false;  ///< Its multiply-adds are the layer's.
  double seconds = 0;
};
/// What the steps of one run of a graph take in precision int8, in order.
using TimeSource = std::function<absl::StatusOr<std::vector<StepTime>>(const Graph& int8)>;

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
  TimeSource time;  ///< Takes the place of the clock (LatencyMeter); empty: the clock.
};

/// How a model ran over a set.
struct RunFigures {
  double int8_share = 0;  ///< Of the multiply-adds, 0..1, as the certificate has it.
  double bf16_share = 0;
};

/// Who looks at which activation.
struct Observation {
  ValueId value = kNone;
  Collector* collector = nullptr;
};

/// Runs the model in `precision` over the set, which is read batch by batch, and shows every batch of each value to its collectors; some
/// values may be graph inputs, and a value may have several collectors. A batch has samples of one shape.
/// Errors: INVALID_ARGUMENT naming the input for a missing or unknown input, an element type or shape that is not the model's,
/// an empty set, fewer samples than a fixed batch takes, NaN or infinity in the data (with the sample's place in all that there are,
/// whatever was drawn of them) or in an activation; CANCELLED when `progress` says so; as SampleSource::Read.
absl::Status Calibrate(const Graph& graph, std::span<const Observation> observations,
                       const CalibrationData& set, const CalibrationRun& run,
                       Precision precision = Precision::kFp32, RunFigures* figures = nullptr);

}  // namespace octet
