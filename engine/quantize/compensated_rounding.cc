#include "engine/quantize/compensated_rounding.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "engine/tensor/parallel.h"

namespace octet {
namespace {

// Of the largest second moment; added to every variance.
constexpr double kLeastVariance = 1e-4;

// Sums of squares may leave the range of float where the activations themselves do not.
bool Usable(const PatchMoments& moments, int64_t group) {
  return moments.count() > 0 && std::ranges::all_of(moments.products(group), [](float product) {
           return std::isfinite(product);
         });
}

// The feedback U of one group, with the order in which its elements are rounded.
class Feedback {
 public:
  Feedback(const PatchMoments& moments, int64_t group, bool centered)
      : length_(moments.length()), order_(static_cast<size_t>(length_)) {
    const auto sums = moments.sums(group);
    const auto products = moments.products(group);
    const auto n = static_cast<double>(moments.count());
    const auto square_of = [&](int64_t i, int64_t j) {
      return products[static_cast<size_t>(std::min(i, j) * length_ + std::max(i, j))] / n;
    };
    const auto moment = [&](int64_t i, int64_t j) {
      const double square = square_of(i, j);
      const double means =
          static_cast<double>(sums[static_cast<size_t>(i)]) * sums[static_cast<size_t>(j)] / n / n;
      return centered ? square - means : square;
    };
    std::iota(order_.begin(), order_.end(), 0);
    std::ranges::stable_sort(order_,
                             [&](int64_t a, int64_t b) { return moment(a, a) > moment(b, b); });
    const double kept = n / (n + static_cast<double>(length_));
    // The sums are of floats: a variance far below the square of the mean is their error, not the data's.
    double largest = 0;
    for (int64_t i = 0; i < length_; ++i) largest = std::max(largest, square_of(i, i));
    least_ = kLeastVariance * std::max(largest, 1e-30);
    rows_.resize(static_cast<size_t>(length_ * length_));
    for (int64_t i = 0; i < length_; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        const double h = moment(order_[static_cast<size_t>(i)], order_[static_cast<size_t>(j)]);
        Row(i)[j] = i == j ? std::max(h, 0.0) + least_ : kept * h;
      }
    }
    Decompose();
  }

  int64_t order(int64_t k) const { return order_[static_cast<size_t>(k)]; }
  /// U_0k to U_(k-1)k.
  const double* column(int64_t k) const { return rows_.data() + k * length_; }

 private:
  double* Row(int64_t i) { return rows_.data() + i * length_; }

  // From the last column to the first, in place of the lower triangle: row k becomes column k of U.
  void Decompose() {
    std::vector<double> scaled(static_cast<size_t>(length_));
    for (int64_t k = length_ - 1; k > 0; --k) {
      double* const u = Row(k);
      const double d = std::max(u[k], least_);
      for (int64_t i = 0; i < k; ++i) {
        scaled[static_cast<size_t>(i)] = u[i];
        u[i] /= d;
      }
      ParallelFor(k, 128, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          double* const row = Row(i);
          const double factor = scaled[static_cast<size_t>(i)];
          for (int64_t j = 0; j <= i; ++j) row[j] -= factor * u[j];
        }
      });
    }
  }

  int64_t length_;
  double least_ = 0;
  std::vector<int64_t> order_;
  std::vector<double> rows_;
};

}  // namespace

void CompensateRounding(const Tensor& weights, const WeightLayout& layout,
                        const PatchMoments& moments, bool centered, QuantizedWeights& quantized) {
  const int64_t length = moments.length();
  const int64_t per_group = layout.Outputs(weights.shape()) / moments.groups();
  const WeightIndex index(weights.shape(), layout);
  const auto limit = static_cast<double>(quantized.limit);
  const float* const real = weights.span<float>().data();
  int8_t* const rounded = quantized.values.mutable_span<int8_t>().data();
  for (int64_t group = 0; group < moments.groups(); ++group) {
    if (!Usable(moments, group)) continue;  // stays rounded to nearest
    const Feedback feedback(moments, group, centered);
    ParallelFor(per_group, 1, [&](int64_t begin, int64_t end) {
      std::vector<double> errors(static_cast<size_t>(length));
      for (int64_t o = group * per_group + begin; o < group * per_group + end; ++o) {
        const std::vector<float>& scales = quantized.params.scales;
        const double scale = scales[static_cast<size_t>(o) % scales.size()];
        for (int64_t k = 0; k < length; ++k) {
          const int64_t at = index.PositionOf(o, feedback.order(k));
          const double* const u = feedback.column(k);
          double wanted = real[at];
          for (int64_t i = 0; i < k; ++i) wanted += errors[static_cast<size_t>(i)] * u[i];
          const double q = std::clamp(std::nearbyint(wanted / scale), -limit, limit);
          rounded[at] = static_cast<int8_t>(q);
          errors[static_cast<size_t>(k)] = real[at] - q * scale;
        }
      }
    });
  }
}

}  // namespace octet
