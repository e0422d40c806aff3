// octet eval: accuracy on labelled samples, agreement with a reference model.
#include <iostream>
#include <memory>

#include "cli/evaluation.h"
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
  bool json = false;
};

absl::Status Eval(const EvalOptions& options) {
  OCTET_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model, options.model.Load());
  OCTET_ASSIGN_OR_RETURN(const Samples samples,
                         Samples::Load(model->signature(), options.data, options.map));
  std::optional<Session> reference;
  if (!options.reference.empty()) {
    LoadOptions load;
    load.threads = options.model.threads;
    OCTET_ASSIGN_OR_RETURN(std::shared_ptr<const Model> loaded,
                           Model::Load(options.reference, load));
    reference.emplace(std::move(loaded));
  }
  const bool has_labels = samples.has_labels();
  const bool has_reference = reference.has_value();
  Session session(std::move(model));
  OCTET_ASSIGN_OR_RETURN(const Tally tally, Evaluate(session, reference ? &*reference : nullptr,
                                                     samples, options.batch));
  const nlohmann::ordered_json json = ToJson(tally, has_labels, has_reference);
  if (options.json) {
    std::cout << json.dump(2) << '\n';
    return absl::OkStatus();
  }
  for (const auto& [name, value] : json.items()) {
    const bool equal = name == "sqnr_db" && has_reference && tally.noise.non_finite == 0;
    std::cout << Format("{:<17} {}\n", name,
                        !value.is_null() ? value.dump()
                        : equal          ? "equal outputs"
                                         : "not measured");
  }
  return absl::OkStatus();
}

}  // namespace

void AddEval(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* verb = app.add_subcommand(
      "eval", "Measure accuracy on labelled samples, and agreement with a reference");
  options->model.AddTo(*verb);
  verb->add_option("--data", options->data, ".npz with the inputs, and labels")->required();
  verb->add_option("--map", options->map,
                   "model.yaml that says how the samples' element type maps to the model's");
  verb->add_option("--reference", options->reference, "fp32 ONNX file to compare with");
  verb->add_option("--batch", options->batch, "Samples per run")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_flag("--json", options->json, "Print JSON");
  verb->callback([options, &outcome] {
    if (const absl::Status status = Eval(*options); !status.ok()) outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli
