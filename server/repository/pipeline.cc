#include "server/repository/pipeline.h"

#include <algorithm>
#include <set>
#include <utility>

#include "engine/tensor/status.h"
#include "server/logging/event_log.h"
#include "server/picture/picture_model.h"
#include "server/repository/variant_observer.h"

namespace octet {
namespace {

using Rule = ModelConfig::Pipeline;

constexpr int64_t kPipelineVersion = 1;

std::optional<size_t> IndexOf(std::span<const TensorInfo> tensors, std::string_view name) {
  const auto found = std::ranges::find(tensors, name, &TensorInfo::name);
  if (found == tensors.end()) return std::nullopt;
  return static_cast<size_t>(found - tensors.begin());
}

std::string Listed(std::span<const TensorInfo> tensors) {
  std::string names;
  for (const TensorInfo& tensor : tensors) {
    names += Format("{}\"{}\"", names.empty() ? "" : ", ", tensor.name);
  }
  return names;
}

std::string Described(const TensorInfo& tensor) {
  return Format("{} {}", DTypeName(tensor.dtype),
                tensor.rank_known ? tensor.shape.ToString() : "of any rank");
}

/// True when some tensor is of the shapes of both.
bool MayAgree(const TensorInfo& one, const TensorInfo& other) {
  if (!one.rank_known || !other.rank_known) return true;
  const Shape& a = one.shape;
  const Shape& b = other.shape;
  if (a.rank() != b.rank()) return false;
  for (int i = 0; i < a.rank(); ++i) {
    if (a[i] != b[i] && a[i] != kUnknownDim && b[i] != kUnknownDim) return false;
  }
  return true;
}

/// Puts the steps of one definition together.
class Linker {
 public:
  Linker(const PipelineDefinition& definition, const Catalogue& catalogue)
      : definition_(definition),
        rule_(*definition.settings.config.pipeline),
        catalogue_(catalogue) {}

  absl::StatusOr<std::shared_ptr<const ModelVersion>> Link();

 private:
  /// Runs `link` on every step, in order, and names the step that it fails on.
  template <typename LinkOne>
  absl::Status ForEach(LinkOne link);
  absl::Status FindModel(PipelineStep& step, const Rule::Step& rule);
  /// The inputs that read the pictures of the step.
  std::vector<TensorInfo> PicturesReadFrom(const PipelineStep& step) const;
  absl::Status MakePictures(PipelineStep& step, const Rule::Step& rule);
  absl::Status Wire(size_t reader);
  absl::StatusOr<PipelineSource> FindOutput(const TensorSource& source) const;
  absl::StatusOr<PipelineSource> FindOwnInput(std::string_view name, const TensorInfo& expected,
                                              const InputRecipe& recipe);
  absl::Status Sort();
  absl::Status FindOutputs();
  std::vector<std::string> LabelsOfOutputs() const;
  void Describe();
  const Rule::Step& RuleOf(const PipelineStep& step) const { return rule_.steps.at(step.name); }
  std::optional<size_t> StepNamed(std::string_view name) const;

