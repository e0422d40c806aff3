// Watches one variant by its own metrics, and takes it out of the split when its model.yaml says so.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "config/model_config.h"
#include "server/metrics/registry.h"
#include "server/routing/guard.h"
#include "server/scheduling/clock.h"

namespace octet {

/// The guard of a loaded variant. A load, also of the same files, begins anew with a good one.
/// Thread-safety: one thread calls Look; fallen_back may be read by others.
class VariantGuard {
 public:
  /// `pairs` are those that its shadow copies are compared in.
  VariantGuard(std::string name, ModelConfig::Routing::Guard rules,
               std::shared_ptr<VariantMetrics> metrics,
               std::vector<std::shared_ptr<ShadowMetrics>> pairs);

  /// Judges the window when it is over, and begins the next. Each action is one event and counted.
  void Look(TimePoint now);

  /// True while others answer in its place.
  const std::atomic<bool>& fallen_back() const { return fallen_back_; }

 private:
  /// Sums since the process began.
  struct Sums {
    GuardFacts facts;
    HistogramCounts durations{};
  };
  Sums Read() const;
  void Act(GuardAction action, const std::string& reason);

  const std::string name_;  ///< "resnet/1/int8".
  const ModelConfig::Routing::Guard rules_;
  const std::shared_ptr<VariantMetrics> metrics_;
  const std::vector<std::shared_ptr<ShadowMetrics>> pairs_;
  Sums begin_{};  ///< Of the window.
  TimePoint end_;
  bool begun_ = false;
  GuardState state_;
  std::atomic<bool> fallen_back_{false};
};

}  // namespace octet
