#include "cli/experiment_text.h"

#include <algorithm>
#include <chrono>

#include "engine/tensor/format.h"

namespace octet::cli {
namespace {

std::string Text(const nlohmann::json& object, const char* key) {
  return object.at(key).get<std::string>();
}

/// "99.40 %", or "-" of nothing.
std::string Number(const nlohmann::json& value, std::string_view unit) {
  return value.is_null() ? "-" : Format("{:.2f} {}", value.get<double>(), unit);
}

/// "" without a guard.
std::string GuardText(const nlohmann::json& guard) {
  if (guard.is_null()) return "";
  if (guard.at("fallen_back").get<bool>()) return "fell back: " + Text(guard, "last_broken");
  if (const auto share = guard.at("share").get<double>(); share < 1) {
    return Format("{:.1f} % of its weight: {}", 100 * share, Text(guard, "last_broken"));
  }
  std::string text = Format("{} kept, {} broken", guard.at("kept_windows").get<uint64_t>(),
                            guard.at("broken_windows").get<uint64_t>());
  if (const auto refusing = guard.at("refusing_windows").get<uint64_t>(); refusing > 0) {
    text += Format(", {} refusing", refusing);
  }
  return text;
}

/// A line when something other than the shares decides; else "".
std::string AlarmLine(const nlohmann::json& ratio) {
  if (ratio.is_null() || !ratio.at("alarm").get<bool>()) return "";
  return Format(
      "  SAMPLE RATIO MISMATCH (p = {:.2g}): something other than the split decides who gets "
      "what\n",
      ratio.at("p_value").get<double>());
}

std::string RampLine(const nlohmann::json& ramp) {
  if (ramp.is_null()) return "";
  return Format(
      "  ramp of {}: {:.1f} % of the traffic, {}\n", Text(ramp, "ramped"),
      ramp.at("share_percent").get<double>(),
      ramp.at("stopped").get<bool>()
          ? "stopped"
          : Format("step {} of {}", ramp.at("step").get<size_t>() + 1, ramp.at("steps").size()));
}

}  // namespace

std::vector<const nlohmann::json*> ArmsOf(const nlohmann::json& experiment) {
  const nlohmann::json& pipeline = experiment.at("pipeline");
  if (!pipeline.is_null()) return {&pipeline};
  std::vector<const nlohmann::json*> arms;
  for (const nlohmann::json& arm : experiment.at("precisions")) arms.push_back(&arm);
  return arms;
}

uint64_t RefusedOf(const nlohmann::json& arm) {
  uint64_t refused = 0;
  for (const nlohmann::json& count : arm.at("refused")) refused += count.get<uint64_t>();
  return refused;
}

std::string DifferenceText(const nlohmann::json& over) {
  if (over.is_null()) return "-";
  return Format("{:+.0f} ({:+.0f} .. {:+.0f})", over.at("mean").get<double>(),
                over.at("low").get<double>(), over.at("high").get<double>());
}

std::string StateText(const nlohmann::json& arm) {
  const std::string reason = Text(arm, "reason");
  if (!arm.at("ready").get<bool>()) return "not ready: " + reason;
  const std::string guard = GuardText(arm.at("guard"));
  return guard + (guard.empty() || reason.empty() ? "" : "; ") + reason;
}

std::string ExperimentLines(const nlohmann::json& experiment) {
  std::string lines = AlarmLine(experiment.at("sample_ratio")) + RampLine(experiment.at("ramp"));
  for (const nlohmann::json& pair : experiment.at("shadow")) {
    lines += Format(
        "  shadow {} against {}: {} compared, {} dropped, {} failed, agreement {}, SQNR {}\n",
        Text(pair, "precision"), Text(pair, "against"), pair.at("compared").get<uint64_t>(),
        pair.at("dropped").get<uint64_t>(), pair.at("failed").get<uint64_t>(),
        Number(pair.at("agreement_percent"), "%"), Number(pair.at("mean_sqnr_db"), "dB"));
  }
  return lines;
}

std::string EventLines(const nlohmann::json& experiment, size_t most) {
  const nlohmann::json& events = experiment.at("events");
  std::string lines;
  for (size_t i = events.size() - std::min(events.size(), most); i < events.size(); ++i) {
    const nlohmann::json& event = events[i];
    const std::chrono::sys_time<std::chrono::milliseconds> time(
        std::chrono::milliseconds(event.at("time_ms").get<int64_t>()));
    lines += Format("  {:%FT%TZ} {} {}: {}\n", std::chrono::floor<std::chrono::seconds>(time),
                    Text(event, "who"), Text(event, "action"), Text(event, "reason"));
  }
  return lines;
}

std::string VersionSplitLines(const nlohmann::json& answer) {
  std::string lines;
  for (const nlohmann::json& split : answer.at("version_splits")) {
    lines += Format("{}, shared out between its versions, baseline {}\n", Text(split, "model"),
                    Text(split, "baseline"));
    lines += Format("  {:<13} {:>8} {:>10} {:>10} {:>10} {:>9}  {}\n", "version", "weight", "drawn",
                    "sticky", "requests", "mean us", "mean over baseline, us");
    for (const nlohmann::json& version : split.at("versions")) {
      const nlohmann::json& latency = version.at("latency_us");
      const auto count = latency.at("count").get<uint64_t>();
      lines += Format("  {:<13} {:>8} {:>10} {:>10} {:>10} {:>9}  {}\n", Text(version, "version"),
                      version.at("weight").get<double>(), version.at("drawn").get<uint64_t>(),
                      version.at("sticky").get<uint64_t>(), count,
                      count > 0 ? Format("{:.0f}", latency.at("mean").get<double>()) : "-",
                      DifferenceText(version.at("over_baseline_us")));
    }
    lines += AlarmLine(split.at("sample_ratio"));
  }
  return lines;
}

std::string IndexLines(const nlohmann::json& answer) {
  std::string lines;
  for (const nlohmann::json& row : answer.at("index")) {
    const std::string version = Text(row, "version");
    lines +=
        Format("{}{} {}{}\n", Text(row, "model"), version.empty() ? "" : " version " + version,
               Text(row, "state"), Text(row, "reason").empty() ? "" : ": " + Text(row, "reason"));
  }
  return lines;
}

}  // namespace octet::cli