  const PipelineDefinition& definition_;
  const Rule& rule_;
  const Catalogue& catalogue_;
  std::shared_ptr<ModelVersion> version_ = std::make_shared<ModelVersion>();
  std::shared_ptr<Pipeline> pipeline_ = std::make_shared<Pipeline>();
};

template <typename LinkOne>
absl::Status Linker::ForEach(LinkOne link) {
  for (size_t i = 0; i < pipeline_->steps.size(); ++i) {
    OCTET_RETURN_IF_ERROR(Annotate(link(i), Format("step \"{}\"", pipeline_->steps[i].name)));
  }
  return absl::OkStatus();
}

std::optional<size_t> Linker::StepNamed(std::string_view name) const {
  const auto found = std::ranges::find(pipeline_->steps, name, &PipelineStep::name);
  if (found == pipeline_->steps.end()) return std::nullopt;
  return static_cast<size_t>(found - pipeline_->steps.begin());
}

absl::Status Linker::FindModel(PipelineStep& step, const Rule::Step& rule) {
  OCTET_ASSIGN_OR_RETURN(step.version, catalogue_.Find(rule.model, rule.version));
  const ModelVersion& version = *step.version;
  if (version.sequences != nullptr) {
    return InvalidArgument("model \"{}\" has state: it answers sequences, no steps", rule.model);
  }
  step.precision = rule.precision;
  step.signature = version.signature;
  step.max_batch = version.batching.max_batch;
  if (version.pipeline != nullptr) {
    step.recipes = version.pipeline->recipes;
    if (!rule.precision) return absl::OkStatus();
    return InvalidArgument("model \"{}\" is a pipeline: its steps have precisions", rule.model);
  }
  if (rule.precision) {
    const RouteFacts facts = {.precision = PrecisionName(*rule.precision)};
    OCTET_RETURN_IF_ERROR(
        Annotate(ChoosePrecision(version.routes, facts).status(),
                 Format("model \"{}\" version {}", version.model, version.version)));
  }
  const auto ready = std::ranges::find_if(version.variants, &ServedVariant::ready);
  step.recipes = ready->queue->target().recipes;
  return absl::OkStatus();
}

std::vector<TensorInfo> Linker::PicturesReadFrom(const PipelineStep& step) const {
  std::vector<TensorInfo> inputs;
  for (const PipelineStep& reader : pipeline_->steps) {
    for (const auto& [name, text] : RuleOf(reader).inputs) {
      const TensorSource source = ParseTensorSource(text);
      if (source.step != step.name || source.name != kPictureOutput) continue;
      const auto index = IndexOf(reader.signature.inputs, name);
      if (index) inputs.push_back(reader.signature.inputs[*index]);  // else Wire tells
    }
  }
  return inputs;
}

/// The step's model follows from the first input that its tensor is for and that tells all it must; Wire holds the others to it.
absl::Status Linker::MakePictures(PipelineStep& step, const Rule::Step& rule) {
  absl::StatusOr<PictureRecipe> recipe =
      InvalidArgument("no step with a model reads its output \"{}\"", kPictureOutput);
  TensorInfo taken;
  for (const TensorInfo& input : PicturesReadFrom(step)) {
    absl::StatusOr<PictureRecipe> made = PictureRecipe::Make(*rule.preprocess, input);
    if (!made.ok() && !taken.name.empty()) continue;  // the first one's mistake is told
    const bool found = made.ok();
    recipe = std::move(made);
    taken = input;
    if (found) break;
  }
  OCTET_RETURN_IF_ERROR(recipe.status());
  ExecutionTarget target;
  target.name = Format("{}/{}/{}", definition_.model, kPipelineVersion, step.name);
  target.model = MakePictureModel(*std::move(recipe), taken);
  step.signature = target.model->signature();
  OCTET_ASSIGN_OR_RETURN(step.recipes.emplace_back(),
                         InputRecipe::Make(step.signature.inputs[0], nullptr));
  target.recipes = step.recipes;
  const ServerConfig::Batching& batching = definition_.settings.batching;
  target.batch = {.max_batch = 1};
  target.max_queue_requests = static_cast<size_t>(batching.max_queue_requests);
  target.max_queue_bytes = static_cast<size_t>(batching.max_queue_bytes);
  target.observer = std::make_shared<VariantObserver>(definition_.pictures.at(step.name),
                                                      std::make_shared<VersionStatistics>());
  step.pictures = std::make_shared<VariantQueue>(std::move(target));
  step.max_batch = batching.max_batch;
  return absl::OkStatus();
}

absl::StatusOr<PipelineSource> Linker::FindOutput(const TensorSource& source) const {
  const std::optional<size_t> step = StepNamed(source.step);
  if (!step) return NotFound("no such step: \"{}\"", source.step);
  const auto& outputs = pipeline_->steps[*step].signature.outputs;
  const std::optional<size_t> index = IndexOf(outputs, source.name);
  if (index) return PipelineSource{step, *index};
  return InvalidArgument("step \"{}\" has no output \"{}\", expected {}", source.step, source.name,
                         Listed(outputs));
}

absl::StatusOr<PipelineSource> Linker::FindOwnInput(std::string_view name,
                                                    const TensorInfo& expected,
                                                    const InputRecipe& recipe) {
  auto& inputs = version_->signature.inputs;
  if (const std::optional<size_t> index = IndexOf(inputs, name)) {
    const TensorInfo& known = inputs[*index];
    if (known.dtype != expected.dtype || known.rank_known != expected.rank_known ||
        known.shape != expected.shape) {
      return InvalidArgument("input \"{}\" of the pipeline is {} for one reader and {} for another",
                             name, Described(known), Described(expected));
    }
    // Several readers agree on the model's own type alone.
    OCTET_ASSIGN_OR_RETURN(pipeline_->recipes[*index], InputRecipe::Make(expected, nullptr));
    return PipelineSource{std::nullopt, *index};
  }
  inputs.push_back({.name = std::string(name),
                    .dtype = expected.dtype,
                    .shape = expected.shape,
                    .rank_known = expected.rank_known});
  pipeline_->recipes.push_back(recipe);
  return PipelineSource{std::nullopt, inputs.size() - 1};
}

absl::Status Linker::Wire(size_t reader) {
  PipelineStep& step = pipeline_->steps[reader];
  const Rule::Step& rule = RuleOf(step);
  for (const auto& [name, unused] : rule.inputs) {
    if (IndexOf(step.signature.inputs, name)) continue;
    return InvalidArgument("there is no input \"{}\", expected {}", name,
                           Listed(step.signature.inputs));
  }
  for (size_t i = 0; i < step.signature.inputs.size(); ++i) {
    const TensorInfo& expected = step.signature.inputs[i];
    const auto given = rule.inputs.find(expected.name);
    const TensorSource source = given == rule.inputs.end() ? TensorSource{"", expected.name}
                                                           : ParseTensorSource(given->second);
    if (source.step.empty()) {
      OCTET_ASSIGN_OR_RETURN(step.inputs.emplace_back(),
                             FindOwnInput(source.name, expected, step.recipes[i]));
      continue;
    }
    OCTET_ASSIGN_OR_RETURN(const PipelineSource found, FindOutput(source));
    PipelineStep& writer = pipeline_->steps[*found.step];
    const TensorInfo& got = writer.signature.outputs[found.index];
    if (!step.recipes[i].Accepts(got.dtype) || !MayAgree(expected, got)) {
      return InvalidArgument("input \"{}\": expected {}, got {} from {}", expected.name,
                             Described(expected), Described(got), given->second);
    }
    step.inputs.push_back(found);
    writer.wanted[found.index] = true;
    if (std::ranges::contains(writer.readers, reader)) continue;
    writer.readers.push_back(reader);
    ++step.waits_for;
  }
  return absl::OkStatus();
}

/// Brings the steps into an order in which each is behind those that it waits for.
absl::Status Linker::Sort() {
  std::vector<PipelineStep>& steps = pipeline_->steps;
  std::vector<size_t> left(steps.size());
  std::vector<size_t> order;
  for (size_t i = 0; i < steps.size(); ++i) {
    left[i] = steps[i].waits_for;
    if (left[i] == 0) order.push_back(i);
  }
  for (size_t next = 0; next < order.size(); ++next) {
    for (const size_t reader : steps[order[next]].readers) {
      if (--left[reader] == 0) order.push_back(reader);
    }
  }
  if (order.size() < steps.size()) {
    std::string names;
    for (size_t i = 0; i < steps.size(); ++i) {
      if (left[i] > 0) names += Format("{}\"{}\"", names.empty() ? "" : ", ", steps[i].name);
    }
    return InvalidArgument("steps wait for each other: {}", names);
  }
  std::vector<size_t> place(steps.size());
  for (size_t i = 0; i < order.size(); ++i) place[order[i]] = i;
  std::vector<PipelineStep> sorted;
  for (const size_t from : order) {
    PipelineStep& step = sorted.emplace_back(std::move(steps[from]));
    for (size_t& reader : step.readers) reader = place[reader];
    for (PipelineSource& source : step.inputs) {
      if (source.step) source.step = place[*source.step];
    }
  }
  steps = std::move(sorted);
  return absl::OkStatus();
}

absl::Status Linker::FindOutputs() {
  for (const auto& [name, text] : rule_.outputs) {
    const absl::StatusOr<PipelineSource> source = FindOutput(ParseTensorSource(text));
    OCTET_RETURN_IF_ERROR(Annotate(source.status(), Format("output \"{}\"", name)));
    PipelineStep& step = pipeline_->steps[*source->step];
    step.wanted[source->index] = true;
    TensorInfo info = step.signature.outputs[source->index];
    info.name = name;
    version_->signature.outputs.push_back(std::move(info));
    pipeline_->outputs.push_back(*source);
  }
  return absl::OkStatus();
}

/// Those of the models that give the outputs, when they have the same ones; else none.
std::vector<std::string> Linker::LabelsOfOutputs() const {
  const std::vector<std::string>* labels = nullptr;
  for (const PipelineSource& output : pipeline_->outputs) {
    const PipelineStep& step = pipeline_->steps[*output.step];
    if (step.version == nullptr) return {};
    if (labels != nullptr && *labels != step.version->labels) return {};
    labels = &step.version->labels;
  }
  return *labels;
}

/// What follows from the steps together.
void Linker::Describe() {
  const ModelSettings& settings = definition_.settings;
  version_->model = definition_.model;
  version_->number = kPipelineVersion;
  version_->version = std::to_string(kPipelineVersion);
  version_->batching = settings.batching;
  version_->routing = settings.config.routing;
  version_->statistics = definition_.statistics;
  version_->labels = settings.labels;
  version_->signature.batches = true;
  for (const PipelineStep& step : pipeline_->steps) {
    if (step.version == nullptr) continue;
    version_->signature.batches &= step.signature.batches;
    const auto& inner = step.version->pipeline;
    pipeline_->compares |= inner == nullptr ? step.version->shadow != nullptr : inner->compares;
    version_->batching.max_batch =
        std::min(version_->batching.max_batch, static_cast<int>(step.max_batch));
  }
  if (version_->labels.empty()) version_->labels = LabelsOfOutputs();
  pipeline_->observer =
      std::make_shared<VariantObserver>(definition_.metrics, definition_.statistics);
  pipeline_->metrics = definition_.metrics;
  version_->pipeline = pipeline_;
  version_->experiment = std::make_shared<const Experiment>(*version_);
  version_->events = std::make_shared<TrafficEvents>();  // none: its models have theirs
}

absl::StatusOr<std::shared_ptr<const ModelVersion>> Linker::Link() {
  for (const auto& [name, unused] : rule_.steps) pipeline_->steps.emplace_back().name = name;
  std::vector<PipelineStep>& steps = pipeline_->steps;
  OCTET_RETURN_IF_ERROR(ForEach([&](size_t i) {
    const Rule::Step& rule = RuleOf(steps[i]);
    return rule.preprocess ? absl::OkStatus() : FindModel(steps[i], rule);
  }));
  OCTET_RETURN_IF_ERROR(ForEach([&](size_t i) {
    const Rule::Step& rule = RuleOf(steps[i]);
    return rule.preprocess ? MakePictures(steps[i], rule) : absl::OkStatus();
  }));
  for (PipelineStep& step : steps) step.wanted.resize(step.signature.outputs.size());
  OCTET_RETURN_IF_ERROR(ForEach([&](size_t i) { return Wire(i); }));
  OCTET_RETURN_IF_ERROR(Sort());
  OCTET_RETURN_IF_ERROR(FindOutputs());
  Describe();
  return version_;
}

/// True when the version was made from what the catalogue would find now.
bool IsUpToDate(const ModelVersion& version, const PipelineDefinition& definition,
                const Catalogue& catalogue) {
  const auto& rules = definition.settings.config.pipeline->steps;
  return std::ranges::all_of(version.pipeline->steps, [&](const PipelineStep& step) {
    if (step.version == nullptr) return true;
    const Rule::Step& rule = rules.at(step.name);
    const auto found = catalogue.Find(rule.model, rule.version);
    return found.ok() && *found == step.version;
  });
}

/// Links the pipelines of a catalogue, each behind those that are its steps.
class CatalogueLinker {
 public:
  CatalogueLinker(const Catalogue& before, Catalogue& catalogue)
      : before_(before), catalogue_(catalogue) {}

