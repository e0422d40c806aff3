// Runs a model over the calibration set, with the wanted activations as extra outputs.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/quantize/calibration.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr int64_t kMostRowsPerRun = 8;
// Of intermediates and of what is observed: more rows in one run would only take more memory.
constexpr size_t kBytesPerRun = size_t{24} << 20;

// The graph with the observed values as its only outputs; graph inputs among them are fed, not computed.
Graph WithOutputs(const Graph& graph, std::span<const Observation> observations) {
  Graph copy = graph;
  copy.outputs.clear();
  for (const Observation& observation : observations) {
    if (!copy.is_graph_input(observation.value) && !copy.is_graph_output(observation.value))
      copy.outputs.push_back(observation.value);
  }
  return copy;
}

// The first sample that holds NaN or infinity; as many as there are, where none does.
int64_t FirstNotFinite(ConstTensorView samples) {
  const int64_t count = samples.shape()[0];
  if (samples.dtype() != DType::kF32 || samples.elements() == 0) return count;
  const int64_t row = samples.elements() / count;
  for (int64_t sample = 0; sample < count; ++sample) {
    const ConstTensorView view{samples.as<float>() + sample * row, {DType::kF32, Shape{row}}};
    if (!FindMinMax(view).finite) return sample;
  }
  return count;
}

// `samples`: those from `first` on.
absl::Status CheckSamples(const CalibrationData& set, const std::string& input, int64_t first,
                          ConstTensorView samples) {
  const int64_t bad = FirstNotFinite(samples);
  if (bad == samples.shape()[0]) return absl::OkStatus();
  return InvalidArgument("calibration input '{}', sample {}: NaN or infinity", input,
                         set.PlaceOf(first + bad));
}

class CalibrationPass {
 public:
  CalibrationPass(const Graph& graph, const Model& model, const CalibrationData& set,
                  std::span<const ValueId> outputs, std::span<const Observation> observations)
      : graph_(graph), model_(model), set_(set) {
    for (const Observation& observation : observations) {
      const auto input = std::ranges::find(graph.inputs, observation.value);
      const auto output = std::ranges::find(outputs, observation.value);
      const bool fed = input != graph.inputs.end();
      const auto slot = fed ? input - graph.inputs.begin() : output - outputs.begin();
      watched_.push_back({observation, fed, static_cast<size_t>(slot)});
    }
  }

  absl::Status Run(const Progress& progress, int64_t skipped) {
    const TensorInfo& first_input = model_.signature().inputs[0];
    const int64_t all = set_.count();
    // A model that does not batch takes as many rows as its own extent 0 says; samples that do not fill its last run
    // are left out.
    const int64_t own = set_.whole_inputs() ? 1 : first_input.shape[0];
    const bool fixed = own != kUnknownDim;
    if (fixed && all < own) {
      return InvalidArgument("calibration input '{}': expected at least {} samples, got {}",
                             first_input.name, own, all);
    }
    const int64_t total = fixed ? all - all % own : all;
    for (int64_t first = skipped; first < total;) {
      const int64_t step = fixed ? own : RowsPerRun(first);
      const int64_t rows = set_.Alike(first, std::min(step, total - first));
      OCTET_RETURN_IF_ERROR(RunRows(first, rows));
      first += rows;
      if (progress && !progress(first, total))
        return absl::CancelledError("calibration was stopped");
    }
    return absl::OkStatus();
  }

  RunFigures figures() const {
    std::map<std::string, double> share = plan_->certificate().MacShare();
    return {share["int8"], share["bf16"]};
  }

 private:
  struct Watched {
    Observation observation;
    bool fed;  ///< The value is input `slot`, else output `slot`.
    size_t slot;
  };

  // By what one takes, whatever the number of threads; most models have that plan since they were loaded. What runs in
  // stages, whose extents the data decide, is not bounded.
  int64_t RowsPerRun(int64_t sample) {
    std::vector<Shape> shapes = ShapesOf(sample, 1);
    if (shapes == of_one_row_) return rows_per_run_;
    of_one_row_ = std::move(shapes);
    rows_per_run_ = kMostRowsPerRun;
    const auto plan = model_.PlanFor(of_one_row_);
    if (!plan.ok() || !(*plan)->has_static_outputs()) return rows_per_run_;
    size_t bytes = (*plan)->memory().live_peak_bytes;
    for (const TensorSpec& spec : (*plan)->outputs()) bytes += spec.bytes();
    const size_t rows = kBytesPerRun / std::max<size_t>(bytes, 1);
    rows_per_run_ = std::clamp<int64_t>(static_cast<int64_t>(rows), 1, kMostRowsPerRun);
    return rows_per_run_;
  }

