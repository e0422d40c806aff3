// octet top: what a running server does, once a second.
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cli/model_options.h"
#include "cli/server_client.h"
#include "cli/verb.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/status.h"
#include "server/routing/guard.h"

namespace octet::cli {
namespace {

struct TopOptions {
  std::string server;
  double seconds = 1;
  int64_t count = 0;
};

/// A precision's row since the look before.
class Row {
 public:
  /// `passed`: seconds since the last call; nothing is said at the first one.
  void Update(const nlohmann::json& arm, int64_t started_ms, double passed) {
    const auto bounds = arm["histogram_us"]["bounds"].get<std::vector<double>>();
    const auto counts = arm["histogram_us"]["counts"].get<std::vector<uint64_t>>();
    const bool goes_on = counts_.size() == counts.size() && started_ms_ == started_ms;
    std::vector<uint64_t> since = counts;
    // With another routing the server counts from the beginning.
    for (size_t i = 0; goes_on && i < since.size(); ++i) since[i] -= counts_[i];
    uint64_t requests = 0;
    for (const uint64_t count : since) requests += count;
    rate_ = counts_.empty() ? 0 : static_cast<double>(requests) / passed;
    p50_us_ = Quantile(0.5, bounds, since);
    p99_us_ = Quantile(0.99, bounds, since);
    counts_ = counts;
    started_ms_ = started_ms;
  }
  std::string Text(const nlohmann::json& arm) const {
    const nlohmann::json& guard = arm["guard"];
    const auto batches = arm["batches"].get<double>();
    return Format(
        "  {:<13} {:>8} {:>10.1f} {:>10.0f} {:>10.0f} {:>8.1f} {:>8.0f} {:>8} {:>6.1f}  {}\n",
        arm["precision"].get<std::string>(), arm["weight"].get<double>(), rate_, p50_us_, p99_us_,
        batches > 0 ? arm["rows"].get<double>() / batches : 0, arm["waiting"].get<double>(),
        arm["errors"].get<uint64_t>(), 100 * arm["int8_mac_ratio"].get<double>(),
        !arm["ready"].get<bool>()          ? "not ready"
        : guard.is_null()                  ? ""
        : guard["fallen_back"].get<bool>() ? "fell back: " + guard["last_broken"].get<std::string>()
                                           : "guarded");
  }

 private:
  std::vector<uint64_t> counts_;
  int64_t started_ms_ = 0;
  double rate_ = 0;
  double p50_us_ = 0;
  double p99_us_ = 0;
};

class Screen {
 public:
  std::string Draw(const nlohmann::json& experiments, double passed) {
    std::string text;
    for (const nlohmann::json& experiment : experiments) {
      const std::string name = Format("{} version {}", experiment["model"].get<std::string>(),
                                      experiment["version"].get<std::string>());
      text += Format("{}\n  {:<13} {:>8} {:>10} {:>10} {:>10} {:>8} {:>8} {:>8} {:>6}\n", name,
                     "precision", "weight", "requests/s", "p50 us", "p99 us", "batch", "waiting",
                     "errors", "int8 %");
      for (const nlohmann::json& arm : experiment["precisions"]) {
        Row& row = rows_[name + "/" + arm["precision"].get<std::string>()];
        row.Update(arm, experiment["started_ms"].get<int64_t>(), passed);
        text += row.Text(arm);
      }
      for (const nlohmann::json& pair : experiment["shadow"]) {
        const nlohmann::json& agreement = pair["agreement_percent"];
        text += Format("  shadow {} against {}: {} compared, agreement {}\n",
                       pair["precision"].get<std::string>(), pair["against"].get<std::string>(),
                       pair["compared"].get<uint64_t>(),
                       agreement.is_null() ? "-" : Format("{:.2f} %", agreement.get<double>()));
      }
    }
    return text.empty() ? "no model answers\n" : text;
  }

 private:
  std::map<std::string, Row> rows_;
};

absl::Status Top(const TopOptions& options) {
  OCTET_ASSIGN_OR_RETURN(const ServerClient server, ServerClient::For(options.server));
  const auto interval = std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(options.seconds));
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  Screen screen;
  auto before = std::chrono::steady_clock::now();
  for (int64_t look = 0; options.count == 0 || look < options.count; ++look) {
    const auto now = std::chrono::steady_clock::now();
    OCTET_ASSIGN_OR_RETURN(const nlohmann::json answer, server.Get("/v2/experiments"));
    const std::string text =
        screen.Draw(answer.at("experiments"), std::chrono::duration<double>(now - before).count());
    // Home, and clear: what was longer before would stay.
    std::cout << (terminal ? "\x1b[H\x1b[2J" : "") << text << std::flush;
    if (!std::cout) break;  // whoever read it has gone
    before = now;
    if (look + 1 != options.count) std::this_thread::sleep_until(now + interval);
  }
  return absl::OkStatus();
}

}  // namespace

void AddTop(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<TopOptions>();
  CLI::App* verb =
      app.add_subcommand("top", "Watch a running server: rates, latency and guards by precision");
  verb->add_option("--server", options->server, "host:port of the HTTP endpoint")->required();
  verb->add_option("--seconds", options->seconds, "Between two looks")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  verb->add_option("--count", options->count, "Looks; 0 = until Ctrl-C")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->callback([options, &outcome] {
    if (const absl::Status status = Top(*options); !status.ok()) outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli
