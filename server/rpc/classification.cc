#include "server/rpc/classification.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "engine/tensor/bytes_elements.h"
#include "engine/tensor/status.h"

namespace octet {

void AppendClasses(std::span<const float> scores, int64_t count,
                   std::span<const std::string> labels, std::string& bytes) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto better = [&](size_t a, size_t b) {
    const bool nan_a = std::isnan(scores[a]);
    const bool nan_b = std::isnan(scores[b]);
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

Shape Classify(ConstTensorView output, bool batches, int64_t count,
               std::span<const std::string> labels, std::string& bytes) {
  Tensor reals(DType::kF32, output.shape());
  ConvertTensor(output, reals.mutable_view());
  const int64_t rows = batches ? output.shape()[0] : 1;
  const int64_t classes = rows == 0 ? 0 : output.elements() / rows;
  bytes.clear();
  const std::span<const float> scores = reals.span<float>();
  for (int64_t row = 0; row < rows; ++row) {
    AppendClasses(scores.subspan(static_cast<size_t>(row * classes), static_cast<size_t>(classes)),
                  count, labels, bytes);
  }
  const int64_t k = std::min(count, classes);
  return batches ? Shape{rows, k} : Shape{k};
}

}  // namespace octet
