// Rounding in loops that the compiler vectorises, the same bits on every CPU.
#pragma once

#include <bit>
#include <cstdint>

namespace octet {

/// round(v), halves to even, clamped to [low, high], integers with |bound| < 2^22; NaN as 0. Clamped first, which is the same for
/// such bounds: one addition rounds what is small, where nearbyint would be a call. The comparisons also keep a product before it
/// and this addition from becoming one fused operation. Thread-safety: pure.
[[gnu::always_inline]] inline int32_t RoundClamped(float v, float low, float high) {
  // 1.5 * 2^23: adding it to |v| < 2^22 rounds v half to even into the low bits of the sum.
  constexpr float kMagic = 12582912.0F;
  v = v == v ? v : 0.0F;
  v = v < low ? low : v;
  v = v > high ? high : v;
  return std::bit_cast<int32_t>(v + kMagic) - std::bit_cast<int32_t>(kMagic);
}

}  // namespace octet
