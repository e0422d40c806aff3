// From what was seen of a value to the range that its 8 bits cover.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/graph/graph.h"
#include "engine/quantize/calibration.h"
#include "engine/quantize/recipe.h"

namespace octet {

/// The range that `recipe.method` takes (kAuto: min-max) from a distribution (kMovingAverage: from histogram.moving()); always contains 0, so that zero padding and
/// ReLU's zero are exact. kMse and kEntropy narrow both sides of the extremes by one factor, from 1 down to 1/8:
///   kMse      the least sum over the elements of (x - dequantized x)^2, clipped ones included
///   kEntropy  the least divergence KL(P || Q), P the histogram with what is clipped in its outermost bins, Q the same histogram
///             without it after every level of the grid has shared its elements evenly among its bins that are not empty;
///             zeros, which every grid holds exactly, count in neither
/// Requires: histogram.count() > 0. Source of the last: Migacz, 8-bit Inference with TensorRT (2017).
Range ChooseRange(const Histogram& histogram, const QuantizeRecipe& recipe);

/// Widens a range, at most twofold, until its 8-bit grid rounds the distribution with the least squared error. A model's input
/// often holds a sensor's integers times a factor: the grid then falls on them and rounds nothing, or at least avoids lying
/// half a step beside all of them. Requires: range contains 0.
Range FitGrid(const Histogram& histogram, Range range, const ActivationGrid& grid);

/// Scale and zero point of a range, low being 0 for U8 and -128 for I8:
///   asymmetric  scale = (max - min) / 255, zero_point = low + round(-min / scale)
///   symmetric   scale = max(|min|, |max|) / 127, zero_point = low + 128
/// A range that is {0} gets scale 1. Requires: range contains 0.
QuantParams ParamsFor(Range range, const ActivationGrid& grid);

/// The recipes whose ranges are tried for all values at once: min-max and percentiles for RangeMethod::kAuto, else what was asked for.
/// Percentiles below these may look better on a calibration set, whose extremes they know, and are worse on data that nobody
/// has seen.
std::vector<QuantizeRecipe> RangeCandidates(const QuantizeRecipe& recipe);
/// What tells them apart: "min-max", "percentile 99.999", "mse".
std::string RangesName(const QuantizeRecipe& candidate);

/// A value's range and whose it is, by the value.
struct TensorRange {
  Range range;
  std::string by;
};
using RangeTable = std::map<ValueId, TensorRange>;

/// The range of each value that has a histogram; a graph input's is fitted to its grid.
RangeTable RangesOf(const Graph& graph, const QuantizeRecipe& recipe,
                    const std::map<ValueId, Histogram>& histograms);

}  // namespace octet
