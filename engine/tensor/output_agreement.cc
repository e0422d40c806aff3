#include "engine/tensor/output_agreement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "engine/tensor/quantize.h"

namespace octet {
namespace {

template <typename T>
int64_t CountEqual(ConstTensorView got, ConstTensorView reference) {
  const std::span<const T> a = got.span<T>();
  const std::span<const T> b = reference.span<T>();
  int64_t equal = 0;
  for (size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i] ? 1 : 0;
  return equal;
}

/// Equal elements of a type that is not floating point.
int64_t CountEqualElements(ConstTensorView got, ConstTensorView reference) {
  if (got.dtype() == DType::kString) return CountEqual<std::string_view>(got, reference);
  switch (SizeOf(got.dtype())) {
    case 1:
      return CountEqual<uint8_t>(got, reference);
    case 2:
      return CountEqual<uint16_t>(got, reference);
    case 4:
      return CountEqual<uint32_t>(got, reference);
    default:
      return CountEqual<uint64_t>(got, reference);
  }
}

bool IsDistribution(std::span<const float> row) {
  double sum = 0;
  for (const float p : row) {
    if (!(p >= 0)) return false;
    sum += p;
  }
  return std::abs(sum - 1) <= 1e-3;
}

double Divergence(std::span<const float> got, std::span<const float> reference) {
  double sum = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double x = reference[i];
    if (x > 0) sum += x * std::log(x / std::max<double>(got[i], 0x1p-24));
  }
  return std::max(sum, 0.0);  // sums that are 1 to a thousandth can leave it a little below
}

void CompareClasses(std::span<const float> got, std::span<const float> reference, size_t classes,
                    OutputComparison& comparison) {
  ClassAgreement agreement;
  bool distributions = true;
  double divergence = 0;
  for (size_t at = 0; at < got.size(); at += classes) {
    const auto y = got.subspan(at, classes);
    const auto x = reference.subspan(at, classes);
    const std::optional<size_t> best = TopClass(y);
    const std::optional<size_t> expected = TopClass(x);
    ++agreement.rows;
    if (best && expected) {
      agreement.top1 += *best == *expected ? 1 : 0;
      agreement.top5 += IsAmongTop(y, *expected, ClassAgreement::kTop) ? 1 : 0;
    }
    distributions = distributions && IsDistribution(y) && IsDistribution(x);
    if (distributions) divergence += Divergence(y, x);
  }
  comparison.classes = agreement;
  if (distributions && agreement.rows > 0) {
    comparison.kl = divergence / static_cast<double>(agreement.rows);
  }
}

/// The elements as floats: where they are, or converted into `converted`.
std::span<const float> Floats(ConstTensorView tensor, Tensor& converted) {
  if (tensor.dtype() == DType::kF32) return tensor.span<float>();
  converted = Tensor(DType::kF32, tensor.shape());
  ConvertTensor(tensor, converted.mutable_view());
  return converted.span<float>();
}

}  // namespace

void NoiseSums::Add(std::span<const float> got, std::span<const float> reference) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double x = reference[i];
    const double difference = got[i] - x;
    if (!std::isfinite(difference)) {
      non_finite += got[i] == reference[i] ? 0 : 1;
      lost += std::isfinite(x) ? 1 : 0;
      continue;
    }
    signal += x * x;
    noise += difference * difference;
    max_abs = std::max(max_abs, std::abs(difference));
  }
}

void NoiseSums::Merge(const NoiseSums& other) {
  signal += other.signal;
  noise += other.noise;
  max_abs = std::max(max_abs, other.max_abs);
  non_finite += other.non_finite;
  lost += other.lost;
}

double NoiseSums::SqnrDb() const {
  if (noise == 0) return std::numeric_limits<double>::infinity();
  return 10 * std::log10(signal / noise);
}

double NoiseSums::RelativeL2() const {
  if (noise == 0) return 0;
  return std::sqrt(noise / signal);
}

int64_t ClassesOf(const Shape& shape, std::optional<int64_t> rows) {
  int end = shape.rank();
  if (end == 1) return rows == 1 && shape[0] > 1 ? shape[0] : 0;
  if (end == 0 || (rows && shape[0] != *rows)) return 0;
  while (end > 2 && shape[end - 1] == 1) --end;
  int axis = 1;
  while (rows && axis + 1 < end && shape[axis] == 1) ++axis;
  return axis + 1 == end && shape[axis] > 1 ? shape[axis] : 0;
}

std::optional<size_t> TopClass(std::span<const float> scores) {
  if (scores.empty()) return std::nullopt;
  size_t best = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isnan(scores[i])) return std::nullopt;
    if (scores[i] > scores[best]) best = i;
  }
  return best;
}

bool IsAmongTop(std::span<const float> scores, size_t index, size_t k) {
  size_t before = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    before += scores[i] > scores[index] || (scores[i] == scores[index] && i < index) ? 1 : 0;
  }
  return before < k;
}

OutputComparison CompareOutputs(ConstTensorView got, ConstTensorView reference,
                                std::optional<int64_t> rows) {
  OutputComparison comparison;
  comparison.same_shape = got.spec == reference.spec;
  if (!comparison.same_shape) return comparison;
  if (!IsFloat(got.dtype())) {
    comparison.elements = got.elements();
    comparison.equal = CountEqualElements(got, reference);
    return comparison;
  }
  Tensor got_converted;
  Tensor reference_converted;
  const std::span<const float> y = Floats(got, got_converted);
  const std::span<const float> x = Floats(reference, reference_converted);
  comparison.noise.emplace().Add(y, x);
  int64_t classes = ClassesOf(got.shape());
  if (classes == 0 && rows) classes = ClassesOf(got.shape(), rows);
  if (classes > 0) CompareClasses(y, x, static_cast<size_t>(classes), comparison);
  return comparison;
}

}  // namespace octet
