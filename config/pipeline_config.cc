#include "config/pipeline_config.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

namespace octet {
namespace {

using Pipeline = ModelConfig::Pipeline;
using Step = Pipeline::Step;
using Preprocess = Pipeline::Preprocess;

/// A key of a preprocess step, whose section is there as soon as one of its keys is.
YamlBinding PreprocessKey(Pipeline* pipeline, std::function<YamlBinding(Preprocess&)> bind) {
  return ForName<Step>(&pipeline->steps, [bind = std::move(bind)](Step& step) {
    if (!step.preprocess) step.preprocess = Preprocess();
    return bind(*step.preprocess);
  });
}

YamlBinding StepPrecision(Step& step) {
  std::vector<std::string> names;
  for (const Precision precision : kAllPrecisions) names.emplace_back(PrecisionName(precision));
  return Choice(std::move(names),
                [&step](const std::string& name) { step.precision = ParsePrecision(name); });
}

YamlBinding StepInputs(Step& step) {
  return {"mapping of names to texts",
          [&step](const YAML::Node& value, const std::string& name) -> absl::Status {
            std::vector<std::pair<std::string, std::string>> sources;
            OCTET_RETURN_IF_ERROR(TextMap(&sources).store(value, name));
            step.inputs = {sources.begin(), sources.end()};
            return absl::OkStatus();
          }};
}

std::vector<YamlKey> PreprocessKeys(Pipeline* pipeline) {
  const auto key = [pipeline](std::function<YamlBinding(Preprocess&)> bind) {
    return PreprocessKey(pipeline, std::move(bind));
  };
  const std::string at = "pipeline.steps.*.preprocess.";
  return {
      {at + "resize", key([](Preprocess& p) { return Integer(&p.resize, 0, 16384); }), "pixels",
       "the shorter side is resized to this and the middle cut out; 0 (when absent): the whole "
       "picture is stretched to the input's size"},
      {at + "scale", key([](Preprocess& p) { return Number(&p.scale, -1e6, 1e6); }), "",
       "x = (scale * pixel - mean[c]) / std[c] (1/255 when absent)"},
      {at + "mean", key([](Preprocess& p) { return NumberList(&p.mean); }), "",
       "by channel in the input's order, or one for all (0 when absent)"},
      {at + "std", key([](Preprocess& p) { return NumberList(&p.std); }), "",
       "likewise (1 when absent)"},
      {at + "channels", key([](Preprocess& p) {
         return Choice({"RGB", "BGR"}, [&p](const std::string& name) { p.bgr = name == "BGR"; });
       }),
       "", "order of the input's channels (RGB when absent)"},
      {at + "upright", key([](Preprocess& p) { return Boolean(&p.upright); }), "",
       "turn a JPEG as its EXIF orientation says (false when absent, as PIL and torchvision open "
       "pictures)"},
      {at + "max_pixels",
       key([](Preprocess& p) { return Integer(&p.max_pixels, 1, int64_t{1} << 30); }), "pixels",
       "a larger picture is refused before it is decoded (33554432 when absent). The pictures of a "
       "request may have 16 times as many together, a progressive JPEG's counted for each scan"},
  };
}

/// "a", "b".
std::string StepNames(const Pipeline& pipeline) {
  std::string names;
  for (const auto& [name, unused] : pipeline.steps) {
    names += Format("{}\"{}\"", names.empty() ? "" : ", ", name);
  }
  return names;
}

absl::Status CheckSource(const Pipeline& pipeline, std::string_view key, std::string_view text) {
  const TensorSource source = ParseTensorSource(text);
  if (source.name.empty()) {
    return InvalidArgument("{}: expected STEP.OUTPUT or a name, got \"{}\"", key, text);
  }
  if (source.step.empty() || pipeline.steps.contains(std::string(source.step))) {
    return absl::OkStatus();
  }
  return InvalidArgument("{}: no such step: \"{}\", expected one of {}", key, source.step,
                         StepNames(pipeline));
}

absl::Status CheckStep(const Pipeline& pipeline, const std::string& key, const Step& step) {
  if (step.model.empty() == !step.preprocess) {
    return InvalidArgument("{}: expected one of model and preprocess", key);
  }
  if (step.preprocess && (!step.version.empty() || step.precision)) {
    return InvalidArgument("{}: version and precision are for a step with a model", key);
  }
  if (ParsePrecision(step.version)) {
    return InvalidArgument("{}.version: expected a number or a label, got a precision: {}", key,
                           step.version);
  }
  for (const auto& [input, source] : step.inputs) {
    OCTET_RETURN_IF_ERROR(CheckSource(pipeline, Format("{}.inputs.{}", key, input), source));
  }
  if (!step.preprocess) return absl::OkStatus();
  for (const float divisor : step.preprocess->std) {
    if (divisor > 0) continue;
    return InvalidArgument("{}.preprocess.std: expected > 0, got {}", key, divisor);
  }
  return absl::OkStatus();
}

}  // namespace

TensorSource ParseTensorSource(std::string_view text) {
  const size_t dot = text.find('.');
  if (dot == std::string_view::npos) return {"", text};
  return {text.substr(0, dot), text.substr(dot + 1)};
}

std::vector<YamlKey> PipelineKeys(Pipeline* pipeline) {
  const auto of_step = [pipeline](std::function<YamlBinding(Step&)> bind) {
    return ForName<Step>(&pipeline->steps, std::move(bind));
  };
  std::vector<YamlKey> keys = {
      {"pipeline.steps.*.model", of_step([](Step& step) { return Text(&step.model); }), "",
       "the model that this step runs"},
      {"pipeline.steps.*.version", of_step([](Step& step) { return Text(&step.version); }), "",
       "its version, by number or label; the highest that is ready when absent"},
      {"pipeline.steps.*.precision", of_step(StepPrecision), "",
       "its precision; what the model's routing chooses when absent"},
      {"pipeline.steps.*.inputs", of_step(StepInputs), "",
       "by the names of the step's inputs: STEP.OUTPUT, or an input of the pipeline; an input that "
       "is not named here is one of the pipeline's under its own name"},
      {"pipeline.outputs", TextMap(&pipeline->outputs), "",
       "the pipeline's outputs by name, each a STEP.OUTPUT"},
  };
  std::ranges::move(PreprocessKeys(pipeline), std::back_inserter(keys));
  return keys;
}

absl::Status CheckPipeline(std::string_view file, const Pipeline& pipeline) {
  if (pipeline.steps.empty() || pipeline.outputs.empty()) {
    return InvalidArgument("{}: pipeline: {} are missing", file,
                           pipeline.steps.empty() ? "steps" : "outputs");
  }
  for (const auto& [name, step] : pipeline.steps) {
    const std::string key = Format("{}: pipeline.steps.{}", file, name);
    if (name.find('.') != std::string::npos) {
      return InvalidArgument("{}: a step's name has no dot", key);
    }
    OCTET_RETURN_IF_ERROR(CheckStep(pipeline, key, step));
  }
  for (const auto& [name, text] : pipeline.outputs) {
    const std::string key = Format("{}: pipeline.outputs.{}", file, name);
    if (name.empty() || ParseTensorSource(text).step.empty()) {
      return InvalidArgument("{}: expected STEP.OUTPUT, got \"{}\"", key, text);
    }
    OCTET_RETURN_IF_ERROR(CheckSource(pipeline, key, text));
  }
  return absl::OkStatus();
}

absl::Status CheckPipelineAlone(std::string_view file, const ModelConfig& config) {
  ModelConfig allowed;
  allowed.name = config.name;
  allowed.batching.max_batch = config.batching.max_batch;
  allowed.batching.max_queue_requests = config.batching.max_queue_requests;
  allowed.batching.max_queue_bytes = config.batching.max_queue_bytes;
  allowed.routing.sticky.parameter = config.routing.sticky.parameter;
  allowed.routing.sticky.metadata = config.routing.sticky.metadata;
  allowed.pipeline = config.pipeline;
  if (!config.pipeline || allowed == config) return absl::OkStatus();
  return InvalidArgument(
      "{}: beside a pipeline expected name, batching (max_batch, max_queue_requests, "
      "max_queue_bytes) and routing.sticky (parameter, metadata) alone; the other keys are for the "
      "models of its steps",
      file);
}

}  // namespace octet
