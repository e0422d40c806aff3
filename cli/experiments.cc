// octet experiments: how the precisions of a running server's models differ under their traffic.
#include <iostream>
#include <memory>
#include <string>

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

/// "-300 (-310 .. -289)".
std::string Difference(const nlohmann::json& over) {
  if (over.is_null()) return "-";
  return Format("{:+.0f} ({:+.0f} .. {:+.0f})", over["mean"].get<double>(),
                over["low"].get<double>(), over["high"].get<double>());
}

std::string GuardState(const nlohmann::json& guard) {
  if (guard.is_null()) return "-";
  if (guard["fallen_back"].get<bool>()) {
    return Format("fell back: {}", guard["last_broken"].get<std::string>());
  }
  return Format("{} kept, {} broken", guard["kept_windows"].get<int64_t>(),
                guard["broken_windows"].get<int64_t>());
}

/// "99.40 %", or "-" of nothing.
std::string Number(const nlohmann::json& value, std::string_view unit) {
  return value.is_null() ? "-" : Format("{:.2f} {}", value.get<double>(), unit);
}

void Print(const nlohmann::json& experiment) {
  const nlohmann::json& baseline = experiment["baseline"];
  std::cout << Format("{} version {}, baseline {}\n", experiment["model"].get<std::string>(),
                      experiment["version"].get<std::string>(),
                      baseline.is_null() ? "none" : baseline.get<std::string>());
  std::cout << Format("  {:<13} {:>8} {:>10} {:>7} {:>9} {:>9}  {:<24} {}\n", "precision", "weight",
                      "requests", "errors", "p50 us", "p99 us", "mean over baseline, us", "guard");
  for (const nlohmann::json& arm : experiment["precisions"]) {
    const nlohmann::json& latency = arm["latency_us"];
    std::cout << Format("  {:<13} {:>8} {:>10} {:>7} {:>9.0f} {:>9.0f}  {:<24} {}\n",
                        arm["precision"].get<std::string>(), arm["weight"].get<double>(),
                        latency["count"].get<int64_t>(), arm["errors"].get<int64_t>(),
                        latency["p50"].get<double>(), latency["p99"].get<double>(),
                        Difference(arm["over_baseline_us"]), GuardState(arm["guard"]));
  }
  const nlohmann::json& ratio = experiment["sample_ratio"];
  if (!ratio.is_null() && ratio["alarm"].get<bool>()) {
    std::cout << Format(
        "  SAMPLE RATIO MISMATCH (p = {:.2g}): something other than the split decides who gets "
        "what\n",
        ratio["p_value"].get<double>());
  }
  for (const nlohmann::json& pair : experiment["shadow"]) {
    std::cout << Format(
        "  shadow {} against {}: {} compared, {} dropped, {} failed, agreement {}, SQNR {}\n",
        pair["precision"].get<std::string>(), pair["against"].get<std::string>(),
        pair["compared"].get<int64_t>(), pair["dropped"].get<int64_t>(),
        pair["failed"].get<int64_t>(), Number(pair["agreement_percent"], "%"),
        Number(pair["mean_sqnr_db"], "dB"));
  }
}

absl::Status Experiments(const ExperimentsOptions& options) {
  OCTET_ASSIGN_OR_RETURN(const ServerClient server, ServerClient::For(options.server));
  const std::string path = options.model.empty()
                               ? "/v2/experiments"
                               : "/v2/models/" + UrlSegment(options.model) + "/experiments";
  OCTET_ASSIGN_OR_RETURN(const nlohmann::json answer, server.Get(path));
  if (options.json) {
    std::cout << answer.dump(2) << '\n';
    return absl::OkStatus();
  }
  for (const nlohmann::json& experiment : answer.at("experiments")) Print(experiment);
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