  std::vector<Shape> ShapesOf(int64_t sample, int64_t rows) const {
    std::vector<Shape> shapes;
    for (const TensorInfo& input : model_.signature().inputs)
      shapes.push_back(set_.RunShape(input.name, sample, rows));
    return shapes;
  }

  absl::Status Feed(int64_t first, int64_t rows) {
    for (size_t i = 0; i < fed_.size(); ++i) {
      const std::string& name = model_.signature().inputs[i].name;
      OCTET_RETURN_IF_ERROR(set_.Read(name, first, rows, fed_[i].mutable_data()));
      const Tensor& fed = fed_[i];
      const ConstTensorView samples{fed.data(), {fed.dtype(), Shape{rows, fed.elements() / rows}}};
      OCTET_RETURN_IF_ERROR(CheckSamples(set_, name, first, samples));
    }
    return absl::OkStatus();
  }

  absl::Status RunRows(int64_t first, int64_t rows) {
    OCTET_RETURN_IF_ERROR(Prepare(first, rows));
    OCTET_RETURN_IF_ERROR(Feed(first, rows));
    OCTET_RETURN_IF_ERROR(RunPlan());
    for (const Watched& watched : watched_) {
      const ConstTensorView batch =
          watched.fed ? fed_[watched.slot].view() : buffers_[watched.slot].view();
      const absl::Status seen = watched.observation.collector->Observe(batch);
      if (!seen.ok()) {
        return Annotate(
            seen, Format("activation '{}', samples {} to {}",
                         graph_.value(watched.observation.value).name, first, first + rows - 1));
      }
    }
    return absl::OkStatus();
  }

  absl::Status RunPlan() {
    if (plan_->has_static_outputs()) {
      std::vector<const void*> in;
      std::vector<void*> out;
      for (const Tensor& input : fed_) in.push_back(input.data());
      for (Tensor& buffer : buffers_) out.push_back(buffer.mutable_data());
      return plan_->Run(workspace_, in, out);
    }
    std::vector<Datum> data;
    for (const Tensor& input : fed_) data.push_back(Datum::Of(input));
    OCTET_ASSIGN_OR_RETURN(std::vector<Datum> answers, plan_->RunDynamic(workspace_, data, {}));
    for (size_t i = 0; i < answers.size(); ++i) buffers_[i] = std::move(answers[i].tensor);
    return absl::OkStatus();
  }

  absl::Status Prepare(int64_t first, int64_t rows) {
    const std::vector<Shape> shapes = ShapesOf(first, rows);
    const auto same = [](const Tensor& tensor, const Shape& shape) {
      return tensor.shape() == shape;
    };
    // What runs in stages may keep what it was given.
    const bool kept = plan_ != nullptr && plan_->has_static_outputs();
    if (kept && std::ranges::equal(fed_, shapes, same)) return absl::OkStatus();
    OCTET_ASSIGN_OR_RETURN(plan_, model_.PlanFor(shapes));
    fed_.clear();
    buffers_.clear();
    for (const TensorSpec& spec : plan_->inputs()) fed_.emplace_back(spec.dtype, spec.shape);
    if (!plan_->has_static_outputs()) {
      buffers_.resize(plan_->outputs().size());
      return absl::OkStatus();
    }
    for (const TensorSpec& spec : plan_->outputs()) buffers_.emplace_back(spec.dtype, spec.shape);
    return absl::OkStatus();
  }

  const Graph& graph_;
  const Model& model_;
  const CalibrationData& set_;
  std::vector<Watched> watched_;
  std::vector<Shape> of_one_row_;  ///< What rows_per_run_ is of.
  int64_t rows_per_run_ = 0;
  std::shared_ptr<const Plan> plan_;
  std::vector<Tensor> fed_;      ///< The plan's inputs.
  std::vector<Tensor> buffers_;  ///< Its outputs.
  Workspace workspace_;
};

