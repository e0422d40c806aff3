#include "engine/quantize/statistics.h"

#include <algorithm>

#include "engine/tensor/status.h"

namespace octet {
namespace {

int RankOf(const Graph& graph, ValueId id) {
  const auto& shape = graph.value(id).shape;
  return shape ? shape->rank() : 2;
}

// Keeps everything: for outputs on few samples.
class Recorder : public Collector {
 public:
  absl::Status Observe(ConstTensorView batch) override {
    const auto values = batch.span<float>();
    values_.insert(values_.end(), values.begin(), values.end());
    return absl::OkStatus();
  }
  const std::vector<float>& values() const { return values_; }

 private:
  std::vector<float> values_;
};

CalibrationSet FirstSamples(const CalibrationSet& set, int64_t count) {
  CalibrationSet first;
  for (const auto& [name, samples] : set) {
    Shape shape = samples.shape();
    if (shape.rank() > 0) shape[0] = std::min(shape[0], count);
    const auto owner = std::make_shared<Tensor>(samples);
    first.emplace(name, Tensor(samples.dtype(), std::move(shape), owner, samples.data()));
  }
  return first;
}

}  // namespace

ValueId Statistics::RangeOwner(ValueId id) const {
  for (auto at = selection.range_from.find(id); at != selection.range_from.end();
       at = selection.range_from.find(id)) {
    id = at->second;
  }
  return id;
}

absl::StatusOr<Statistics> GatherStatistics(const Graph& graph, const CalibrationSet& set,
                                            const CalibrationRun& run) {
  Statistics statistics;
  statistics.selection = SelectQuantized(graph);
  if (statistics.selection.weighted.empty()) {
    return InvalidArgument("nothing to quantize: no Conv, Gemm or MatMul with constant weights");
  }
  for (const ValueId id : statistics.selection.quantized) {
    statistics.histograms.try_emplace(statistics.RangeOwner(id));
  }
  for (const WeightedNode& weighted : statistics.selection.weighted) {
    const Node& node = graph.node(weighted.node);
    const int axis = node.is("Conv") ? 1 : RankOf(graph, node.inputs[0]) - 1;
    statistics.means.try_emplace(weighted.node, axis);
  }
  std::vector<Observation> observations;
  for (auto& [id, histogram] : statistics.histograms) observations.push_back({id, &histogram});
  for (auto& [id, means] : statistics.means)
    observations.push_back({graph.node(id).inputs[0], &means});
  OCTET_RETURN_IF_ERROR(Calibrate(graph, observations, set, run));
  return statistics;
}

absl::StatusOr<std::vector<float>> Outputs(const Graph& graph, const CalibrationSet& set,
                                           const CalibrationRun& run) {
  std::vector<ValueId> outputs;
  for (const ValueId id : graph.outputs) {
    if (graph.value(id).dtype == DType::kF32) outputs.push_back(id);
  }
  std::vector<Recorder> recorders(outputs.size());
  std::vector<Observation> observations;
  for (size_t i = 0; i < outputs.size(); ++i) observations.push_back({outputs[i], &recorders[i]});
  CalibrationRun quietly = run;
  quietly.progress = nullptr;
  OCTET_RETURN_IF_ERROR(
      Calibrate(graph, observations, FirstSamples(set, kComparedSamples), quietly));
  std::vector<float> all;
  for (const Recorder& recorder : recorders)
    all.insert(all.end(), recorder.values().begin(), recorder.values().end());
  return all;
}

}  // namespace octet
