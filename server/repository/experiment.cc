#include "server/repository/experiment.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "server/repository/model_version.h"
#include "server/repository/pipeline.h"
#include "server/repository/version_builder.h"
#include "server/routing/guard.h"

namespace octet {
namespace {

const Model* ModelOf(const ServedVariant& variant) {
  return variant.queue == nullptr ? nullptr : variant.queue->target().model.get();
}

double SecondsAt(double q, const HistogramCounts& counts) {
  return Quantile(q, counts.bounds, std::span(counts.counts).first(counts.bounds.size() + 1));
}

uint64_t Routed(const VariantMetrics& metrics, RouteReason reason) {
  return metrics.routed.value(static_cast<size_t>(reason));
}

}  // namespace

Experiment::ArmSums Experiment::SumsOf(const VariantMetrics& metrics) {
  ArmSums sums;
  sums.drawn = Routed(metrics, RouteReason::kSplit);
  sums.sticky = Routed(metrics, RouteReason::kSticky);
  sums.asked = Routed(metrics, RouteReason::kExplicit) + Routed(metrics, RouteReason::kDefault);
  sums.errors = ServerErrors(metrics);
  for (size_t i = 0; i < sums.refused.size(); ++i) sums.refused[i] = metrics.refused.value(i);
  sums.rows = metrics.rows.value();
  sums.batches = metrics.executions.value();
  for (const GuardAction action :
       {GuardAction::kFallBack, GuardAction::kShift, GuardAction::kRecover}) {
    sums.moves += metrics.guard_actions.value(static_cast<size_t>(action));
  }
  sums.seconds = metrics.request_duration.Read();
  return sums;
}

Experiment::PairSums Experiment::SumsOf(const ShadowMetrics& metrics) {
  PairSums sums;
  sums.counts.compared = metrics.compared.value();
  for (size_t i = 0; i < ShadowDropLabel::kValues.size(); ++i) {
    sums.counts.dropped += metrics.dropped.value(i);
  }
  sums.counts.failed = metrics.failed.value();
  sums.counts.top1_agreed = metrics.top1_agreed.value();
  sums.counts.class_rows = metrics.class_rows.value();
  const HistogramCounts ratios = metrics.sqnr.Read();
  sums.counts.ratios = ratios.total();
  sums.sqnr_sum_db = ratios.sum;
  return sums;
}

Experiment::Experiment(const ModelVersion& version) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  started_ms_ = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  if (version.pipeline != nullptr) arms_.push_back(SumsOf(*version.pipeline->metrics));
  for (const ServedVariant& variant : version.variants) arms_.push_back(SumsOf(*variant.metrics));
  if (version.shadow == nullptr) return;
  for (const auto& [against, metrics] : version.shadow->pairs) pairs_[against] = SumsOf(*metrics);
}

ExperimentArm Experiment::ReadArm(const VariantMetrics& metrics, const ArmSums& before) {
  const ArmSums now = SumsOf(metrics);
  const HistogramCounts seconds = Between(before.seconds, now.seconds);
  ExperimentArm arm;
  arm.drawn = now.drawn - before.drawn;
  arm.sticky = now.sticky - before.sticky;
  arm.asked = now.asked - before.asked;
  arm.errors = now.errors - before.errors;
  for (size_t i = 0; i < arm.refused.size(); ++i) {
    arm.refused[i] = now.refused[i] - before.refused[i];
  }
  arm.rows = now.rows - before.rows;
  arm.batches = now.batches - before.batches;
  arm.waiting = metrics.queue_depth.value();
  const double int8 = metrics.int8_mac_ratio.value();
  if (!std::isnan(int8)) arm.int8_mac_ratio = int8;
  arm.latency = seconds;
  arm.seconds = {seconds.total(), seconds.sum, seconds.sum_of_squares};
  arm.p50_seconds = SecondsAt(0.5, seconds);
  arm.p99_seconds = SecondsAt(0.99, seconds);
  return arm;
}

ExperimentArm Experiment::ReadVariant(const ModelVersion& version, size_t i) const {
  const ServedVariant& variant = version.variants[i];
  ExperimentArm arm = ReadArm(*variant.metrics, arms_[i]);
  arm.precision = variant.precision;
  arm.ready = variant.ready();
  arm.reason = ReasonOf(version, variant);
  const auto weight = version.routing.split.find(variant.precision);
  arm.weight = weight == version.routing.split.end() ? 0 : weight->second;
  if (variant.guard != nullptr) arm.guard = variant.guard->report();
  return arm;
}

ExperimentFacts Experiment::Read(const ModelVersion& version) const {
  ExperimentFacts facts;
  facts.started_ms = started_ms_;
  if (version.pipeline != nullptr) {
    facts.pipeline = ReadArm(*version.pipeline->metrics, arms_[0]);
    facts.pipeline->ready = true;
    facts.pipeline->share = 1;
    return facts;
  }
  facts.baseline = DefaultPrecision(version.routes);
  // Its candidates are the variants, in the same order.
  const std::vector<double> shares = SharesOf(version.routes);
  std::vector<uint64_t> drawn;
  std::vector<double> weights;
  bool moved = false;
  for (size_t i = 0; i < arms_.size(); ++i) {
    ExperimentArm& arm = facts.arms.emplace_back(ReadVariant(version, i));
    arm.share = shares[i];
    drawn.push_back(arm.drawn);
    weights.push_back(arm.ready ? arm.weight : 0);
    moved |= SumsOf(*version.variants[i].metrics).moves != arms_[i].moves;
  }
  if (!moved && version.ramp == nullptr) facts.sample_ratio = TestSampleRatio(drawn, weights);
  for (ExperimentArm& arm : facts.arms) {
    if (!facts.baseline || arm.precision == *facts.baseline) continue;
    const auto baseline = std::ranges::find(facts.arms, *facts.baseline, &ExperimentArm::precision);
    arm.seconds_over_baseline = MeanDifference(arm.seconds, baseline->seconds);
  }
  for (const auto& [against, before] : pairs_) {
    PairSums now = SumsOf(*version.shadow->pairs.at(against));
    ExperimentPair& pair = facts.pairs.emplace_back(now.counts);
    pair.precision = version.routing.shadow->precision;
    pair.against = against;
    pair.compared -= before.counts.compared;
    pair.dropped -= before.counts.dropped;
    pair.failed -= before.counts.failed;
    pair.class_rows -= before.counts.class_rows;
    pair.top1_agreed -= before.counts.top1_agreed;
    pair.ratios -= before.counts.ratios;
    if (pair.ratios > 0) {
      pair.mean_sqnr_db = (now.sqnr_sum_db - before.sqnr_sum_db) / static_cast<double>(pair.ratios);
    }
  }
  return facts;
}

bool IsSameExperiment(const ModelVersion& before, const ModelVersion& next) {
  const auto same = [](const ServedVariant& a, const ServedVariant& b) {
    return a.precision == b.precision && ModelOf(a) == ModelOf(b);
  };
  return before.routing == next.routing && std::ranges::equal(before.variants, next.variants, same);
}

}  // namespace octet
