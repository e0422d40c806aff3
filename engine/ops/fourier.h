// The discrete Fourier transform of one signal.
#pragma once

#include <complex>
#include <cstddef>
#include <span>
#include <vector>

namespace octet {

using Complex = std::complex<double>;

/// y[k] = sum over i of x[i] e^(-2 pi i k / n), inverse: the conjugate turns, divided by n. In double, by O(n log n) steps for
/// any n: signals arrive with requests, the square of their length would be hours.
///   n = 2^k: radix 2 (Cooley, Tukey 1965). Else: a convolution of 2^k >= 2 n - 1 points (Bluestein 1970), faster than the sum
///   from n = 25 on.
/// Thread-safety: Run may be called by several threads, each with scratch of its own.
class FourierTransform {
 public:
  /// Requires: samples >= 1.
  FourierTransform(size_t samples, bool inverse);

  /// Elements that Run needs as scratch.
  size_t scratch() const { return points_; }
  /// The first y.size() bins. Requires: x.size() is what the constructor was told, y.size() <= x.size(); none overlap.
  void Run(std::span<const Complex> x, std::span<Complex> y, std::span<Complex> scratch) const;

 private:
  void Convolve(std::span<const Complex> x, std::span<Complex> y, std::span<Complex> work) const;
  /// In place; `work` has 2^k elements in the order of reversed bits.
  void Butterflies(std::span<Complex> work) const;

  size_t samples_;
  bool inverse_;
  size_t points_;                ///< Of the radix-2 transform.
  std::vector<Complex> turns_;   ///< The first half of its e^(-+2 pi i / points).
  std::vector<Complex> chirp_;   ///< e^(-+pi i^2 / n), where the samples are no power of 2.
  std::vector<Complex> kernel_;  ///< Transform of the chirp's conjugate, divided by points_.
};

}  // namespace octet
