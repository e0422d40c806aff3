// The discrete Fourier transform of one signal.
#pragma once

#include <complex>
#include <cstddef>
#include <span>
#include <vector>

namespace octet {

using Complex = std::complex<double>;

/// y[k] = sum over i of x[i] e^(-2 pi i k / n), inverse: the conjugate turns, divided by n. In double, by O(n log n) steps for
/// any n but the shortest: signals arrive with requests, the square of their length would be hours.
///   n = 2^k: radix 2 (Cooley, Tukey 1965). Else n > kShort: a convolution of 2^k >= 2 n - 1 points (Bluestein 1970). Else
///   term by term.
/// Thread-safety: Run may be called by several threads, each with scratch of its own.
class FourierTransform {
 public:
  /// Samples up to which the sums are taken term by term: where Bluestein's convolution breaks even.
  static constexpr size_t kShort = 64;

  /// Requires: samples >= 1.
  FourierTransform(size_t samples, bool inverse);

  /// Elements that Run needs as scratch.
  size_t scratch() const;
  /// The first y.size() bins. Requires: x.size() is what the constructor was told, y.size() <= x.size(); none overlap.
  void Run(std::span<const Complex> x, std::span<Complex> y, std::span<Complex> scratch) const;

 private:
  void SumTerms(std::span<const Complex> x, std::span<Complex> y) const;
  void Convolve(std::span<const Complex> x, std::span<Complex> y, std::span<Complex> work) const;
  /// In place; `work` has 2^k elements in the order of reversed bits.
  void Butterflies(std::span<Complex> work) const;

  size_t samples_;
  bool inverse_;
  size_t points_ = 0;  ///< Of the radix-2 transform; 0: there is none.
  std::vector<Complex>
      turns_;  ///< e^(-+2 pi i / n) of the radix-2 transform (its first half), else of the samples.
  std::vector<Complex> chirp_;   ///< e^(-+pi i^2 / n), where the samples are no power of 2.
  std::vector<Complex> kernel_;  ///< Transform of the chirp's conjugate, divided by points_.
};

}  // namespace octet
