// octet inspect: what runs, layer by layer.
#include <cstdio>
#include <iostream>
#include <memory>
#include <set>
#include <string_view>

#include "cli/json_text.h"
#include "cli/model_options.h"
#include "cli/verb.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/status.h"
#include "server/http/certificate_json.h"

namespace octet::cli {
namespace {

struct InspectOptions {
  ModelOptions model;
  ShapeOptions shapes;
  int64_t batch = 1;
  bool json = false;
  bool dump = false;
  bool passes = false;
};

nlohmann::ordered_json ToJson(const Model& model, const Plan& plan) {
  const Certificate& certificate = plan.certificate();
  return {{"precision", PrecisionName(model.precision())},
          {"isa", certificate.isa},
          {"mac_share", certificate.MacShare()},
          {"macs", certificate.total_macs()},
          {"weights_bytes", model.resident_weight_bytes()},
          {"arena_bytes", plan.memory().arena_bytes},
          {"live_peak_bytes", plan.memory().live_peak_bytes},
          {"layers", LayersAsJson(certificate)}};
}

void PrintTable(const Model& model, const Plan& plan) {
  const Certificate& certificate = plan.certificate();
  std::cout << Format(
      "precision {}, ISA {}, {:.1f} M multiply-adds, weights {:.2f} MB, arena {:.2f} MB\n",
      PrecisionName(model.precision()), certificate.isa,
      static_cast<double>(certificate.total_macs()) / 1e6,
      static_cast<double>(model.resident_weight_bytes()) / 1e6,
      static_cast<double>(plan.memory().arena_bytes) / 1e6);
  for (const auto& [type, share] : certificate.MacShare()) {
    std::cout << Format("  {:<5} {:6.2f} % of multiply-adds\n", type, 100 * share);
  }
  std::cout << Format("\n{:<36} {:<18} {:<12} {:<5} {:>12}  {:<34} {}\n", "layer", "operator",
                      "requested", "runs", "macs", "implementation", "reason");
  for (const LayerRecord& layer : certificate.layers) {
    std::cout << Format("{:<36.36} {:<18.18} {:<12} {:<5} {:>12}  {:<34} {}\n", layer.name,
                        layer.op, layer.requested, layer.runs, layer.macs, layer.impl,
                        layer.reason);
  }
}

void PrintPasses(const Model& model) {
  std::set<std::string_view> told;
  for (const Pass& pass : AllPasses()) {
    if (!told.insert(pass.name).second) continue;  // It runs more than once: the line says all.
    int rewrites = 0;
    double microseconds = 0;
    for (const PassTrace& trace : model.pass_trace()) {
      if (trace.name != pass.name) continue;
      rewrites += trace.rewrites;
      microseconds += std::chrono::duration<double, std::micro>(trace.time).count();
    }
    std::cout << Format("{:<24} {:>5} rewrites {:>9.0f} us  {}\n", pass.name, rewrites,
                        microseconds, pass.summary);
  }
}

absl::Status Inspect(const InspectOptions& options) {
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model, options.model.Load());
  if (options.passes) {
    PrintPasses(*model);
    return absl::OkStatus();
  }
  if (options.dump) {
    std::cout << model->DumpGraph();
    return absl::OkStatus();
  }
  OCTET_ASSIGN_OR_RETURN(const std::vector<Shape> shapes,
                         options.shapes.ForBatch(model->signature(), options.batch));
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, model->PlanFor(shapes));
  if (options.json) {
    std::cout << JsonText(ToJson(*model, *plan)) << '\n';
  } else {
    PrintTable(*model, *plan);
  }
  return absl::OkStatus();
}

}  // namespace

void AddInspect(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* verb = app.add_subcommand("inspect", "Show what runs, layer by layer: the certificate");
  options->model.AddTo(*verb);
  verb->add_option("--batch", options->batch, "Batch to compile for")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  CLI::Option* shape = options->shapes.AddTo(*verb);
  CLI::Option* json = verb->add_flag("--json", options->json, "Print JSON");
  CLI::Option* dump = verb->add_flag("--dump", options->dump, "Print the optimised graph instead")
                          ->excludes(shape)
                          ->excludes(json);
  verb->add_flag("--passes", options->passes,
                 "Print every pass, in order, and what it did, instead")
      ->excludes(shape)
      ->excludes(json)
      ->excludes(dump);
  verb->callback([options, &outcome] {
    if (const absl::Status status = Inspect(*options); !status.ok())
      outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli
