// Runs a model over the calibration set, with the wanted activations as extra outputs.
#include <algorithm>

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

// Rows [first, first + rows) of a tensor, without copying.
const void* Rows(const Tensor& samples, int64_t first) {
  const size_t row_bytes = samples.bytes() / static_cast<size_t>(samples.shape()[0]);
  return static_cast<const std::byte*>(samples.data()) + static_cast<size_t>(first) * row_bytes;
}

class CalibrationPass {
 public:
  CalibrationPass(const Graph& graph, const Model& model, std::vector<const Tensor*> inputs,
                  std::span<const ValueId> outputs, std::span<const Observation> observations)
      : graph_(graph), model_(model), inputs_(std::move(inputs)) {
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
    const int64_t all = inputs_[0]->shape()[0];
    // A model that does not batch takes as many rows as its own extent 0 says; samples that do not fill its last run
    // are left out.
    const bool fixed = first_input.shape[0] != kUnknownDim;
    const int64_t step = fixed ? first_input.shape[0] : RowsPerRun();
    if (fixed && all < step) {
      return InvalidArgument("calibration input '{}': expected at least {} samples, got {}",
                             first_input.name, step, all);
    }
    const int64_t total = fixed ? all - all % step : all;
    for (int64_t first = skipped; first < total; first += step) {
      const int64_t rows = std::min(step, total - first);
      OCTET_RETURN_IF_ERROR(RunRows(first, rows));
      if (progress && !progress(first + rows, total))
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
  int64_t RowsPerRun() const {
    const auto plan = model_.PlanFor(ShapesOf(1));
    if (!plan.ok() || !(*plan)->has_static_outputs()) return kMostRowsPerRun;
    size_t bytes = (*plan)->memory().live_peak_bytes;
    for (const TensorSpec& spec : (*plan)->outputs()) bytes += spec.bytes();
    const size_t rows = kBytesPerRun / std::max<size_t>(bytes, 1);
    return std::clamp<int64_t>(static_cast<int64_t>(rows), 1, kMostRowsPerRun);
  }

  std::vector<Shape> ShapesOf(int64_t rows) const {
    std::vector<Shape> shapes;
    for (const Tensor* input : inputs_) {
      shapes.push_back(input->shape());
      shapes.back()[0] = rows;
    }
    return shapes;
  }

  absl::Status RunRows(int64_t first, int64_t rows) {
    OCTET_RETURN_IF_ERROR(Prepare(rows));
    std::vector<const void*> in;
    for (const Tensor* input : inputs_) in.push_back(Rows(*input, first));
    OCTET_RETURN_IF_ERROR(RunPlan(in));
    for (const Watched& watched : watched_) {
      const ConstTensorView batch =
          watched.fed ? ConstTensorView{in[watched.slot], plan_->inputs()[watched.slot]}
                      : buffers_[watched.slot].view();
      const absl::Status seen = watched.observation.collector->Observe(batch);
      if (!seen.ok()) {
        return Annotate(
            seen, Format("activation '{}', samples {} to {}",
                         graph_.value(watched.observation.value).name, first, first + rows - 1));
      }
    }
    return absl::OkStatus();
  }

  absl::Status RunPlan(std::span<const void* const> in) {
    if (plan_->has_static_outputs()) {
      std::vector<void*> out;
      for (Tensor& buffer : buffers_) out.push_back(buffer.mutable_data());
      return plan_->Run(workspace_, in, out);
    }
    std::vector<Datum> data;
    for (size_t i = 0; i < in.size(); ++i) {
      const TensorSpec& spec = plan_->inputs()[i];
      data.push_back(Datum::Of(Tensor(spec.dtype, spec.shape, nullptr, in[i])));
    }
    OCTET_ASSIGN_OR_RETURN(std::vector<Datum> answers, plan_->RunDynamic(workspace_, data, {}));
    for (size_t i = 0; i < answers.size(); ++i) buffers_[i] = std::move(answers[i].tensor);
    return absl::OkStatus();
  }

  absl::Status Prepare(int64_t rows) {
    if (plan_ != nullptr && plan_->inputs()[0].shape[0] == rows) return absl::OkStatus();
    OCTET_ASSIGN_OR_RETURN(plan_, model_.PlanFor(ShapesOf(rows)));
    buffers_.clear();
    if (!plan_->has_static_outputs()) {
      buffers_.resize(plan_->outputs().size());
      return absl::OkStatus();
    }
    for (const TensorSpec& spec : plan_->outputs()) buffers_.emplace_back(spec.dtype, spec.shape);
    return absl::OkStatus();
  }

  const Graph& graph_;
  const Model& model_;
  std::vector<const Tensor*> inputs_;
  std::vector<Watched> watched_;
  std::shared_ptr<const Plan> plan_;
  std::vector<Tensor> buffers_;
  Workspace workspace_;
};

}  // namespace

absl::StatusOr<std::vector<const Tensor*>> MatchInputs(const Signature& signature,
                                                       const CalibrationSet& set) {
  std::vector<const Tensor*> matched;
  for (const TensorInfo& input : signature.inputs) {
    const auto found = set.find(input.name);
    if (found == set.end()) {
      return InvalidArgument("calibration set has no array for the model's input '{}'", input.name);
    }
    const Tensor& samples = found->second;
    if (samples.dtype() != input.dtype) {
      return InvalidArgument("calibration input '{}': expected {}, got {}", input.name,
                             DTypeName(input.dtype), DTypeName(samples.dtype()));
    }
    bool fits = samples.shape().rank() == input.shape.rank() && samples.shape().rank() > 0;
    for (int axis = 1; fits && axis < input.shape.rank(); ++axis) {
      fits = input.shape[axis] == kUnknownDim || input.shape[axis] == samples.shape()[axis];
    }
    if (!fits) {
      return InvalidArgument(
          "calibration input '{}': expected shape {} (samples along axis 0), got {}", input.name,
          input.shape.ToString(), samples.shape().ToString());
    }
    if (samples.shape()[0] == 0)
      return InvalidArgument("calibration input '{}' is empty", input.name);
    if (!matched.empty() && samples.shape()[0] != matched[0]->shape()[0]) {
      return InvalidArgument(
          "calibration input '{}': expected {} samples like the first input, got {}", input.name,
          matched[0]->shape()[0], samples.shape()[0]);
    }
    matched.push_back(&samples);
  }
  if (matched.empty()) return InvalidArgument("the model has no inputs to calibrate with");
  for (const auto& [name, unused] : set) {
    const bool known =
        std::ranges::any_of(signature.inputs, [&](const TensorInfo& i) { return i.name == name; });
    if (!known) return InvalidArgument("calibration array '{}' is no input of the model", name);
  }
  return matched;
}

absl::Status CheckFinite(const CalibrationSet& set) {
  for (const auto& [name, samples] : set) {
    if (samples.dtype() != DType::kF32 || samples.elements() == 0 || samples.shape().rank() == 0)
      continue;
    const int64_t row = samples.elements() / samples.shape()[0];
    for (int64_t sample = 0; sample < samples.shape()[0]; ++sample) {
      const ConstTensorView view{samples.span<float>().data() + sample * row,
                                 {DType::kF32, Shape{row}}};
      if (!FindMinMax(view).finite)
        return InvalidArgument("calibration input '{}', sample {}: NaN or infinity", name, sample);
    }
  }
  return absl::OkStatus();
}

absl::Status Calibrate(const Graph& graph, std::span<const Observation> observations,
                       const CalibrationSet& set, const CalibrationRun& run, Precision precision,
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
  OCTET_ASSIGN_OR_RETURN(std::vector<const Tensor*> inputs, MatchInputs(model->signature(), set));
  OCTET_RETURN_IF_ERROR(CheckFinite(set));
  CalibrationPass pass(graph, *model, std::move(inputs), outputs, observations);
  OCTET_RETURN_IF_ERROR(pass.Run(run.progress, run.first));
  if (figures != nullptr) *figures = pass.figures();
  return absl::OkStatus();
}

}  // namespace octet
