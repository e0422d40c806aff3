#include "engine/ops/dynamic_quant.h"

#include <algorithm>
#include <cmath>

namespace octet {

DynamicScale DynamicScaleOf(const MinMax& range) {
  const float min = std::min(range.min, 0.0F);
  const float max = std::max(range.max, 0.0F);
  const float scale = (max - min) / 255.0F;
  if (!(scale > 0)) return {};
  const float zero_point = std::nearbyint(std::clamp(-min / scale, 0.0F, 255.0F));
  return {scale, static_cast<int32_t>(zero_point)};
}

QuantParams DynamicQuantParams(const MinMax& range) {
  const DynamicScale found = DynamicScaleOf(range);
  return QuantParams::PerTensor(found.scale, found.zero_point);
}

}  // namespace octet
