// The activation functions, one definition each, for the operators and for post-ops. `T` is float (vectorised
// elementary functions) or double (the C library's).
// Source: ONNX Operators.md, the formula under each operator's name.
#pragma once

#include <cmath>

#include "engine/ops/vector_math.h"

namespace octet::math {

OCTET_INLINE float Exp(float x) { return ExpF(x); }
OCTET_INLINE double Exp(double x) { return std::exp(x); }
OCTET_INLINE float Tanh(float x) { return TanhF(x); }
OCTET_INLINE double Tanh(double x) { return std::tanh(x); }
OCTET_INLINE float Erf(float x) { return ErfF(x); }
OCTET_INLINE double Erf(double x) { return std::erf(x); }
OCTET_INLINE float Sigmoid(float x) { return SigmoidF(x); }
OCTET_INLINE double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
OCTET_INLINE float Softplus(float x) { return SoftplusF(x); }
OCTET_INLINE double Softplus(double x) {
  return (x < 0 ? 0.0 : x) + std::log1p(std::exp(-std::fabs(x)));
}

template <typename T>
OCTET_INLINE T Relu(T x) {
  return x < T{0} ? T{0} : x;  // NaN stays NaN.
}
template <typename T>
OCTET_INLINE T LeakyRelu(T x, T alpha) {
  return x < T{0} ? alpha * x : x;
}
template <typename T>
OCTET_INLINE T Clip(T x, T low, T high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}
template <typename T>
OCTET_INLINE T HardSigmoid(T x, T alpha, T beta) {
  return Clip(alpha * x + beta, T{0}, T{1});
}
template <typename T>
OCTET_INLINE T HardSwish(T x) {
  return x * HardSigmoid(x, T{1} / T{6}, T{0.5});
}
template <typename T>
OCTET_INLINE T Swish(T x, T alpha) {
  return x * Sigmoid(alpha * x);
}
/// e^x - 1, exact near 0 too where the difference would cancel.
OCTET_INLINE float Expm1(float x) {
  // |x| < 0.5: the Taylor series to x^7; its next term is below 1e-7 of the sum.
  float p = 1.0F / 5040;
  p = p * x + 1.0F / 720;
  p = p * x + 1.0F / 120;
  p = p * x + 1.0F / 24;
  p = p * x + 1.0F / 6;
  p = p * x + 0.5F;
  const float small = p * x * x + x;
  const float large = ExpF(x) - 1.0F;
  return std::fabs(x) < 0.5F ? small : large;
}
OCTET_INLINE double Expm1(double x) { return std::expm1(x); }
template <typename T>
OCTET_INLINE T Elu(T x, T alpha) {
  const T negative = alpha * Expm1(x);
  return x < T{0} ? negative : x;
}
template <typename T>
OCTET_INLINE T GeluErf(T x) {
  return T{0.5} * x * (T{1} + Erf(x * T{0.70710678118654752440}));
}
template <typename T>
OCTET_INLINE T GeluTanh(T x) {
  constexpr T kSqrtTwoOverPi{0.79788456080286535588};
  return T{0.5} * x * (T{1} + Tanh(kSqrtTwoOverPi * (x + T{0.044715} * x * x * x)));
}
template <typename T>
OCTET_INLINE T Mish(T x) {
  return x * Tanh(Softplus(x));
}

}  // namespace octet::math
