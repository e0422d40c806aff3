#include "engine/ops/saturation.h"

#include <algorithm>

namespace octet {
namespace {

constexpr int kSafeWeight = 64;

bool LeaveSixteenBits(int a, int b) {
  return std::max(a, 0) + std::max(b, 0) > 2 * kSafeWeight ||
         std::min(a, 0) + std::min(b, 0) < -2 * kSafeWeight;
}

}  // namespace

bool MaySaturate(const Tensor& weights, int axis) {
  const Shape& w = weights.shape();
  const auto values = weights.span<int8_t>();
  const int64_t outer = w.elements(0, axis);
  const int64_t inner = w.elements(axis + 1, w.rank());
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t i = 0; i + 1 < w[axis]; i += 2) {
      const int8_t* pair = values.data() + (o * w[axis] + i) * inner;
      for (int64_t k = 0; k < inner; ++k) {
        if (LeaveSixteenBits(pair[k], pair[inner + k])) return true;
      }
    }
  }
  return false;
}

bool TapsMaySaturate(const Tensor& weights) {
  const Shape& w = weights.shape();
  const int64_t channels = w[1];
  const int64_t taps = w.elements(2, w.rank());
  const auto values = weights.span<int8_t>();
  for (int64_t o = 0; o < w[0]; ++o) {
    const int8_t* row = values.data() + o * channels * taps;
    const auto at = [&](int64_t k) { return row[k % channels * taps + k / channels]; };
    for (int64_t k = 0; k + 1 < channels * taps; k += 2) {
      if (LeaveSixteenBits(at(k), at(k + 1))) return true;
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
