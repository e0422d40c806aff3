// Exact u8 x s8 products on CPUs without VNNI: their kernels add two neighbouring products in 16 bits, which saturate.
// Weights that could do that are split in two parts of at most 64 in magnitude (255 * 64 * 2 < 2^15), multiplied one
// after the other; the second product adds the first one's reals before post-ops and requantization.
#pragma once

#include "engine/tensor/tensor.h"

namespace octet {

/// True when two neighbours along `axis`, that of the inputs, can leave 16 bits. `weights`: I8.
bool MaySaturate(const Tensor& weights, int axis);

/// The same of a convolution that is computed as a product with unrolled patches, [spatial..., C / groups]: where the channels
/// of a group are odd in number, neighbours are channels of two taps. `weights`: [OC, IC / groups, spatial...].
bool TapsMaySaturate(const Tensor& weights);

struct SplitWeights {
  Tensor safe;  ///< Clipped to [-64, 64].
  Tensor rest;  ///< weights - safe.
};
SplitWeights Split(const Tensor& weights);

}  // namespace octet
