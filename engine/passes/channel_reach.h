// What weights can take of a factor per channel.
#pragma once

#include <cmath>

namespace octet {

/// Channels whose largest weight is below it hold zeros. Of one that reaches further, weights below the normal numbers do not count.
inline constexpr float kLeastReach = 0x1p-100F;

/// Whether weights of the magnitude `reach` stay finite under a factor, and keep their bits: they do not become less than `least`, but by 0 or
/// where they hold zeros already. Weights that are not finite take anything.
inline bool TakesFactor(float reach, double factor, float least = kLeastReach) {
  if (!std::isfinite(reach) || reach < kLeastReach || factor == 0) return true;
  const double product = reach * std::abs(factor);
  return product >= least && std::isfinite(static_cast<float>(product));
}

}  // namespace octet
