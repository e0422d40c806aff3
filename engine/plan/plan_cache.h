// Plans by input shapes: a bounded cache in which each shape is compiled once.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

#include "engine/engine.h"

namespace octet {

/// Thread-safe. Callers for one shape wait for one compilation; callers for other shapes don't wait for it.
///
///     making -> ready     dropped as the one used longest ago, unless pinned
///            -> refused   the model does not take the shapes: dropped likewise, among its own kind
///            -> gone      an error of the moment: the next call tries again
class PlanCache {
 public:
  using Compile = std::function<absl::StatusOr<std::shared_ptr<const Plan>>()>;

  /// Keeps at most `max_unpinned` plans that were not pinned, and so many refusals. `on_compile` hears of every plan that is
  /// compiled.
  explicit PlanCache(int max_unpinned, CompileObserver on_compile = {})
      : max_unpinned_(max_unpinned), on_compile_(std::move(on_compile)) {}

  /// The plan for the shapes, compiled by `compile` on the first call. A failed compilation is reported to
  /// everybody who waited for it. Of shapes that the model does not take (INVALID_ARGUMENT, UNIMPLEMENTED) it is remembered:
  /// finding that out takes as long as compiling, and a client may ask again and again. Pinned plans are never dropped.
  absl::StatusOr<std::shared_ptr<const Plan>> Get(std::span<const Shape> shapes, bool pinned,
                                                  const Compile& compile);
  /// Plans that are ready.
  int size() const;

 private:
  using Key = std::vector<int64_t>;
  enum class State : uint8_t { kMaking, kReady, kRefused };
  struct Entry {
    absl::Notification done;
    // Written before `done` is notified, read after.
    absl::StatusOr<std::shared_ptr<const Plan>> plan =
        absl::InternalError("compilation did not finish");
    // Guarded by the cache's mutex, like what follows.
    bool pinned = false;
    State state = State::kMaking;
    uint64_t last_use = 0;
  };
  using Entries = std::map<Key, std::shared_ptr<Entry>>;

  /// Notes what became of a compilation. Returns what makes room for it, which the caller lets go of without the lock: to
  /// free a plan takes a while. Allocates nothing.
  Entries Finish(const Key& key, Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Entries TakeOldest(State state) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int max_unpinned_;
  const CompileObserver on_compile_;
  mutable absl::Mutex mutex_;
  uint64_t uses_ ABSL_GUARDED_BY(mutex_) = 0;
  Entries entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace octet