  void Link(const std::string& name) {
    if (!begun_.insert(name).second) return;
    const std::shared_ptr<const CatalogueModel> model = catalogue_.models.at(name);
    const PipelineDefinition& definition = *model->pipeline;
    const CatalogueVersion* before = Before(name, definition);
    CatalogueVersion row = before == nullptr ? CatalogueVersion() : *before;
    absl::Status status = LinkSteps(definition);
    open_.erase(name);
    if (!status.ok()) {
      row.served = nullptr;
    } else if (row.served == nullptr || !IsUpToDate(*row.served, definition, catalogue_)) {
      auto linked = LinkPipeline(definition, catalogue_);
      status = linked.status();
      row.served = linked.ok() ? *std::move(linked) : nullptr;
    }
    row.state = status.ok() ? VersionState::kReady : VersionState::kUnavailable;
    row.reason = status.ok() ? model->problem : std::string(Message(status));
    // What was not yet wrong while other models were to come is told once all have been tried.
    const bool late = catalogue_.complete && !before_.complete && !status.ok();
    if (before == nullptr || before->served != row.served || before->reason != row.reason || late) {
      Tell(definition, row);
    }
    auto next = std::make_shared<CatalogueModel>(*model);
    next->versions[kPipelineVersion] = std::move(row);
    catalogue_.models[name] = std::move(next);
  }

