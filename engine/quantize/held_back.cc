#include "engine/quantize/held_back.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <span>

#include "engine/tensor/status.h"

namespace octet {
namespace {

// All of them in random order.
std::vector<int64_t> Shuffled(int64_t count, uint64_t seed) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(seed);
  std::ranges::shuffle(order, random);
  return order;
}

SplitSet Split(const CalibrationData& set, const std::vector<int64_t>& labels,
               std::span<const int64_t> ranges, std::span<const int64_t> held_back) {
  // What judges stays in random order, so that its first few are of all shapes.
  SplitSet split{set.Drawn(ranges).Grouped(), set.Drawn(held_back), {}};
  if (labels.empty()) return split;
  for (const int64_t index : held_back) split.labels.push_back(labels[static_cast<size_t>(index)]);
  return split;
}

}  // namespace

absl::Status CheckLabels(const std::vector<int64_t>& labels, int64_t count) {
  if (!labels.empty() && std::ssize(labels) != count)
    return InvalidArgument("expected {} labels, one per sample, got {}", count, labels.size());
  return absl::OkStatus();
}

int64_t OwnBatch(const Graph& graph, const CalibrationData& set) {
  if (graph.inputs.empty() || set.whole_inputs()) return 1;
  const auto& shape = graph.value(graph.inputs[0]).shape;
  const bool fixed = shape && shape->rank() > 0 && (*shape)[0] != kUnknownDim;
  return fixed ? (*shape)[0] : 1;
}

absl::StatusOr<SplitSet> HoldBack(const CalibrationData& set, const std::vector<int64_t>& labels,
                                  int64_t most_held_back, uint64_t seed) {
  OCTET_RETURN_IF_ERROR(set.CheckCounts());
  const int64_t count = set.count();
  if (count < 2)
    return InvalidArgument("to hold samples back takes at least 2 of them, got {}", count);
  OCTET_RETURN_IF_ERROR(CheckLabels(labels, count));
  const auto held = static_cast<size_t>(std::clamp<int64_t>(most_held_back, 1, count / 2));
  const std::vector<int64_t> order = Shuffled(count, seed);
  const std::span<const int64_t> indices = order;
  return Split(set, labels, indices.subspan(held), indices.first(held));
}

absl::StatusOr<SplitSet> AllHeldBack(const CalibrationData& set, const std::vector<int64_t>& labels,
                                     int64_t most, uint64_t seed) {
  OCTET_RETURN_IF_ERROR(set.CheckCounts());
  const int64_t count = set.count();
  if (count < 1) return InvalidArgument("no samples to compare answers on");
  OCTET_RETURN_IF_ERROR(CheckLabels(labels, count));
  const std::vector<int64_t> order = Shuffled(count, seed);
  const std::span<const int64_t> indices = order;
  return Split(set, labels, {}, indices.first(static_cast<size_t>(std::min(count, most))));
}

CalibrationData FirstSamples(const CalibrationData& set, int64_t count) {
  std::vector<int64_t> first(static_cast<size_t>(std::min(set.count(), count)));
  std::iota(first.begin(), first.end(), 0);
  return set.Drawn(first);
}

}  // namespace octet
