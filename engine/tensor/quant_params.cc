#include "engine/tensor/quant_params.h"

#include <algorithm>
#include <cmath>

#include "engine/tensor/format.h"

namespace octet {

bool QuantParams::symmetric() const {
  return std::ranges::all_of(zero_points, [](int32_t z) { return z == 0; });
}

std::string QuantParams::ToString() const {
  if (scales.empty() || zero_points.empty()) return "{no scales}";
  if (per_tensor()) return Format("{{scale={}, zero_point={}}}", scales[0], zero_points[0]);
  const auto [low, high] = std::ranges::minmax(scales);
  return Format("{{axis={}, {} scales {}..{}, {}}}", axis, scales.size(), low, high,
                symmetric() ? "symmetric" : "asymmetric");
}

int32_t QuantizeOne(float real, float scale, int32_t zero_point, IntRange range) {
  const float scaled = real / scale;
  if (std::isnan(scaled)) return zero_point;
  const double shifted = std::nearbyint(scaled) + static_cast<double>(zero_point);
  return static_cast<int32_t>(
      std::clamp(shifted, static_cast<double>(range.min), static_cast<double>(range.max)));
}

}  // namespace octet
