// How long int8 files take for one run on this machine, step by step.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/calibration.h"

namespace octet {

/// Times graphs in turns with the first of them, the reference: a shared machine is slower at one time than at another, for both
/// alike. In precision int8, on one thread. Not thread-safe.
class LatencyMeter {
 public:
  /// Least times of one turn; equal steps of two plans may have different times, since what they read and write differs.
  struct Turn {
    std::vector<StepTime> reference;
    std::vector<StepTime> graph;
    /// Time of the graph over that of the reference: sums over the steps or, where the data decide shapes, whole runs.
    double ratio = 1;
  };

  /// `sample`: what one run takes of each input, by name. `run.time` takes the place of the clock where it is set.
  LatencyMeter(CalibrationSet sample, const CalibrationRun& run);
  LatencyMeter(LatencyMeter&&) noexcept;
  LatencyMeter& operator=(LatencyMeter&&) noexcept;
  ~LatencyMeter();

  /// Rounds of one run each until `seconds` have passed, kLeastRounds at least. The first graph becomes the reference.
  /// Errors: as Model::FromGraph and Plan::Run.
  absl::StatusOr<Turn> Compare(const Graph& int8, double seconds);
  /// The reference's shortest time so far.
  double reference_seconds() const;

 private:
  static constexpr int kLeastRounds = 3;
  class Runner;
  absl::StatusOr<std::unique_ptr<Runner>> Load(const Graph& int8) const;

  CalibrationSet sample_;
  std::vector<std::string> disabled_passes_;
  TimeSource given_;
  std::unique_ptr<Runner> reference_;
};

}  // namespace octet
