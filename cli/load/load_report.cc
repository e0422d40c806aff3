#include "cli/load/load_report.h"

#include <algorithm>
#include <utility>

#include "cli/load/percentile_plot.h"

#include "engine/tensor/format.h"

namespace octet::cli {
namespace {

using Json = nlohmann::ordered_json;

/// Later than this, one request in a hundred, a client measures itself.
constexpr double kLateUs = 1000;

Json PercentilesOf(const Latencies& latencies) {
  return {
      {"p50_us", latencies.MicrosecondsAt(50)},       {"p90_us", latencies.MicrosecondsAt(90)},
      {"p99_us", latencies.MicrosecondsAt(99)},       {"p99.9_us", latencies.MicrosecondsAt(99.9)},
      {"p99.99_us", latencies.MicrosecondsAt(99.99)}, {"max_us", latencies.MicrosecondsAt(100)}};
}

/// A stream's answers by one precision.
struct Series {
  const LoadTarget& target;
  const std::string& precision;
  const Latencies& latencies;

  std::string name() const {
    return precision.empty() ? target.model : Format("{} {}", target.model, precision);
  }
};

std::vector<Series> SeriesOf(const LoadTally& tally, const std::vector<LoadStream>& streams) {
  std::vector<Series> all;
  for (size_t i = 0; i < streams.size(); ++i)
    for (const auto& [precision, latencies] : tally.answered[i])
      all.push_back({streams[i].target, precision, latencies});
  return all;
}

std::string LoadName(const LoadSettings& settings) {
  if (!settings.plan) return Format("{} at once", settings.in_flight);
  const RatePlan& plan = *settings.plan;
  return plan.from == plan.to ? Format("{:g}/s", plan.from)
                              : Format("{:g} to {:g}/s", plan.from, plan.to);
}

double PerSecond(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

std::string Row(const std::string& name, double rate, const Latencies& latencies,
                const std::string& errors) {
  return Format("{:<24} {:>11.1f} {:>10.0f} {:>10.0f} {:>10.0f} {:>10.0f} {:>8}\n", name, rate,
                latencies.MicrosecondsAt(50), latencies.MicrosecondsAt(90),
                latencies.MicrosecondsAt(99), latencies.MicrosecondsAt(99.9), errors);
}

}  // namespace

std::vector<std::string> WarningsOf(const LoadRun& run) {
  std::vector<std::string> warnings;
  const LoadTally& tally = run.tally;
  if (tally.held_back > 0) {
    warnings.push_back(
        Format("{} of {} requests were held back while {} were under way (--max-in-flight); their "
               "latencies count the wait",
               tally.held_back, tally.late.count(), run.settings.in_flight));
  } else if (const double late = tally.late.MicrosecondsAt(99); late > kLateUs) {
    warnings.push_back(
        Format("the client did not keep up: it sent one request in a hundred more than {:.1f} ms "
               "late, which the latencies count; ask for less, or give it a machine of its own",
               late / 1e3));
  }
  return warnings;
}

nlohmann::ordered_json LoadAsJson(const LoadRun& run, const std::vector<LoadStream>& streams) {
  const LoadSettings& settings = run.settings;
  const LoadTally& tally = run.tally;
  const Latencies all = tally.All();
  const int64_t finished = all.count() + tally.errors.total();
  Json json = {{settings.plan ? "max_in_flight" : "concurrency", settings.in_flight},
               {"connections", settings.connections},
               {"seed", settings.seed},
               {"seconds", tally.seconds},
               {"requests", finished},
               {"throughput", PerSecond(all.count(), tally.seconds)}};
  if (settings.plan) {
    const RatePlan& plan = *settings.plan;
    json["asked"] = {{"from", plan.from}, {"to", plan.to}, {"seconds", plan.seconds}};
    json["asked"]["arrivals"] = settings.arrivals == ArrivalKind::kPoisson ? "poisson" : "constant";
    json["asked_rate"] = PerSecond(tally.late.count(), plan.seconds);
    json["achieved_rate"] = PerSecond(finished, tally.seconds);
    json["late"] = PercentilesOf(tally.late);
    json["held_back"] = tally.held_back;
  }
  json.update(PercentilesOf(all));
  json["errors"] = tally.errors.total();
  json["errors_by_code"] = tally.errors.rows();
  const auto [least, most] = std::ranges::minmax(tally.by_connection);
  json["requests_per_connection"] = {{"min", least}, {"max", most}};
  json["client_cpu_us_per_request"] =
      finished > 0 ? 1e6 * tally.cpu_seconds / static_cast<double>(finished) : 0;
  json["series"] = Json::array();
  for (const Series& series : SeriesOf(tally, streams)) {
    Json row = {{"model", series.target.model},
                {"asked_precision", series.target.precision},
                {"precision", series.precision},
                {"count", series.latencies.count()}};
    row.update(PercentilesOf(series.latencies));
    json["series"].push_back(std::move(row));
  }
  json["warnings"] = WarningsOf(run);
  return json;
}

std::string LoadAsTable(const std::vector<LoadRun>& runs, const std::vector<LoadStream>& streams) {
  std::string text = Format("{:<24} {:>11} {:>10} {:>10} {:>10} {:>10} {:>8}\n", "load",
                            "answers/s", "p50 us", "p90 us", "p99 us", "p99.9 us", "errors");
  for (const LoadRun& run : runs) {
    const LoadTally& tally = run.tally;
    const Latencies all = tally.All();
    text += Row(LoadName(run.settings), PerSecond(all.count(), tally.seconds), all,
                Format("{}", tally.errors.total()));
    const std::vector<Series> series = SeriesOf(tally, streams);
    for (const Series& one : series) {
      if (series.size() == 1) break;
      text += Row("  " + one.name(), PerSecond(one.latencies.count(), tally.seconds), one.latencies,
                  "");
    }
    for (const auto& [error, count] : tally.errors.rows())
      text += Format("  {} x {}\n", count, error);
    for (const std::string& warning : WarningsOf(run)) text += Format("  warning: {}\n", warning);
  }
  return text;
}

std::string LoadAsPlot(const std::vector<LoadRun>& runs, const std::vector<LoadStream>& streams) {
  std::vector<PlotLine> lines;
  for (const LoadRun& run : runs) {
    for (const Series& series : SeriesOf(run.tally, streams)) {
      const std::string name = series.name();
      lines.push_back({runs.size() == 1 ? name : Format("{}, {}", name, LoadName(run.settings)),
                       series.latencies});
    }
  }
  const std::string load = runs.size() == 1 ? ", " + LoadName(runs[0].settings) : "";
  return PercentilePlot("Latency by percentile" + load, lines);
}

}  // namespace octet::cli
