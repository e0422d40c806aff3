// DFT and STFT: held against the sum that defines them, and signals too long for it.
#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <numbers>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/ops/fourier.h"
#include "engine/tensor/format.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"

namespace octet::testing {
namespace spectrum_test {

/// Real and imaginary parts in turn.
Tensor Signal(int64_t count, int64_t parts, uint32_t seed) {
  const Tensor reals = RandomReals({1, count, parts}, seed);
  Tensor signal(DType::kF64, reals.shape());
  std::ranges::copy(reals.span<float>(), signal.mutable_span<double>().begin());
  return signal;
}

std::vector<Complex> Numbers(const Tensor& tensor, int64_t parts) {
  const auto elements = Elements<double>(tensor);
  std::vector<Complex> numbers;
  for (size_t i = 0; i < elements.size(); i += static_cast<size_t>(parts))
    numbers.emplace_back(elements[i], parts > 1 ? elements[i + 1] : 0);
  return numbers;
}

/// The first `bins` sums over x[i] e^(-+2 pi i k / n).
std::vector<Complex> ByDefinition(const std::vector<Complex>& x, size_t bins, bool inverse) {
  const size_t n = x.size();
  std::vector<Complex> y(bins);
  for (size_t k = 0; k < bins; ++k) {
    for (size_t i = 0; i < n; ++i) {
      const double angle =
          2 * std::numbers::pi * static_cast<double>(i * k % n) / static_cast<double>(n);
      y[k] += x[i] * std::polar(1.0, inverse ? angle : -angle);
    }
    if (inverse) y[k] /= static_cast<double>(n);
  }
  return y;
}

void ExpectSame(const std::vector<Complex>& got, const std::vector<Complex>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t k = 0; k < got.size(); ++k) {
    EXPECT_NEAR(got[k].real(), want[k].real(), 1e-11) << k << " of " << want.size();
    EXPECT_NEAR(got[k].imag(), want[k].imag(), 1e-11) << k << " of " << want.size();
  }
}

TEST(Fourier, AnswersWhatTheSumAnswers) {
  for (const size_t n : {1, 2, 3, 8, 63, 64, 65, 66, 127, 128, 129, 255, 257, 400, 720, 1000}) {
    const auto x = Numbers(Signal(static_cast<int64_t>(n), 2, 1), 2);
    for (const bool inverse : {false, true}) {
      const FourierTransform transform(n, inverse);
      std::vector<Complex> scratch(transform.scratch());
      for (const size_t bins : {n, n / 2 + 1}) {
        std::vector<Complex> y(bins);
        transform.Run(x, y, scratch);
        ExpectSame(y, ByDefinition(x, bins, inverse));
      }
    }
  }
}

TEST(Dft, TransformsRealAndComplexSignals) {
  for (const int64_t count : {60, 150, 256}) {
    for (const int64_t parts : {1, 2}) {
      const Tensor x = Signal(count, parts, 2);
      const auto dft = [&](const char* flag) {
        const auto outputs =
            OneNode("DFT", 17).Input(x).Set("axis", int64_t{1}).Set(flag, int64_t{1}).Run();
        EXPECT_TRUE(outputs.ok()) << outputs.status();
        return outputs.ok() ? Numbers(outputs->front(), 2) : std::vector<Complex>{};
      };
      const auto bins = static_cast<size_t>(count);
      ExpectSame(dft("onesided"), ByDefinition(Numbers(x, parts), bins / 2 + 1, false));
      ExpectSame(dft("inverse"), ByDefinition(Numbers(x, parts), bins, true));
    }
  }
}

// As a sum these are 4e10 terms.
TEST(Dft, LongSignalsTakeNoSquareOfTheirLength) {
  constexpr int64_t kPrime = 200003;
  Tensor x(DType::kF64, Shape{1, kPrime, 1});
  for (int64_t i = 0; i < kPrime; ++i)
    x.mutable_span<double>()[static_cast<size_t>(i)] =
        1 + std::cos(2 * std::numbers::pi * 1234 * static_cast<double>(i) / kPrime);
  const auto outputs = OneNode("DFT", 17).Input(x).Set("axis", int64_t{1}).Run();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  const auto y = Numbers(outputs->front(), 2);
  for (size_t k = 0; k < y.size(); ++k) {
    const bool tone = k == 1234 || k == kPrime - 1234;
    ASSERT_NEAR(y[k].real(), k == 0 ? kPrime : tone ? kPrime / 2.0 : 0, 1e-6) << k;
    ASSERT_NEAR(y[k].imag(), 0, 1e-6) << k;
  }
}

TEST(Stft, TransformsEveryFrame) {
  constexpr int64_t kLength = 100, kStep = 40;
  const Tensor x = Signal(260, 1, 3);
  const Tensor window = Signal(kLength, 1, 4).Reshaped({kLength});
  const auto outputs =
      OneNode("STFT", 17).Input(x).Constant(Tensor::Scalar<int64_t>(kStep)).Input(window).Run();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  ASSERT_EQ(outputs->front().shape(), (Shape{1, 5, 51, 2}));
  std::vector<Complex> want;
  for (int64_t frame = 0; frame < 5; ++frame) {
    std::vector<Complex> weighted;
    for (int64_t i = 0; i < kLength; ++i)
      weighted.emplace_back(x.span<double>()[static_cast<size_t>(frame * kStep + i)] *
                            window.span<double>()[static_cast<size_t>(i)]);
    const auto bins = ByDefinition(weighted, 51, false);
    want.insert(want.end(), bins.begin(), bins.end());
  }
  ExpectSame(Numbers(outputs->front(), 2), want);
}

// As PyTorch's exporter writes real signals.
TEST(Stft, TakesRealSignalsWithoutAnAxisOfParts) {
  const Tensor x = Signal(260, 1, 3);
  const auto transformed = [](const Tensor& signal) {
    const auto outputs = OneNode("STFT", 17)
                             .Input(signal)
                             .Constant(Tensor::Scalar<int64_t>(40))
                             .Absent()
                             .Constant(Tensor::Scalar<int64_t>(100))
                             .Run();
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return outputs.ok() ? Elements<double>(outputs->front()) : std::vector<double>{};
  };
  EXPECT_EQ(transformed(x.Reshaped({1, 260})), transformed(x));
  EXPECT_EQ(transformed(x).size(), size_t{5} * 51 * 2);
}

// Frames of reals are transformed two at a time: what is in one must not show in the other, which may be another request's.
TEST(Stft, KeepsFramesApart) {
  constexpr int64_t kSignals = 2, kFrames = 5, kLength = 12, kSamples = kFrames * kLength;
  const Tensor reals = RandomReals({kSignals, kSamples, 1}, 5);
  Tensor parts(DType::kF32, Shape{kSignals, kSamples, 2});
  const auto scale = [](int64_t frame, float real) {
    if (frame == 0) return 0.0F;
    if (frame == 3) return real * 1e30F;
    if (frame == 5) return std::numeric_limits<float>::quiet_NaN();
    return frame == 9 ? std::numeric_limits<float>::infinity() : real;
  };
  Tensor signal(DType::kF32, reals.shape());
  for (size_t i = 0; i < reals.span<float>().size(); ++i) {
    const float value = scale(static_cast<int64_t>(i) / kLength, reals.span<float>()[i]);
    signal.mutable_span<float>()[i] = parts.mutable_span<float>()[2 * i] = value;
    parts.mutable_span<float>()[2 * i + 1] = 0;
  }
  const auto transformed = [](const Tensor& x, int64_t onesided) {
    const auto outputs = OneNode("STFT", 17)
                             .Input(x)
                             .Constant(Tensor::Scalar<int64_t>(kLength))
                             .Absent()
                             .Constant(Tensor::Scalar<int64_t>(kLength))
                             .Set("onesided", onesided)
                             .Run();
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return outputs.ok() ? Elements<float>(outputs->front()) : std::vector<float>{};
  };
  for (const int64_t onesided : {0, 1}) {
    // Those of complex numbers are transformed one at a time.
    const auto got = transformed(signal, onesided), want = transformed(parts, onesided);
    ASSERT_EQ(got.size(), want.size());
    const size_t size = got.size() / (kSignals * kFrames);
    for (size_t i = 0; i < got.size(); ++i) {
      SCOPED_TRACE(Format("frame {}, element {}", i / size, i % size));
      if (std::isnan(want[i])) {
        EXPECT_TRUE(std::isnan(got[i]));
      } else {
        EXPECT_NEAR(got[i], want[i], i / size == 0 ? 0 : 1e-5F * std::max(1.0F, std::abs(want[i])));
      }
    }
  }
}

}  // namespace spectrum_test
}  // namespace octet::testing
