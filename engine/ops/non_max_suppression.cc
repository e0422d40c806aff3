// What detectors end in: NonMaxSuppression.
#include <algorithm>
#include <vector>

#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

absl::Status InferNonMaxSuppression(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 5));
  for (const size_t i : {0, 1}) {
    OCTET_RETURN_IF_ERROR(ExpectDType(context, i, {DType::kF32}));
    OCTET_RETURN_IF_ERROR(ExpectRank(context, i, 3, 3));
  }
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 2, {DType::kI64}));
  for (const size_t i : {3, 4}) OCTET_RETURN_IF_ERROR(ExpectDType(context, i, {DType::kF32}));
  for (const size_t i : {2, 3, 4}) OCTET_RETURN_IF_ERROR(ExpectScalar(context, i));
  return context.SetOutput(0, DType::kI64, Shape{kUnknownDim, 3});
}

struct Box {
  float y_min = 0;
  float x_min = 0;
  float y_max = 0;
  float x_max = 0;

  float area() const { return (y_max - y_min) * (x_max - x_min); }
};

/// From [y1, x1, y2, x2] with corners in any order, or [x centre, y centre, width, height].
Box ReadBox(const float* b, bool center_point) {
  if (center_point) {
    return {b[1] - b[3] / 2, b[0] - b[2] / 2, b[1] + b[3] / 2, b[0] + b[2] / 2};
  }
  return {std::min(b[0], b[2]), std::min(b[1], b[3]), std::max(b[0], b[2]), std::max(b[1], b[3])};
}

/// Intersection over union above the threshold; boxes without an area overlap nothing.
bool Overlap(const Box& a, const Box& b, float threshold) {
  const float height = std::min(a.y_max, b.y_max) - std::max(a.y_min, b.y_min);
  const float width = std::min(a.x_max, b.x_max) - std::max(a.x_min, b.x_min);
  if (!(height > 0 && width > 0)) return false;
  const float shared = height * width;
  const float together = a.area() + b.area() - shared;
  return a.area() > 0 && b.area() > 0 && together > 0 && shared / together > threshold;
}

struct Suppression {
  int64_t most = 0;  ///< Boxes per class.
  float iou_threshold = 0;
  std::optional<float> score_threshold;
};

template <typename T>
absl::StatusOr<std::optional<T>> ScalarInput(std::span<const Datum* const> inputs, size_t i) {
  if (i >= inputs.size() || inputs[i] == nullptr) return std::nullopt;
  const Tensor& tensor = inputs[i]->tensor;
  if (tensor.elements() == 1) return tensor.span<T>()[0];
  return InvalidArgument("input {} must be a scalar, got shape {}", i, tensor.shape().ToString());
}

absl::StatusOr<Suppression> ReadThresholds(std::span<const Datum* const> inputs) {
  OCTET_ASSIGN_OR_RETURN(const auto most, ScalarInput<int64_t>(inputs, 2));
  OCTET_ASSIGN_OR_RETURN(const auto iou, ScalarInput<float>(inputs, 3));
  OCTET_ASSIGN_OR_RETURN(const auto score, ScalarInput<float>(inputs, 4));
  const float threshold = iou.value_or(0);
  if (!(threshold >= 0 && threshold <= 1))
    return InvalidArgument("'iou_threshold' must lie in [0, 1], got {}", threshold);
  return Suppression{std::max<int64_t>(most.value_or(0), 0), threshold, score};
}

/// The boxes of one class that stay, best first; of equal scores the first box first. A NaN is no score.
std::vector<int64_t> Select(std::span<const Box> boxes, const float* scores,
                            const Suppression& limits) {
  std::vector<int64_t> candidates;
  for (size_t i = 0; i < boxes.size(); ++i) {
    const bool above =
        limits.score_threshold ? scores[i] > *limits.score_threshold : scores[i] == scores[i];
    if (above) candidates.push_back(static_cast<int64_t>(i));
  }
  std::ranges::stable_sort(candidates, [&](int64_t i, int64_t j) { return scores[i] > scores[j]; });
  std::vector<int64_t> selected;
  for (const int64_t i : candidates) {
    if (std::ssize(selected) >= limits.most) break;
    const auto covers = [&](int64_t j) {
      return Overlap(boxes[i], boxes[j], limits.iou_threshold);
    };
    if (std::ranges::none_of(selected, covers)) selected.push_back(i);
  }
  return selected;
}

/// boxes [B, N, 4], scores [B, C, N] -> [count, 3]: batch, class and box of each that stays, by batch, class and score.
/// Source: ONNX NonMaxSuppression-11.
absl::StatusOr<std::vector<Datum>> NonMaxSuppression(const Node& node,
                                                     std::span<const Datum* const> inputs) {
  const Tensor& boxes = inputs[0]->tensor;
  const Tensor& scores = inputs[1]->tensor;
  const Shape& b = boxes.shape();
  const Shape& s = scores.shape();
  if (b.rank() != 3 || s.rank() != 3 || b[2] != 4 || b[0] != s[0] || b[1] != s[2]) {
    return InvalidArgument("boxes {} and scores {} do not belong together", b.ToString(),
                           s.ToString());
  }
  OCTET_ASSIGN_OR_RETURN(const int64_t center_point, node.attributes.Int("center_point_box", 0));
  OCTET_ASSIGN_OR_RETURN(const Suppression limits, ReadThresholds(inputs));
  // Of no boxes there may be any number of classes.
  if (scores.elements() == 0)
    return std::vector<Datum>{Datum::Of(Tensor(DType::kI64, Shape{0, 3}))};
  const int64_t classes = s[1];
  const int64_t count = b[1];
  std::vector<Box> corners(static_cast<size_t>(b[0] * count));
  for (size_t i = 0; i < corners.size(); ++i)
    corners[i] = ReadBox(boxes.span<float>().data() + 4 * i, center_point != 0);
  std::vector<std::vector<int64_t>> selected(static_cast<size_t>(s[0] * classes));
  ParallelFor(std::ssize(selected), 1 + 4096 / std::max<int64_t>(count, 1),
              [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                  const std::span<const Box> own(corners.data() + i / classes * count,
                                                 static_cast<size_t>(count));
                  selected[i] = Select(own, scores.span<float>().data() + i * count, limits);
                }
              });
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < std::ssize(selected); ++i) {
    for (const int64_t box : selected[i]) rows.insert(rows.end(), {i / classes, i % classes, box});
  }
  return std::vector<Datum>{Datum::Of(Tensor::From<int64_t>(Shape{std::ssize(rows) / 3, 3}, rows))};
}

}  // namespace

std::span<const OpDef> NonMaxSuppressionOps() {
  static constexpr OpDef kOps[] = {
      {.domain = kOnnxDomain,
       .name = "NonMaxSuppression",
       .since = 10,
       .infer = InferNonMaxSuppression,
       .evaluate = NonMaxSuppression},
  };
  return kOps;
}

}  // namespace octet
