// A ramp at work: looks at the guards, holds the share that routing reads, and remembers where it is.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "server/repository/traffic_events.h"
#include "server/repository/variant_guard.h"
#include "server/routing/ramp.h"
#include "server/routing/refusing_windows.h"
#include "server/routing/steady_epoch.h"
#include "server/scheduling/clock.h"

namespace octet {

struct ModelVersion;
struct ServedVariant;

/// The ramp of a model. Goes through reloads that change neither its rules nor the ramped's files, and through restarts:
/// each step, and that the last one was kept to, is written to a file that the next process goes on with. What else the
/// guards said is not; they must consent anew. A file that cannot be written is an event, at the load already, and a restart then begins at the first step.
/// Thread-safety: one thread calls Look; the rest may be read by others.
class ServedRamp {
 public:
  /// `identity` is a line that tells this ramp from another; the file is that of the same one, or is written anew. `epoch` counts
  /// what steps are held for.
  ServedRamp(std::string model, ModelConfig::Routing::Ramp rules, std::string identity,
             std::string file, std::shared_ptr<TrafficEvents> events, SteadyEpoch epoch,
             TimePoint now);

  const ModelConfig::Routing::Ramp& rules() const { return rules_; }
  const std::string& identity() const { return identity_; }
  /// Of the traffic, 0 .. 1.
  const std::atomic<double>& share() const { return share_; }
  RampState state() const;
  /// True of the variants that the ramp brings in.
  bool Concerns(int64_t version, Precision precision) const;

  /// Advances by what the guards of the ramped variants have said; `rest` are those that answer the rest. Each action is an event and counted. Ramped variants of
  /// which none has a guard are an event, once: nobody will consent.
  void Look(std::span<const ServedVariant* const> ramped,
            std::span<const ServedVariant* const> rest, TimePoint now);

  /// From its return on the file is another's, or nobody's: it is not written any more. Thread-safety: safe.
  void Retire();

 private:
  /// A guard of the ramped. Held, so that no other one has its address.
  struct Watched {
    std::shared_ptr<const VariantGuard> guard;
    GuardReport now;
    GuardReport begin;   ///< What it had seen when the step began.
    bool whole = false;  ///< The window that the step began in is over.
    RefusingWindows refusing;
  };

  RampFacts Read(std::span<const ServedVariant* const> ramped,
                 std::span<const ServedVariant* const> rest);
  void Save();
  void Act(RampAction action, const RampFacts& facts);

  const std::string model_;
  const ModelConfig::Routing::Ramp rules_;
  const std::string identity_;
  const std::string file_;
  const std::shared_ptr<TrafficEvents> events_;
  const SteadyEpoch epoch_;
  std::atomic<double> share_{0};
  std::vector<Watched> watched_;
  bool looked_ = false;
  bool unguarded_ = false;  ///< Said.
  mutable absl::Mutex mutex_;
  RampState state_ ABSL_GUARDED_BY(mutex_);
  absl::Mutex file_mutex_;  ///< Held while the file is written. Before `mutex_`.
  bool retired_ ABSL_GUARDED_BY(file_mutex_) = false;
};

/// Looks at every ramp of these versions, once each. Variants that none brings in are shown so each time: a ramp that was looked
/// at while a load took it away may have said something else last.
void LookAtRamps(std::span<const std::shared_ptr<const ModelVersion>> versions, TimePoint now);

}  // namespace octet
