#include "server/http/experiments.h"

#include <filesystem>
#include <system_error>

#include "engine/tensor/status.h"
#include "server/http/capture_mark.h"
#include "server/http/certificate_json.h"

namespace octet {
namespace {

using Json = nlohmann::ordered_json;

Json Microseconds(const Estimate& seconds) {
  return {{"mean", 1e6 * seconds.value}, {"low", 1e6 * seconds.low}, {"high", 1e6 * seconds.high}};
}

Json DescribeGuard(const GuardReport& guard) {
  return {{"fallen_back", guard.fallen_back},
          {"share", guard.share},
          {"kept_windows", guard.kept_windows},
          {"broken_windows", guard.broken_windows},
          {"undecided_windows", guard.undecided_windows},
          {"refusing_windows", guard.refusing_windows},
          {"last_broken", guard.last_broken}};
}

/// Bounds in microseconds; the last count is that of the bucket without a bound.
Json DescribeHistogram(const HistogramCounts& seconds) {
  Json bounds = Json::array();
  for (const double bound : seconds.bounds) bounds.push_back(1e6 * bound);
  return {{"bounds", std::move(bounds)},
          {"counts", std::span(seconds.counts).first(seconds.bounds.size() + 1)}};
}

/// By reason, as the metric has them.
Json DescribeRefused(const ExperimentArm& arm) {
  Json refused = Json::object();
  for (size_t i = 0; i < arm.refused.size(); ++i) {
    refused[std::string(RefusalLabel::kValues[i])] = arm.refused[i];
  }
  return refused;
}

Json DescribeArm(std::string_view name, const ExperimentArm& arm) {
  return {{"precision", name},
          {"ready", arm.ready},
          {"reason", arm.reason},
          {"weight", arm.weight},
          {"share_percent", 100 * arm.share},
          {"drawn", arm.drawn},
          {"sticky", arm.sticky},
          {"asked", arm.asked},
          {"errors", arm.errors},
          {"refused", DescribeRefused(arm)},
          {"rows", arm.rows},
          {"batches", arm.batches},
          {"waiting", arm.waiting},
          {"int8_mac_ratio", arm.int8_mac_ratio ? Json(*arm.int8_mac_ratio) : Json()},
          {"latency_us",
           {{"count", arm.seconds.count},
            {"mean", 1e6 * arm.seconds.mean()},
            {"p50", 1e6 * arm.p50_seconds},
            {"p99", 1e6 * arm.p99_seconds}}},
          {"histogram_us", DescribeHistogram(arm.latency)},
          {"over_baseline_us",
           arm.seconds_over_baseline ? Microseconds(*arm.seconds_over_baseline) : Json()},
          {"guard", arm.guard ? DescribeGuard(*arm.guard) : Json()}};
}

Json DescribePair(const ExperimentPair& pair) {
  Json agreement;
  if (pair.class_rows > 0) {
    agreement = 100 * static_cast<double>(pair.top1_agreed) / static_cast<double>(pair.class_rows);
  }
  return {{"precision", PrecisionName(pair.precision)},
          {"against", PrecisionName(pair.against)},
          {"compared", pair.compared},
          {"dropped", pair.dropped},
          {"failed", pair.failed},
          {"class_rows", pair.class_rows},
          {"top1_agreed", pair.top1_agreed},
          {"agreement_percent", std::move(agreement)},
          {"mean_sqnr_db", pair.ratios > 0 ? Json(pair.mean_sqnr_db) : Json()}};
}

Json DescribeRamp(const ServedRamp& ramp) {
  const RampState state = ramp.state();
  return {{"ramped", RampedName(ramp.rules())},
          {"share_percent", 100 * ramp.share().load()},
          {"step", state.step},
          {"steps", ramp.rules().steps},
          {"began_ms", state.began_ms},
          {"stopped", state.stopped}};
}

Json DescribeEvents(const TrafficEvents& events) {
  Json list = Json::array();
  for (const TrafficEvent& event : events.Read()) {
    list.push_back({{"time_ms", event.time_ms},
                    {"who", event.who},
                    {"action", event.action},
                    {"reason", event.reason}});
  }
  return list;
}

Json DescribeRatio(const std::optional<SampleRatio>& ratio) {
  if (!ratio) return Json();
  return {{"chi_square", ratio->chi_square}, {"p_value", ratio->p_value}, {"alarm", ratio->alarm}};
}

Json DescribeExperiment(const ModelVersion& version) {
  const ExperimentFacts facts = version.experiment->Read(version);
  Json arms = Json::array();
  for (const ExperimentArm& arm : facts.arms) {
    arms.push_back(DescribeArm(PrecisionName(arm.precision), arm));
  }
  Json pairs = Json::array();
  for (const ExperimentPair& pair : facts.pairs) pairs.push_back(DescribePair(pair));
  return {{"model", version.model},
          {"version", version.version},
          {"started_ms", facts.started_ms},
          {"baseline", facts.baseline ? Json(PrecisionName(*facts.baseline)) : Json()},
          {"precisions", std::move(arms)},
          {"pipeline", facts.pipeline ? DescribeArm("pipeline", *facts.pipeline) : Json()},
          {"sample_ratio", DescribeRatio(facts.sample_ratio)},
          {"shadow", std::move(pairs)},
          {"ramp", version.ramp ? DescribeRamp(*version.ramp) : Json()},
          {"events", version.events ? DescribeEvents(*version.events) : Json::array()}};
}

Json DescribeVersions(const VersionExperimentFacts& facts) {
  Json versions = Json::array();
  for (const VersionArm& arm : facts.arms) {
    versions.push_back(
        {{"version", std::to_string(arm.number)},
         {"weight", arm.weight},
         {"drawn", arm.drawn},
         {"sticky", arm.sticky},
         {"latency_us", {{"count", arm.seconds.count}, {"mean", 1e6 * arm.seconds.mean()}}},
         {"over_baseline_us",
          arm.seconds_over_baseline ? Microseconds(*arm.seconds_over_baseline) : Json()}});
  }
  return {{"model", facts.model},
          {"started_ms", facts.started_ms},
          {"baseline", std::to_string(facts.baseline)},
          {"versions", std::move(versions)},
          {"sample_ratio", DescribeRatio(facts.sample_ratio)}};
}

/// The rows that are not READY or have something to say; of one model, or of all.
Json DescribeIndex(const ModelRepository& repository, std::string_view model) {
  Json rows = Json::array();
  for (const IndexEntry& entry : repository.Index(false)) {
    if (!model.empty() && entry.model != model) continue;
    if (entry.state == VersionState::kReady && entry.reason.empty()) continue;
    rows.push_back({{"model", entry.model},
                    {"version", entry.version},
                    {"state", VersionStateName(entry.state)},
                    {"reason", entry.reason}});
  }
  return rows;
}

Json DescribeCaptures(const std::string& path) {
  if (path.empty()) return Json();
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (!error) absolute = std::filesystem::weakly_canonical(absolute, error);
  const std::string mark = CaptureMark(path);
  return {{"path", error ? path : absolute.string()}, {"mark", mark.empty() ? Json() : Json(mark)}};
}

}  // namespace

absl::StatusOr<nlohmann::ordered_json> DescribeExperiments(const ModelRepository& repository,
                                                           const ProcessFacts& process,
                                                           std::string_view model) {
  OCTET_ASSIGN_OR_RETURN(const auto versions, repository.List(model, ""));
  Json experiments = Json::array();
  for (const auto& version : versions) {
    experiments.push_back(DescribeExperiment(*version));
  }
  Json splits = Json::array();
  for (const VersionExperimentFacts& facts : repository.VersionExperiments(model)) {
    splits.push_back(DescribeVersions(facts));
  }
  return Json{
      {"experiments", std::move(experiments)},
      {"version_splits", std::move(splits)},
      {"index", DescribeIndex(repository, model)},
      {"server",
       {{"started_ms", process.started_ms}, {"captures", DescribeCaptures(process.capture_path)}}}};
}

absl::StatusOr<nlohmann::ordered_json> DescribeCertificates(const ModelRepository& repository,
                                                            std::string_view model,
                                                            std::string_view version) {
  OCTET_ASSIGN_OR_RETURN(const auto found, repository.Find(model, version));
  Json certificates = Json::array();
  for (const ServedVariant& variant : found->variants) {
    if (!variant.ready()) continue;
    certificates.push_back({{"precision", PrecisionName(variant.precision)},
                            {"layers", LayersAsJson(variant.certificate)}});
  }
  return Json{{"certificates", std::move(certificates)}};
}

}  // namespace octet
