#include "engine/ops/saturation.h"

#include <algorithm>

namespace octet {
namespace {

constexpr int kSafeWeight = 64;

}  // namespace

bool MaySaturate(const Tensor& weights) {
  const Shape& w = weights.shape();
  const auto values = weights.span<int8_t>();
  const int64_t inner = w.elements(2, w.rank());
  for (int64_t o = 0; o < w[0]; ++o) {
    for (int64_t k = 0; k < inner; ++k) {
      for (int64_t i = 0; i + 1 < w[1]; i += 2) {
        const int a = values[(o * w[1] + i) * inner + k];
        const int b = values[(o * w[1] + i + 1) * inner + k];
        if (std::max(a, 0) + std::max(b, 0) > 2 * kSafeWeight) return true;
        if (std::min(a, 0) + std::min(b, 0) < -2 * kSafeWeight) return true;
      }
    }
  }
  return false;
}

SplitWeights Split(const Tensor& weights) {
  SplitWeights parts{Tensor(DType::kI8, weights.shape()), Tensor(DType::kI8, weights.shape())};
  const auto whole = weights.span<int8_t>();
  const auto safe = parts.safe.mutable_span<int8_t>();
  const auto rest = parts.rest.mutable_span<int8_t>();
  for (size_t i = 0; i < whole.size(); ++i) {
    safe[i] = static_cast<int8_t>(std::clamp<int>(whole[i], -kSafeWeight, kSafeWeight));
    rest[i] = static_cast<int8_t>(whole[i] - safe[i]);
  }
  return parts;
}

}  // namespace octet
