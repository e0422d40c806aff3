#include "engine/ops/dynamic_quant.h"

#include <algorithm>
#include <cmath>

namespace octet {

QuantParams DynamicQuantParams(const MinMax& range) {
  const float min = std::min(range.min, 0.0F);
  const float max = std::max(range.max, 0.0F);
  const float scale = (max - min) / 255.0F;
  if (!(scale > 0)) return QuantParams::PerTensor(1.0F, 0);
  const float zero_point = std::nearbyint(std::clamp(-min / scale, 0.0F, 255.0F));
  return QuantParams::PerTensor(scale, static_cast<int32_t>(zero_point));
}

}  // namespace octet
