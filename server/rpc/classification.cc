#include "server/rpc/classification.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>
#include <vector>

#include "engine/tensor/bytes_elements.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

template <typename T>
bool IsNaN(T score) {
  if constexpr (std::is_floating_point_v<T>) return std::isnan(score);
  return false;
}

template <typename T>
void AppendClasses(std::span<const T> scores, int64_t count, std::span<const std::string> labels,
                   std::string& bytes) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto better = [&](size_t a, size_t b) {
    const bool nan_a = IsNaN(scores[a]);
    const bool nan_b = IsNaN(scores[b]);
    if (nan_a != nan_b) return nan_b;
    if (!nan_a && scores[a] != scores[b]) return scores[a] > scores[b];
    return a < b;
  };
  const auto best = order.begin() + std::min<int64_t>(count, std::ssize(order));
  std::partial_sort(order.begin(), best, order.end(), better);
  for (auto index = order.begin(); index != best; ++index) {
    std::string element = Format("{}:{}", scores[*index], *index);
    if (*index < labels.size()) element += ":" + labels[*index];
    AppendBytesElement(element, bytes);
  }
}

/// As elements of T, which has a number for each of the output's.
template <typename T>
void AppendRows(ConstTensorView output, int64_t rows, int64_t count,
                std::span<const std::string> labels, std::string& bytes) {
  Tensor converted(DTypeOf<T>, output.shape());
  ConvertTensor(output, converted.mutable_view());
  const std::span<const T> scores = converted.span<T>();
  const size_t classes = rows == 0 ? 0 : scores.size() / static_cast<size_t>(rows);
  for (int64_t row = 0; row < rows; ++row) {
    AppendClasses(scores.subspan(static_cast<size_t>(row) * classes, classes), count, labels,
                  bytes);
  }
}

}  // namespace

Shape Classify(ConstTensorView output, bool batches, int64_t count,
               std::span<const std::string> labels, std::string& bytes) {
  const int64_t rows = batches ? output.shape()[0] : 1;
  const int64_t classes = rows == 0 ? 0 : output.elements() / rows;
  bytes.clear();
  switch (output.dtype()) {
    case DType::kF16:
    case DType::kBF16:
    case DType::kF32:
      AppendRows<float>(output, rows, count, labels, bytes);
      break;
    case DType::kF64:
      AppendRows<double>(output, rows, count, labels, bytes);
      break;
    case DType::kU64:
      AppendRows<uint64_t>(output, rows, count, labels, bytes);
      break;
    default:  // whole numbers, and truths
      AppendRows<int64_t>(output, rows, count, labels, bytes);
  }
  const int64_t k = std::min(count, classes);
  return batches ? Shape{rows, k} : Shape{k};
}

}  // namespace octet
