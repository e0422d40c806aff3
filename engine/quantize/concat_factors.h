// Inputs of concatenations on finer steps than the whole.
#pragma once

#include <map>
#include <span>
#include <vector>

#include "engine/quantize/ranges.h"
#include "engine/quantize/selection.h"
#include "engine/quantize/weights.h"

namespace octet {

/// A Concat of 8-bit values has one scale. Where one input reaches a thousandth as far as another (scores beside coordinates,
/// what a Sigmoid made beside what a convolution made), its values would all be one integer. Its steps may be finer when the
/// layers behind take the factor back:
///   x -> Q(s / 2^e) -> DQ(s / 2^e) -> Mul(2^e) -> Q(s) -> DQ(s) -> Concat -> Conv(w / 2^e in the input's channels)
/// The Mul moves no integer: all of it is exact but the first rounding. e halves the distance, as it is the weights' steps that
/// become coarser: 2^e is the power of two next to sqrt(reach of the others / reach of the input).
struct ConcatFactors {
  std::map<ValueId, int> exponents;  ///< e > 0, by input.
  std::map<ValueId, Range> ranges;   ///< Of those concatenations, with factors.
  /// 2^e for each input channel of the layers that read one.
  std::map<NodeId, std::vector<double>> readers;
};

/// Of the integer concatenations of channels that weighted nodes alone read. Inputs with a range of their own (data movement has its
/// source's) stay as they are. Requires: shapes inferred.
ConcatFactors FindConcatFactors(const Graph& graph, const Selection& selection,
                                const RangeTable& ranges);

/// The weights with each input channel over its factor. `factors`: of all groups. Requires: F32.
Tensor OverFactors(const Tensor& weights, const WeightLayout& layout,
                   std::span<const double> factors);

}  // namespace octet
