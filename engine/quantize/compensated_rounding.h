// Weights rounded so that each takes up the errors of those before it.
#pragma once

#include "engine/quantize/patch_moments.h"
#include "engine/quantize/weights.h"

namespace octet {

/// Rounds weights anew on the grid they have, so that the layer's results, not its weights, stay near. Per row w of weights and
/// patches x with H = E[x x^T] (of x - E[x] when `centered`: a corrected bias takes the mean's error), the error is
///   (w - q)^T H (w - q),   q = s * integers in [-limit, limit]
/// With H = (U + I) D (U + I)^T, U strictly upper, elements are rounded in order, those with the largest H_kk first:
///   q_k = s * round((w_k + sum over i < k of (w_i - q_i) U_ik) / s)
/// which is optimal among all such feedbacks. H's off-diagonals are shrunk by n / (n + K) for n patches of K elements, so that few
/// samples round to nearest, and 1e-4 of the largest E[x_k^2] is added to its diagonal. A group whose moments overflow stays as it
/// is. Changes quantized.values only. Requires: moments of this layer's patches; F32 weights. Thread-safe.
/// Source: Frantar et al., GPTQ (2023); Chee et al., QuIP (2023), theorem 1.
void CompensateRounding(const Tensor& weights, const WeightLayout& layout,
                        const PatchMoments& moments, bool centered, QuantizedWeights& quantized);

}  // namespace octet
