// Inputs whose channels lie on different integers of a sensor: one grid for all of them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/calibration.h"

namespace octet {

/// x = step * (q - offset), q being the integers 0, 1, ..., 255 of a sensor.
struct ChannelGrid {
  double step;
  double offset;
};

/// The coarsest such grid of each channel of an input's samples [N, C, spatial...], of which up to 2^21 elements a channel are read. Empty
/// for arrays of another type or rank, an input that the set has not, and where a channel holds anything else, one value alone, or so few
/// values that some grid holds them by chance. Requires: samples of one shape. Errors: as SampleSource::Read.
absl::StatusOr<std::vector<ChannelGrid>> SensorGrids(const CalibrationData& set,
                                                     const std::string& input);

/// Puts the channels of a model's inputs on the integers that they came from, where each channel has a factor and an offset of its own
/// (the mean and the deviation of images): one 8-bit scale lies beside the integers of all of them and rounds most. For a channel c
/// that holds nothing but a[c] (q - z[c]), q = 0, 1, ..., 255,
///   x -> Conv(w, b, pads)   =>   x -> Pad -> Mul by 1 / a[c] -> Add z[c] -> Conv(w a[c], b - sum w a[c] z[c])
/// so that what the convolution reads is q, which 8 bits hold without rounding. Leaves inputs alone that have another reader, channels
/// with other values, or one grid for all channels (FitGrid), and padded ones of which a channel's 0 is none of the integers. Returns how many inputs it changed. Requires: shapes inferred for the inputs;
/// opset >= kQuantizeOpset, else nothing is changed; samples of one shape. Errors: as SensorGrids.
absl::StatusOr<int> SeparateInputGrids(Graph& graph, const CalibrationData& set);

}  // namespace octet
