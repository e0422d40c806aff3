#include "cli/top_screen.h"

#include <set>

#include "cli/experiment_text.h"

#include "engine/tensor/format.h"
#include "server/routing/guard.h"

namespace octet::cli {
namespace {

/// Of a model: more would not leave room for the others.
constexpr size_t kMostEvents = 5;

/// "  certificate int8: 24 layers, multiply-adds: int8 99.2 %, f32 0.8 %".
std::string CertificateLine(const nlohmann::json& certificate) {
  std::map<std::string, double> macs;
  double total = 0;
  for (const nlohmann::json& layer : certificate.at("layers")) {
    const auto of_layer = layer.at("macs").get<double>();
    if (of_layer > 0) macs[layer.at("runs").get<std::string>()] += of_layer;
    total += of_layer;
  }
  std::string shares;
  for (const auto& [runs, count] : macs) {
    shares += Format("{} {} {:.1f} %", shares.empty() ? ", multiply-adds:" : ",", runs,
                     100 * count / total);
  }
  return Format("  certificate {}: {} layers{}\n", certificate.at("precision").get<std::string>(),
                certificate.at("layers").size(), shares);
}

}  // namespace

std::string TopScreen::RowText(const nlohmann::json& arm, int64_t started_ms, double passed,
                               Row& row) const {
  const auto bounds = arm.at("histogram_us").at("bounds").get<std::vector<double>>();
  const auto counts = arm.at("histogram_us").at("counts").get<std::vector<uint64_t>>();
  const uint64_t refused = RefusedOf(arm);
  const bool first = row.counts.empty();
  // With another routing, and after a restart, the server counts from the beginning.
  if (row.started_ms != started_ms || row.counts.size() != counts.size()) {
    row = {.counts = std::vector<uint64_t>(counts.size())};
  }
  std::vector<uint64_t> since = counts;
  uint64_t requests = 0;
  for (size_t i = 0; i < since.size(); ++i) requests += since[i] -= row.counts[i];
  const auto rate = [&](uint64_t count) {
    return first || passed <= 0 ? 0 : static_cast<double>(count) / passed;
  };
  const auto batches = arm.at("batches").get<double>();
  const nlohmann::json& int8 = arm.at("int8_mac_ratio");
  std::string text = Format(
      "  {:<13} {:>8} {:>7.1f} {:>10.1f} {:>9.0f} {:>9.0f} {:>6.1f} {:>7.0f} {:>9.1f} {:>6} "
      "{:>6}  {:<24} {}",
      arm.at("precision").get<std::string>(), arm.at("weight").get<double>(),
      arm.at("share_percent").get<double>(), rate(requests), Quantile(0.5, bounds, since),
      Quantile(0.99, bounds, since), batches > 0 ? arm.at("rows").get<double>() / batches : 0,
      arm.at("waiting").get<double>(), rate(refused - row.refused),
      arm.at("errors").get<uint64_t>(),
      int8.is_null() ? "-" : Format("{:.1f}", 100 * int8.get<double>()),
      DifferenceText(arm.at("over_baseline_us")), StateText(arm));
  row = {.counts = counts, .refused = refused, .started_ms = started_ms};
  text.resize(text.find_last_not_of(' ') + 1);
  return text + '\n';
}

const std::string& TopScreen::CertificateLines(const nlohmann::json& experiment,
                                               const std::string& name) {
  Certified& certified = certified_[name];
  const auto started_ms = experiment.at("started_ms").get<int64_t>();
  if (certified.started_ms == started_ms || !experiment.at("pipeline").is_null()) {
    return certified.lines;
  }
  const nlohmann::json answer = certificates_(experiment.at("model").get<std::string>(),
                                              experiment.at("version").get<std::string>());
  certified.lines.clear();
  if (answer.is_null()) return certified.lines;
  for (const nlohmann::json& certificate : answer.at("certificates")) {
    if (!certificate.at("layers").empty()) certified.lines += CertificateLine(certificate);
  }
  certified.started_ms = started_ms;
  return certified.lines;
}

std::string TopScreen::Draw(const nlohmann::json& answer, double passed) {
  std::string text;
  std::set<std::string> models;
  for (const nlohmann::json& experiment : answer.at("experiments")) {
    const std::string model = experiment.at("model").get<std::string>();
    const std::string name =
        Format("{} version {}", model, experiment.at("version").get<std::string>());
    text += Format(
        "{}\n  {:<13} {:>8} {:>7} {:>10} {:>9} {:>9} {:>6} {:>7} {:>9} {:>6} {:>6}  {:<24} {}\n",
        name, "precision", "weight", "share %", "requests/s", "p50 us", "p99 us", "batch",
        "waiting", "refused/s", "errors", "int8 %", "mean over baseline, us", "state");
    for (const nlohmann::json* arm : ArmsOf(experiment)) {
      text += RowText(*arm, experiment.at("started_ms").get<int64_t>(), passed,
                      rows_[name + "/" + arm->at("precision").get<std::string>()]);
    }
    text += CertificateLines(experiment, name) + ExperimentLines(experiment);
    // They are the model's: once.
    if (models.insert(model).second) text += EventLines(experiment, kMostEvents);
  }
  text += VersionSplitLines(answer) + IndexLines(answer);
  return text.empty() ? "no model answers\n" : text;
}

}  // namespace octet::cli