 private:
  /// What the same definition was linked to before; null when it is new.
  const CatalogueVersion* Before(const std::string& name, const PipelineDefinition& definition) {
    const auto model = before_.models.find(name);
    if (model == before_.models.end() || model->second->pipeline.get() != &definition) {
      return nullptr;
    }
    return &model->second->versions.at(kPipelineVersion);
  }

  /// The pipelines that are steps of this one. INVALID_ARGUMENT when this one is a step of theirs.
  absl::Status LinkSteps(const PipelineDefinition& definition) {
    open_.insert(definition.model);
    for (const auto& [name, step] : definition.settings.config.pipeline->steps) {
      if (open_.contains(step.model)) {
        return InvalidArgument("step \"{}\": pipelines run each other in a circle: \"{}\"", name,
                               step.model);
      }
      const auto found = catalogue_.models.find(step.model);
      if (found == catalogue_.models.end() || found->second->pipeline == nullptr) continue;
      Link(step.model);
    }
    return absl::OkStatus();
  }

  void Tell(const PipelineDefinition& definition, const CatalogueVersion& row) {
    const bool ready = row.state == VersionState::kReady;
    definition.ShowReady(ready);
    LogEvent(ready || !catalogue_.complete ? LogLevel::kInfo : LogLevel::kError,
             ready ? "pipeline_ready" : "pipeline_unavailable",
             {{"model", definition.model}, {"reason", row.reason}});
  }

