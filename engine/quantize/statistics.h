// What static quantization learns from the calibration set, once for every way to use it.
#pragma once

#include <map>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/calibration.h"
#include "engine/quantize/patch_moments.h"
#include "engine/quantize/selection.h"

namespace octet {

/// Of an fp32 graph before anything was done to it, from one pass over a set, for every recipe and every selection of fewer nodes.
/// Takes memory per tensor and channel, never per sample.
struct Statistics {
  Selection selection;                       ///< All that can be rounded, or what Select says.
  std::map<ValueId, Histogram> histograms;   ///< Of the values whose range somebody may take.
  std::map<NodeId, ChannelMoments> moments;  ///< Of each weighted node's input, per input channel.
  std::map<NodeId, PatchMoments> patches;    ///< Of those weighted nodes that have not too many.
  /// Of the activations whose channels may be scaled (EqualizeChannels), and those among them that are quantized.
  std::map<ValueId, ChannelMoments> channels;
  std::map<ValueId, ChannelHistograms> channel_histograms;
  bool of_judges = false;  ///< They come from files of the very set that is to judge.

  /// Leaves in `selection` what a recipe rounds.
  void Select(const Graph& graph, const QuantizeRecipe& recipe);
  /// Everybody who has to see an activation.
  std::vector<Observation> Observations(const Graph& graph);
};

/// Statistics of nothing yet: selects what is quantized, of a set of so many samples. INVALID_ARGUMENT when there is nothing to
/// quantize.
absl::StatusOr<Statistics> EmptyStatistics(const Graph& graph, int64_t samples);

/// Runs the fp32 graph over the set. Errors: as EmptyStatistics and Calibrate.
absl::StatusOr<Statistics> GatherStatistics(const Graph& graph, const CalibrationData& set,
                                            const CalibrationRun& run);

}  // namespace octet
