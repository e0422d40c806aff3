#include "server/repository/version_experiment.h"

#include <algorithm>
#include <chrono>

namespace octet {
namespace {

Moments MomentsOf(const VariantMetrics& metrics) {
  const HistogramCounts seconds = metrics.request_duration.Read();
  return {seconds.total(), seconds.sum, seconds.sum_of_squares};
}

}  // namespace

VersionExperiment::VersionExperiment(std::span<const VersionShare> shares,
                                     std::span<const std::shared_ptr<const ModelVersion>> versions)
    : arms_(shares.size()) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  started_ms_ = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  if (!versions.empty()) model_ = versions[0]->model;
  for (size_t i = 0; i < shares.size(); ++i) {
    Arm& arm = arms_[i];
    arm.share = shares[i];
    arm.experiment = versions[i]->experiment;
    for (const ServedVariant& variant : versions[i]->variants) {
      arm.variants.push_back({variant.metrics, MomentsOf(*variant.metrics)});
    }
  }
}

bool VersionExperiment::GoesOnWith(
    std::span<const VersionShare> shares,
    std::span<const std::shared_ptr<const ModelVersion>> versions) const {
  if (shares.size() != arms_.size()) return false;
  for (size_t i = 0; i < shares.size(); ++i) {
    if (!(arms_[i].share == shares[i])) return false;
    if (arms_[i].experiment != versions[i]->experiment) return false;
  }
  return true;
}

void VersionExperiment::Count(int64_t number, bool sticky) {
  const auto arm =
      std::ranges::find(arms_, number, [](const Arm& one) { return one.share.number; });
  if (arm == arms_.end()) return;
  (sticky ? arm->sticky : arm->drawn).Add();
}

VersionExperimentFacts VersionExperiment::Read() const {
  VersionExperimentFacts facts = {.model = model_, .started_ms = started_ms_};
  std::vector<uint64_t> drawn;
  std::vector<double> weights;
  size_t baseline = 0;
  for (const Arm& arm : arms_) {
    VersionArm& one = facts.arms.emplace_back();
    one.number = arm.share.number;
    one.weight = arm.share.weight;
    one.drawn = arm.drawn.value();
    one.sticky = arm.sticky.value();
    for (const Observed& variant : arm.variants) {
      const Moments now = MomentsOf(*variant.metrics);
      one.seconds.count += now.count - variant.begin.count;
      one.seconds.sum += now.sum - variant.begin.sum;
      one.seconds.sum_of_squares += now.sum_of_squares - variant.begin.sum_of_squares;
    }
    drawn.push_back(one.drawn);
    weights.push_back(one.weight);
    if (one.weight > weights[baseline]) baseline = weights.size() - 1;
  }
  if (facts.arms.empty()) return facts;
  facts.baseline = facts.arms[baseline].number;
  facts.sample_ratio = TestSampleRatio(drawn, weights);
  for (VersionArm& arm : facts.arms) {
    if (arm.number == facts.baseline) continue;
    arm.seconds_over_baseline = MeanDifference(arm.seconds, facts.arms[baseline].seconds);
  }
  return facts;
}

}  // namespace octet
