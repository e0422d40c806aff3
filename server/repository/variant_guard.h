// Watches one variant by its own metrics, and takes it out of the split when its model.yaml says so.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "config/model_config.h"
#include "server/metrics/registry.h"
#include "server/repository/latency_limit.h"
#include "server/repository/traffic_events.h"
#include "server/routing/guard.h"
#include "server/scheduling/clock.h"

namespace octet {

struct ModelVersion;

/// Requests that failed through our fault: INTERNAL, UNKNOWN or DATA_LOSS.
uint64_t ServerErrors(const VariantMetrics& metrics);
/// Requests that did not run for want of room or time, those aside that were too late when they came.
uint64_t Refusals(const VariantMetrics& metrics);

/// What a guard has seen since it began.
struct GuardReport {
  uint64_t kept_windows = 0;
  uint64_t broken_windows = 0;
  uint64_t undecided_windows = 0;  ///< Too few samples for a rule, and none broken.
  uint64_t uncopied_windows = 0;   ///< Of these, with requests enough: for want of copies.
  uint64_t refusing_windows = 0;   ///< Too many requests refused, and no rule broken.
  bool fallen_back = false;
  double share = 1;         ///< What is left of its weight.
  std::string last_broken;  ///< What the last broken window broke.

  uint64_t windows() const {
    return kept_windows + broken_windows + undecided_windows + refusing_windows;
  }
};

/// The guard of a loaded variant. A load, also of the same files, begins anew with a good one.
/// Thread-safety: one thread calls Look; fallen_back and report may be read by others.
class VariantGuard {
 public:
  /// `pairs` are those that its shadow copies are compared in; `limit` is the one of rules.p99_us, null without.
  VariantGuard(std::string name, ModelConfig::Routing::Guard rules,
               std::shared_ptr<VariantMetrics> metrics,
               std::vector<std::shared_ptr<ShadowMetrics>> pairs,
               std::shared_ptr<const LatencyLimit> limit, std::shared_ptr<TrafficEvents> events);

  /// Judges the window when it is over, and begins the next. Each action is one event and counted.
  void Look(TimePoint now);

  /// What is left of its weight: 1 = all of it, 0 = others answer in its place.
  const std::atomic<double>& share() const { return share_; }
  bool fallen_back() const { return share_ == 0; }
  GuardReport report() const;

 private:
  /// Sums since the process began.
  GuardFacts Read() const;
  void Record(const GuardJudgement& judgement, uint64_t requests);
  void Act(GuardAction action, const std::string& reason);

  const std::string name_;  ///< "resnet/1/int8".
  const ModelConfig::Routing::Guard rules_;
  const std::shared_ptr<VariantMetrics> metrics_;
  const std::vector<std::shared_ptr<ShadowMetrics>> pairs_;
  const std::shared_ptr<const LatencyLimit> limit_;
  const std::shared_ptr<TrafficEvents> events_;
  GuardFacts begin_;  ///< Of the window.
  TimePoint end_;
  bool begun_ = false;
  GuardState state_;
  std::atomic<double> share_{1};
  mutable absl::Mutex mutex_;
  GuardReport report_ ABSL_GUARDED_BY(mutex_);  ///< Without fallen_back and share.
};

/// Looks at every guard of these versions. A variant that has none is shown as not tripped each time: a guard that was looked
/// at while a load took it away may have said something else last.
void LookAtGuards(std::span<const std::shared_ptr<const ModelVersion>> versions, TimePoint now);

}  // namespace octet
