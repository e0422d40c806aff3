#include "engine/quantize/layer_noise.h"

#include <algorithm>
#include <deque>
#include <map>
#include <span>
#include <utility>

#include "engine/ops/op.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// One result of both models: first fp32's elements, then what the other's differ by.
struct Compared {
  class Reference : public Collector {
   public:
    absl::Status Observe(ConstTensorView batch) override {
      const std::span<const float> seen = batch.span<float>();
      const size_t count = std::min(seen.size(), most - elements.size());
      elements.insert(elements.end(), seen.begin(),
                      seen.begin() + static_cast<std::ptrdiff_t>(count));
      return absl::OkStatus();
    }
    size_t most = 0;
    std::vector<float> elements;
  };
  class Variant : public Collector {
   public:
    explicit Variant(const Reference& reference) : reference_(reference) {}
    absl::Status Observe(ConstTensorView batch) override {
      const std::span<const float> got = batch.span<float>();
      const std::span<const float> kept = reference_.elements;
      const size_t count = std::min(got.size(), kept.size() - seen_);
      noise.Add(got.first(count), kept.subspan(seen_, count));
      seen_ += count;
      return absl::OkStatus();
    }
    NoiseSums noise;

   private:
    const Reference& reference_;
    size_t seen_ = 0;
  };

  ValueId in_fp32 = kNone;
  ValueId in_variant = kNone;
  Reference reference;
  Variant variant{reference};
};

bool IsRealResult(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  return graph.producer(id) != kNone && value.is_tensor() && value.dtype == DType::kF32;
}

}  // namespace

absl::StatusOr<std::vector<LayerNoise>> CompareLayers(const Graph& variant, Precision precision,
                                                      const Graph& fp32, const CalibrationSet& set,
                                                      const CalibrationRun& run) {
  Graph graphs[] = {fp32, variant};
  for (Graph& graph : graphs) OCTET_RETURN_IF_ERROR(InferShapes(graph));
  std::map<std::string_view, ValueId> in_variant;
  for (ValueId id = 0; id < graphs[1].value_count(); ++id) {
    if (IsRealResult(graphs[1], id)) in_variant.emplace(graphs[1].value(id).name, id);
  }
  std::deque<Compared> compared;  // Observers stay where they are.
  for (const NodeId node : graphs[0].order()) {
    for (const ValueId id : graphs[0].node(node).outputs) {
      if (id == kNone || !IsRealResult(graphs[0], id)) continue;
      const auto found = in_variant.find(graphs[0].value(id).name);
      if (found == in_variant.end()) continue;
      Compared& result = compared.emplace_back();
      result.in_fp32 = id;
      result.in_variant = found->second;
    }
  }
  if (compared.empty())
    return InvalidArgument("the models have no FP32 results of the same name, nothing to compare");
  std::vector<Observation> references;
  std::vector<Observation> variants;
  for (Compared& result : compared) {
    result.reference.most = kMostKept / compared.size();
    references.push_back({result.in_fp32, &result.reference});
    variants.push_back({result.in_variant, &result.variant});
  }
  OCTET_RETURN_IF_ERROR(Calibrate(graphs[0], references, set, run));
  OCTET_RETURN_IF_ERROR(Calibrate(graphs[1], variants, set, run, precision));
  std::vector<LayerNoise> layers;
  for (const Compared& result : compared) {
    layers.push_back({graphs[0].value(result.in_fp32).name,
                      graphs[0].node(graphs[0].producer(result.in_fp32)).op,
                      result.variant.noise});
  }
  return layers;
}

}  // namespace octet