// Whether samples are of an input; the axes of whole ones come behind that of the samples.
bool Fits(const Shape& samples, const Shape& input, bool whole) {
  const int own = whole ? 0 : 1;  // The first axis that a sample has by itself.
  const int ahead = whole ? 1 : 0;
  bool fits = samples.rank() == input.rank() + ahead && samples.rank() > 0;
  for (int axis = own; fits && axis < input.rank(); ++axis)
    fits = input[axis] == kUnknownDim || input[axis] == samples[axis + ahead];
  return fits;
}

absl::Status MatchSources(const Signature& signature, const CalibrationData::Sources& sources,
                          bool whole) {
  std::optional<int64_t> count;
  for (const TensorInfo& input : signature.inputs) {
    const auto found = sources.find(input.name);
    if (found == sources.end()) {
      return InvalidArgument("calibration set has no array for the model's input '{}'", input.name);
    }
    const TensorSpec& samples = found->second->spec();
    if (samples.dtype != input.dtype) {
      return InvalidArgument("calibration input '{}': expected {}, got {}", input.name,
                             DTypeName(input.dtype), DTypeName(samples.dtype));
    }
    if (!whole && input.shape.rank() > 0 && input.shape[0] == 0) {
      return InvalidArgument("calibration input '{}': the model's own batch is 0: {}", input.name,
                             input.shape.ToString());
    }
    if (!Fits(samples.shape, input.shape, whole)) {
      return InvalidArgument("calibration input '{}': expected shape {} (samples along {}), got {}",
                             input.name, input.shape.ToString(),
                             whole ? "one more axis before it" : "axis 0",
                             samples.shape.ToString());
    }
    if (samples.shape[0] == 0)
      return InvalidArgument("calibration input '{}' is empty", input.name);
    if (count && samples.shape[0] != *count) {
      return InvalidArgument(
          "calibration input '{}': expected {} samples like the first input, got {}", input.name,
          *count, samples.shape[0]);
    }
    count = samples.shape[0];
  }
  for (const auto& [name, unused] : sources) {
    const bool known =
        std::ranges::any_of(signature.inputs, [&](const TensorInfo& i) { return i.name == name; });
    if (!known) return InvalidArgument("calibration array '{}' is no input of the model", name);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status MatchInputs(const Signature& signature, const CalibrationData& set) {
  if (signature.inputs.empty()) return InvalidArgument("the model has no inputs to calibrate with");
  const bool whole = set.whole_inputs();
  if (set.empty()) return MatchSources(signature, {}, whole);
  for (const CalibrationData::Sources* sources : set.sources())
    OCTET_RETURN_IF_ERROR(MatchSources(signature, *sources, whole));
  const TensorInfo& first = signature.inputs[0];
  if (set.count() == 0) return InvalidArgument("calibration input '{}' is empty", first.name);
  if (!whole && first.shape[0] > 1 && !set.HasOneShape()) {
    return InvalidArgument(
        "calibration input '{}': the model takes {} samples at once, which have to be of one "
        "shape, got several",
        first.name, first.shape[0]);
  }
  return absl::OkStatus();
}

absl::Status CheckFinite(const CalibrationData& set) {
  OCTET_RETURN_IF_ERROR(set.CheckCounts());
  for (int64_t first = 0; first < set.count();) {
    const int64_t rows = set.Alike(first, set.count());
    for (const auto& [name, source] : set.SourcesOf(first)) {
      if (source->spec().dtype != DType::kF32) continue;
      OCTET_RETURN_IF_ERROR(set.Pass(name, first, rows, [&](int64_t at, ConstTensorView samples) {
        return CheckSamples(set, name, at, samples);
      }));
    }
    first += rows;
  }
  return absl::OkStatus();
}

absl::Status Calibrate(const Graph& graph, std::span<const Observation> observations,
                       const CalibrationData& set, const CalibrationRun& run, Precision precision,
                       RunFigures* figures) {
  Graph observed = WithOutputs(graph, observations);
  const std::vector<ValueId> outputs = observed.outputs;
  LoadOptions options;
  options.precision = precision;
  options.threads = run.threads;
  options.disabled_passes = run.disabled_passes;
  ConfigureWorkerThread(run.threads);
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model,
                         Model::FromGraph(std::move(observed), options));
  OCTET_RETURN_IF_ERROR(MatchInputs(model->signature(), set));
  CalibrationPass pass(graph, *model, set, outputs, observations);
  OCTET_RETURN_IF_ERROR(pass.Run(run.progress, run.first));
  if (figures != nullptr) *figures = pass.figures();
  return absl::OkStatus();
}

}  // namespace octet
