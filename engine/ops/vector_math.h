// Elementary functions in float as straight-line code, so that a loop over them vectorises. Each is within 1e-6
// relative of the exact function (denormal results may come out as 0); NaN stays NaN.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace octet {

#define OCTET_INLINE [[gnu::always_inline]] inline

/// e^x = 2^n * e^r with n = round(x / ln 2), r in [-0.35, 0.35].
/// Source: Cephes expf (S. L. Moshier), its polynomial of degree 5.
OCTET_INLINE float ExpF(float x) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer.
  x = x > 89.0F ? 89.0F : x;
  x = x < -104.0F ? -104.0F : x;
  const float shifted = x * 1.44269504F + kRound;
  const int32_t n = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound);
  const float rounded = shifted - kRound;
  float r = x - rounded * 0.693359375F;
  r = r + rounded * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  // 2^n in two factors: n reaches -150 and 128, past what one exponent field holds. The unsigned sums keep a
  // NaN's meaningless n defined.
  const int32_t half = n >> 1;
  const auto power = [](int32_t e) {
    return std::bit_cast<float>((static_cast<uint32_t>(e) + 127U) << 23);
  };
  return p * power(half) * power(n - half);
}

OCTET_INLINE float SigmoidF(float x) { return 1.0F / (1.0F + ExpF(-x)); }

/// |x| < 0.625: x + x^3 P(x^2); else 1 - 2 / (e^2|x| + 1) with x's sign.
/// Source: Cephes tanhf (S. L. Moshier).
OCTET_INLINE float TanhF(float x) {
  const float z = x * x;
  float p = -5.70498872745e-3F;
  p = p * z + 2.06390887954e-2F;
  p = p * z - 5.37397155531e-2F;
  p = p * z + 1.33314422036e-1F;
  p = p * z - 3.33332819422e-1F;
  const float small = p * z * x + x;
  const float magnitude = std::fabs(x);
  const float large = std::copysign(1.0F - 2.0F / (ExpF(2.0F * magnitude) + 1.0F), x);
  return magnitude < 0.625F ? small : large;
}

/// |x| < 1: x P(x^2); else 1 - e^-Q(|x|) with x's sign, where Q fits -ln erfc on [1, 4].
/// The coefficients are minimax fits (relative error 1.2e-9 and absolute error 1e-9 before rounding).
OCTET_INLINE float ErfF(float x) {
  const float z = x * x;
  float p = 7.853857823647559e-05F;
  p = p * z - 0.0008010193123482168F;
  p = p * z + 0.005188327748328447F;
  p = p * z - 0.026853812858462334F;
  p = p * z + 0.1128358542919159F;
  p = p * z - 0.3761262595653534F;
  p = p * z + 1.1283791065216064F;
  const float small = p * x;
  float m = std::fabs(x);
  const bool is_small = m < 1.0F;
  m = m > 4.0F ? 4.0F : m;
  float q = -0.00018557517614681274F;
  q = q * m + 0.002939618658274412F;
  q = q * m - 0.02180536277592182F;
  q = q * m + 0.10303746163845062F;
  q = q * m + 0.6382255554199219F;
  q = q * m + 1.127040147781372F;
  q = q * m + 0.00035370394471101463F;
  const float large = std::copysign(1.0F - ExpF(-q), x);
  return is_small ? small : large;
}

/// ln(1 + e) for e in [0, 1]: 2 atanh(s) with s = e / (2 + e) in [0, 1/3], by its series.
OCTET_INLINE float Log1pUnitF(float e) {
  const float s = e / (2.0F + e);
  const float z = s * s;
  float p = 1.0F / 15;
  p = p * z + 1.0F / 13;
  p = p * z + 1.0F / 11;
  p = p * z + 1.0F / 9;
  p = p * z + 1.0F / 7;
  p = p * z + 1.0F / 5;
  p = p * z + 1.0F / 3;
  return 2.0F * s + 2.0F * s * (z * p);
}

/// ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|).
OCTET_INLINE float SoftplusF(float x) {
  const float positive = x < 0.0F ? 0.0F : x;
  return positive + Log1pUnitF(ExpF(-std::fabs(x)));
}

}  // namespace octet
