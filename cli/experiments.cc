// octet experiments: how the precisions of a running server's models differ under their traffic.
#include <iostream>
#include <memory>
#include <string>

#include "cli/experiment_text.h"
#include "cli/model_options.h"
#include "cli/server_client.h"
#include "cli/verb.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

struct ExperimentsOptions {
  std::string server;
  std::string model;
  bool json = false;
};

std::string ExperimentTable(const nlohmann::json& experiment) {
  const nlohmann::json& baseline = experiment.at("baseline");
  std::string text =
      Format("{} version {}, baseline {}\n", experiment.at("model").get<std::string>(),
             experiment.at("version").get<std::string>(),
             baseline.is_null() ? "none" : baseline.get<std::string>());
  text += Format("  {:<13} {:>8} {:>7} {:>10} {:>8} {:>7} {:>9} {:>9}  {:<24} {}\n", "precision",
                 "weight", "share %", "requests", "refused", "errors", "p50 us", "p99 us",
                 "mean over baseline, us", "state");
  for (const nlohmann::json* arm : ArmsOf(experiment)) {
    const nlohmann::json& latency = arm->at("latency_us");
    text += Format("  {:<13} {:>8} {:>7.1f} {:>10} {:>8} {:>7} {:>9.0f} {:>9.0f}  {:<24} {}\n",
                   arm->at("precision").get<std::string>(), arm->at("weight").get<double>(),
                   arm->at("share_percent").get<double>(), latency.at("count").get<uint64_t>(),
                   RefusedOf(*arm), arm->at("errors").get<uint64_t>(),
                   latency.at("p50").get<double>(), latency.at("p99").get<double>(),
                   DifferenceText(arm->at("over_baseline_us")), StateText(*arm));
  }
  return text + ExperimentLines(experiment);
}

absl::Status Experiments(const ExperimentsOptions& options) {
  OCTET_ASSIGN_OR_RETURN(const ServerClient server, ServerClient::For(options.server));
  const std::string path = options.model.empty()
                               ? "/v2/experiments"
                               : "/v2/models/" + UrlSegment(options.model) + "/experiments";
  OCTET_ASSIGN_OR_RETURN(const nlohmann::json answer, server.Get(path));
  OCTET_ASSIGN_OR_RETURN(const std::string text, ShowAnswer(path, [&] {
                           std::string tables;
                           for (const nlohmann::json& experiment : answer.at("experiments"))
                             tables += ExperimentTable(experiment);
                           return tables + VersionSplitLines(answer) + IndexLines(answer);
                         }));
  std::cout << (options.json ? answer.dump(2) + '\n' : text);
  return absl::OkStatus();
}

}  // namespace

void AddExperiments(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<ExperimentsOptions>();
  CLI::App* verb = app.add_subcommand(
      "experiments", "Show how a running server's precisions differ: latency, guards, shadow");
  verb->add_option("MODEL", options->model, "Model; default every one");
  verb->add_option("--server", options->server, "host:port of the HTTP endpoint")->required();
  verb->add_flag("--json", options->json, "Print JSON");
  verb->callback([options, &outcome] {
    if (const absl::Status status = Experiments(*options); !status.ok()) {
      outcome.exit_code = Fail(status);
    }
  });
}

}  // namespace octet::cli
