#include "engine/ops/fourier.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <utility>

namespace octet {
namespace {

// The operator of std::complex also looks for infinities among NaNs.
Complex Product(Complex a, Complex b) {
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

/// e^(i sign 2 pi part / whole).
Complex Turn(size_t part, size_t whole, double sign) {
  return std::polar(
      1.0, sign * 2 * std::numbers::pi * static_cast<double>(part) / static_cast<double>(whole));
}

/// The next number, counted from the highest bit `top` downwards.
size_t NextReversed(size_t reversed, size_t top) {
  for (; top > 0 && (reversed & top) != 0; top /= 2) reversed ^= top;
  return reversed | top;
}

/// to[the bits of i in reverse] = from(i) for the first `count` of the 2^k elements of `to`; the rest are 0.
template <typename From>
void Scatter(size_t count, const From& from, std::span<Complex> to) {
  std::ranges::fill(to, Complex{});
  const size_t top = to.size() / 2;
  for (size_t i = 0, reversed = 0; i < count; ++i, reversed = NextReversed(reversed, top))
    to[reversed] = from(i);
}

}  // namespace

FourierTransform::FourierTransform(size_t samples, bool inverse)
    : samples_(samples),
      inverse_(inverse),
      points_(std::has_single_bit(samples) ? samples : std::bit_ceil(2 * samples - 1)),
      turns_(std::max<size_t>(points_ / 2, 1)) {
  const double sign = inverse ? 1 : -1;
  const bool convolves = points_ != samples;
  // A convolution's own transforms run forwards; the way back takes their result in reverse.
  for (size_t i = 0; i < turns_.size(); ++i) turns_[i] = Turn(i, points_, convolves ? -1 : sign);
  if (!convolves) return;
  chirp_.resize(samples);
  // i^2 modulo 2 n in integers: the angle of i^2 itself would lose its digits.
  for (size_t i = 0, square = 0; i < samples; ++i) {
    chirp_[i] = Turn(square, 2 * samples, sign);
    square = (square + 2 * i + 1) % (2 * samples);
  }
  kernel_.resize(points_);
  const auto mirrored = [&](size_t i) {
    const size_t distance = std::min(i, points_ - i);
    return distance < samples ? std::conj(chirp_[distance]) : Complex{};
  };
  Scatter(points_, mirrored, kernel_);
  Butterflies(kernel_);
  for (Complex& element : kernel_) element /= static_cast<double>(points_);
}

void FourierTransform::Run(std::span<const Complex> x, std::span<Complex> y,
                           std::span<Complex> scratch) const {
  if (points_ == samples_) {
    Scatter(samples_, [&](size_t i) { return x[i]; }, scratch);
    Butterflies(scratch);
    std::ranges::copy(scratch.first(y.size()), y.begin());
  } else {
    Convolve(x, y, scratch);
  }
  if (!inverse_) return;
  for (Complex& bin : y) bin /= static_cast<double>(samples_);
}

// With 2 i k = i^2 + k^2 - (k - i)^2 the sum is chirp[k] * sum of (x[i] chirp[i]) conj(chirp[k - i]), a convolution.
void FourierTransform::Convolve(std::span<const Complex> x, std::span<Complex> y,
                                std::span<Complex> work) const {
  Scatter(samples_, [&](size_t i) { return Product(x[i], chirp_[i]); }, work);
  Butterflies(work);
  for (size_t i = 0; i < points_; ++i) work[i] = Product(work[i], kernel_[i]);
  // Back, in place: elements change places with those of their reversed bits.
  const size_t top = points_ / 2;
  for (size_t i = 0, reversed = 0; i < points_; ++i, reversed = NextReversed(reversed, top)) {
    if (i < reversed) std::swap(work[i], work[reversed]);
  }
  Butterflies(work);
  // A second forward transform gives the convolution in reverse.
  for (size_t k = 0; k < y.size(); ++k) y[k] = Product(chirp_[k], work[k == 0 ? 0 : points_ - k]);
}

void FourierTransform::Butterflies(std::span<Complex> work) const {
  for (size_t half = 1; half < work.size(); half *= 2) {
    const size_t stride = work.size() / (2 * half);
    for (size_t start = 0; start < work.size(); start += 2 * half) {
      for (size_t i = 0; i < half; ++i) {
        Complex& low = work[start + i];
        Complex& high = work[start + half + i];
        const Complex turned = Product(high, turns_[i * stride]);
        high = low - turned;
        low += turned;
      }
    }
  }
}

}  // namespace octet
