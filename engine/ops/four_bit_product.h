// octet:FourBitMatMul: a product with weights of 4 bits, as pack_four_bits writes it and its kernels read it.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/four_bit_panels.h"
#include "engine/tensor/shape.h"

namespace octet {

/// Inputs of octet:FourBitMatMul, y[..., M, N] = A w^T + bias. Operands of post-ops follow the bias.
enum FourBitInput : uint8_t {
  kFourBitA = 0,           ///< Reals [..., M, K].
  kFourBitIntegers = 1,    ///< U8 [N, (K + 1) / 2], constant: see PackFourBits.
  kFourBitScales = 2,      ///< F32 [N, blocks], constant.
  kFourBitZeroPoints = 3,  ///< I8 [N, blocks], constant, or none.
  kFourBitBias = 4,        ///< F32 [N], constant, or none.
  kFourBitInputs = 5,
};

/// What the attributes K and block, and the shape of the scales, say of the weights.
/// Errors: INVALID_ARGUMENT where they describe none.
absl::StatusOr<FourBitLayout> FourBitLayoutOf(const Node& node, const Shape& scales);

}  // namespace octet
