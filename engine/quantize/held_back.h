// A calibration set in two: samples that ranges are taken from, and samples that say what these are worth.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/quantize/calibration.h"

namespace octet {

/// INVALID_ARGUMENT for labels that are not one per sample; none at all are well.
absl::Status CheckLabels(const std::vector<int64_t>& labels, int64_t count);

/// How many samples of the set a model takes that does not batch; 1 for all others, and of whole inputs.
int64_t OwnBatch(const Graph& graph, const CalibrationData& set);

struct SplitSet {
  CalibrationData ranges;
  CalibrationData held_back;
  std::vector<int64_t> labels;  ///< Of the samples held back; empty without any.
};

/// Draws half of the samples, `most_held_back` at most, to be held back; the same ones for the same seed and number of
/// samples, in random order (those for ranges shape by shape). Both parts are read where the set's samples lie. Errors: INVALID_ARGUMENT for fewer than two samples, inputs that disagree about their number, and
/// labels that are not one per sample.
absl::StatusOr<SplitSet> HoldBack(const CalibrationData& set, const std::vector<int64_t>& labels,
                                  int64_t most_held_back, uint64_t seed);

/// `most` samples held back, or all when there are fewer, drawn as HoldBack does, and none for ranges. Errors: as HoldBack, but for a
/// single sample.
absl::StatusOr<SplitSet> AllHeldBack(const CalibrationData& set, const std::vector<int64_t>& labels,
                                     int64_t most, uint64_t seed);

/// The first `count` samples, or all when there are fewer, where they lie.
CalibrationData FirstSamples(const CalibrationData& set, int64_t count);

}  // namespace octet
