#include "engine/quantize/output_noise.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/passes/match.h"
#include "engine/quantize/selection.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

class Noise : public Collector {
 public:
  explicit Noise(const std::vector<float>& exact) : exact_(exact) {}

  absl::Status Observe(ConstTensorView batch) override {
    const std::span<const float> got = batch.span<float>();
    const size_t count = std::min(got.size(), exact_.size() - seen_);
    for (size_t i = 0; i < count; ++i) {
      const double exact = exact_[seen_ + i];
      if (!std::isfinite(exact)) continue;  // Nothing is near it, and rounding has not made it.
      noise_ += (got[i] - exact) * (got[i] - exact);
      signal_ += exact * exact;
    }
    seen_ += count;
    return absl::OkStatus();
  }

  double ratio() const { return signal_ > 0 ? noise_ / signal_ : noise_; }

 private:
  const std::vector<float>& exact_;
  size_t seen_ = 0;
  double noise_ = 0;
  double signal_ = 0;
};

// Finds what an output is chosen from by reals, as a detector's boxes are by NonMaxSuppression or TopK: the least noise may swap two of
// them, or add one, and no element of the output is then near its own.
class Choices {
 public:
  /// A node's input; in another graph of the same nodes it may be another value.
  using Slot = std::pair<NodeId, size_t>;

  explicit Choices(const Graph& graph) : graph_(graph) {}

  /// What is chosen from, and what decides about it, between the output and the layers before it; nothing where all is in its place.
  std::vector<Slot> Of(ValueId output) {
    slots_.clear();
    WalkBack(output, [&](NodeId id) {
      const Node& node = graph_.node(id);
      const bool gathers = node.is("Gather") || node.is("GatherElements") || node.is("GatherND");
      if (!gathers || !IsChosen(node.inputs[1])) return true;
      Keep(id, 0);
      return false;
    });
    return slots_;
  }

 private:
  bool IsLayer(NodeId id) const {
    const Node& node = graph_.node(id);
    return AsWeighted(graph_, id).has_value() || node.is("MatMul") || IsRecurrent(node);
  }

  // Visits the nodes that a value is made by, up to layers, and beyond a node where `visit` says so.
  template <typename Visit>
  void WalkBack(ValueId from, const Visit& visit) const {
    std::set<ValueId> seen = {from};
    std::vector<ValueId> open = {from};
    while (!open.empty()) {
      const NodeId id = graph_.producer(open.back());
      open.pop_back();
      if (id == kNone || IsLayer(id) || !visit(id)) continue;
      for (const ValueId x : graph_.node(id).inputs) {
        if (x != kNone && seen.insert(x).second) open.push_back(x);
      }
    }
  }

  bool IsChosen(ValueId indices) {
    constexpr std::array<std::string_view, 4> kByReals = {"NonMaxSuppression", "TopK", "ArgMax",
                                                          "ArgMin"};
    bool chosen = false;
    WalkBack(indices, [&](NodeId id) {
      const Node& node = graph_.node(id);
      if (node.domain != kOnnxDomain || !std::ranges::contains(kByReals, node.op)) return true;
      chosen = Keep(id, 0) || chosen;
      if (node.is("NonMaxSuppression")) chosen = Keep(id, 1) || chosen;
      return false;
    });
    return chosen;
  }

  bool Keep(NodeId id, size_t slot) {
    const Value& value = graph_.value(graph_.node(id).inputs[slot]);
    if (value.dtype != DType::kF32 || value.is_constant()) return false;
    slots_.emplace_back(id, slot);
    return true;
  }

  const Graph& graph_;
  std::vector<Slot> slots_;
};

}  // namespace

double SqnrDbOf(double noise_over_signal) { return -10 * std::log10(noise_over_signal); }

KeptOutputs::KeptOutputs(const Graph& graph) {
  Choices choices(graph);
  std::set<ValueId> values;
  const auto keep = [&](NodeId reader, size_t slot, ValueId value) {
    if (!values.insert(value).second) return;
    Kept& kept = kept_.emplace_back();
    std::tie(kept.reader, kept.slot, kept.value) = std::tie(reader, slot, value);
  };
  for (size_t slot = 0; slot < graph.outputs.size(); ++slot) {
    const ValueId id = graph.outputs[slot];
    if (graph.value(id).dtype != DType::kF32 || graph.value(id).is_constant()) continue;
    const std::vector<Choices::Slot> chosen = choices.Of(id);
    if (chosen.empty()) keep(kNone, slot, id);
    for (const auto& [reader, input] : chosen)
      keep(reader, input, graph.node(reader).inputs[input]);
  }
}

std::vector<Observation> KeptOutputs::Observations() {
  std::vector<Observation> observations;
  for (Kept& kept : kept_) observations.push_back({kept.value, &kept});
  return observations;
}

absl::Status KeptOutputs::Kept::Observe(ConstTensorView batch) {
  const std::span<const float> seen = batch.span<float>();
  const auto count =
      static_cast<std::ptrdiff_t>(std::min(seen.size(), kMaxElements - elements.size()));
  elements.insert(elements.end(), seen.begin(), seen.begin() + count);
  return absl::OkStatus();
}

absl::StatusOr<double> KeptOutputs::NoiseOf(const Graph& int8, const CalibrationData& set,
                                            const CalibrationRun& run,
                                            std::span<const Observation> more,
                                            RunFigures* figures) const {
  std::deque<Noise> noises;
  std::vector<Observation> observations(more.begin(), more.end());
  for (const Kept& kept : kept_) {
    const ValueId value =
        kept.reader == kNone ? int8.outputs[kept.slot] : int8.node(kept.reader).inputs[kept.slot];
    observations.push_back({value, &noises.emplace_back(kept.elements)});
  }
  OCTET_RETURN_IF_ERROR(Calibrate(int8, observations, set, run, Precision::kInt8, figures));
  double sum = 0;
  for (const Noise& noise : noises) sum += noise.ratio();
  if (std::isnan(sum)) return std::numeric_limits<double>::infinity();
  return sum / static_cast<double>(std::max<size_t>(noises.size(), 1));
}

}  // namespace octet