  const Catalogue& before_;
  Catalogue& catalogue_;
  std::set<std::string, std::less<>> begun_;
  std::set<std::string, std::less<>> open_;  ///< Whose steps are being linked.
};

}  // namespace

std::string PicturesModel(std::string_view pipeline, std::string_view step) {
  return Format("{}/{}", pipeline, step);
}

PipelineDefinition::PipelineDefinition(std::string model_name, ModelSettings model_settings,
                                       std::shared_ptr<VersionStatistics> counts,
                                       MetricsRegistry& registry)
    : model(std::move(model_name)),
      settings(std::move(model_settings)),
      statistics(std::move(counts)),
      metrics(registry.ForVariant({model, std::to_string(kPipelineVersion), "pipeline"})) {
  for (const auto& [name, step] : settings.config.pipeline->steps) {
    if (!step.preprocess) continue;
    pictures[name] =
        registry.ForVariant({PicturesModel(model, name), std::to_string(kPipelineVersion),
                             std::string(kPicturesPrecision)});
  }
}

void PipelineDefinition::ShowReady(bool ready) const {
  metrics->ready.Set(ready ? 1 : 0);
  for (const auto& [unused, step] : pictures) step->ready.Set(ready ? 1 : 0);
}

absl::StatusOr<std::shared_ptr<const ModelVersion>> LinkPipeline(
    const PipelineDefinition& definition, const Catalogue& catalogue) {
  return Linker(definition, catalogue).Link();
}

void LinkPipelines(const Catalogue& before, Catalogue& catalogue) {
  std::vector<std::string> names;
  for (const auto& [name, model] : catalogue.models) {
    if (model->pipeline != nullptr) names.push_back(name);
  }
  CatalogueLinker linker(before, catalogue);
  for (const std::string& name : names) linker.Link(name);
}

}  // namespace octet
