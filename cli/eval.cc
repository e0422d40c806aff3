// octet eval: accuracy on labelled samples, agreement with a reference model.
#include <iostream>
#include <memory>

#include "cli/evaluation.h"
#include "cli/json_text.h"
#include "cli/model_options.h"
#include "cli/samples.h"
#include "cli/session.h"
#include "cli/verb.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

struct EvalOptions {
  ModelOptions model;
  std::string data;
  std::string map;
  std::string reference;
  int64_t batch = 8;
  bool layers = false;
  bool json = false;
};

/// The noise of each layer's result, that of the layers before it included.
absl::StatusOr<nlohmann::ordered_json> NoiseByLayer(const EvalOptions& options,
                                                    const CalibrationData& inputs) {
  OCTET_ASSIGN_OR_RETURN(Graph graph, ReadOnnxFile(options.model.path));
  OCTET_ASSIGN_OR_RETURN(Graph reference, ReadOnnxFile(options.reference));
  const CalibrationRun run{.threads = options.model.threads,
                           .disabled_passes = options.model.disabled_passes};
  OCTET_ASSIGN_OR_RETURN(const LayerComparison layers,
                         CompareLayers(std::move(reference), std::move(graph), inputs, run));
  nlohmann::ordered_json rows = nlohmann::json::array();
  for (const ComparedValue& layer : layers.values) {
    const bool noisy = layer.noise.noise > 0 && layer.noise.signal > 0;
    rows.push_back({{"value", layer.name},
                    {"operator", layer.op},
                    {"sqnr_db", noisy ? nlohmann::json(layer.noise.SqnrDb()) : nlohmann::json()}});
  }
  return rows;
}

void PrintLayerNoise(const nlohmann::ordered_json& layers) {
  std::cout << Format("{:<40} {:<20} {:>8}\n", "result", "operator", "SQNR dB");
  for (const nlohmann::ordered_json& layer : layers) {
    const auto& sqnr_db = layer["sqnr_db"];
    std::cout << Format("{:<40} {:<20} {:>8}\n", layer["value"].get<std::string>(),
                        layer["operator"].get<std::string>(),
                        sqnr_db.is_null() ? "-" : Format("{:.1f}", sqnr_db.get<double>()));
  }
}

absl::Status Eval(const EvalOptions& options) {
  OCTET_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model, options.model.Load());
  OCTET_ASSIGN_OR_RETURN(const Samples samples,
                         Samples::Open(model->signature(), {{options.data}, options.map}));
  std::optional<Session> reference;
  if (!options.reference.empty()) {
    OCTET_ASSIGN_OR_RETURN(std::shared_ptr<const Model> loaded,
                           LoadReference(options.reference, options.model.threads));
    reference.emplace(std::move(loaded));
  }
  const bool has_labels = samples.has_labels();
  const bool has_reference = reference.has_value();
  nlohmann::ordered_json layers;
  if (options.layers) {
    OCTET_ASSIGN_OR_RETURN(layers, NoiseByLayer(options, samples.data()));
  }
  Session session(std::move(model));
  OCTET_ASSIGN_OR_RETURN(const Tally tally, Evaluate(session, reference ? &*reference : nullptr,
                                                     samples, options.batch));
  nlohmann::ordered_json json = ToJson(tally, has_labels, has_reference);
  if (options.json) {
    if (options.layers) json["layers"] = std::move(layers);
    std::cout << JsonText(json) << '\n';
    return absl::OkStatus();
  }
  for (const auto& [name, value] : json.items()) {
    const bool equal =
        name == "sqnr_db" && has_reference && tally.reals && tally.noise.non_finite == 0;
    std::cout << Format("{:<17} {}\n", name,
                        value.is_string()  ? value.get<std::string>()
                        : !value.is_null() ? value.dump()
                        : equal            ? "equal outputs"
                                           : "not measured");
  }
  if (options.layers) PrintLayerNoise(layers);
  return absl::OkStatus();
}

}  // namespace

void AddEval(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* verb = app.add_subcommand(
      "eval", "Measure accuracy on labelled samples, and agreement with a reference");
  options->model.AddTo(*verb);
  verb->add_option(
          "--data", options->data,
          ".npz or .npy file, or a folder of them, with the inputs, and labels: the numbers of "
          "classes, from 0 on")
      ->required();
  verb->add_option("--map", options->map,
                   "model.yaml that says how the samples' element type maps to the model's");
  CLI::Option* reference = verb->add_option("--reference", options->reference,
                                            "ONNX file of the original model, to compare with");
  verb->add_option("--batch", options->batch, "Samples per run")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_flag("--layers", options->layers, "Compare every layer's result with the reference's")
      ->needs(reference)
      ->excludes(verb->get_option("--precision"));  // A file's layers are compared in its own.
  verb->add_flag("--json", options->json, "Print JSON");
  verb->callback([options, &outcome] {
    if (const absl::Status status = Eval(*options); !status.ok()) outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli
