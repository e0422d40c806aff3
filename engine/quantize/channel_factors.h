// Factors of channels that leave the outputs the least noise.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/graph/graph.h"
#include "engine/quantize/channel_links.h"
#include "engine/quantize/output_gains.h"
#include "engine/quantize/recipe.h"
#include "engine/quantize/statistics.h"

namespace octet {

/// Steps of the descent where weights lie between so many pairs of channels, each of which every step visits: 300, fewer beyond 4 million
/// pairs, so that a visit of all takes seconds, but 60 at least.
int SearchSteps(size_t pairs);

/// Moves factors (one per class of channels, those of `components` alone) to where rounding is estimated to leave the outputs the least
/// noise, with ranges that go with them:
///   sum over rounded values v of  sum_c gain[c] (s^2 / 12 / t[c]^2 + the mean square of what lies beyond the ends of v's grid),
///                                                                     s = reach[v] / 255
/// + sum over weighted nodes of    sum_oi S[o]^2 / 12 gain[oi] (t[i] / t[o])^2,   S = max_i |w[oi]| t[o] / t[i] / 127
/// by gradient descent on the logarithms of t and reach (Adam), from what the factors are; of the maximum a smooth bound is taken. A channel
/// behind Clip(0, max) stays inside the clip: its factor is at least 1, and it reaches half of max at most. Returns how much of the noise is
/// left; 1, and the factors as they were, if nothing is won. Requires: weights of 8 bits per output channel; statistics of this graph, whose channels are there.
double MinimizeOutputNoise(const Graph& graph, const QuantizeRecipe& recipe,
                           const Statistics& statistics, const ChannelLinks& links,
                           const std::vector<ChannelComponent>& components,
                           const OutputGains& gains, std::vector<double>& factors);

}  // namespace octet
