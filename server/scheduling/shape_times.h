// How long requests of one shape take, as measured: of models whose open extents are no batch, where each runs by itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "engine/tensor/wire_tensor.h"
#include "server/scheduling/batch_times.h"
#include "server/scheduling/clock.h"

namespace octet {

/// The times of a variant by the extents of all inputs. Thread-safety: safe.
class ShapeTimes {
 public:
  /// Shapes that are known at once: what was measured longest ago makes room.
  static constexpr size_t kMost = 128;

  /// A request with these inputs has run by itself, in a time that no element but only the shapes decide. Of the first two
  /// runs the shorter one counts, for the first one also meets new memory; then as BatchTimes::Observe.
  void Observe(std::span<const WireTensor> inputs, Nanoseconds time, TimePoint now);
  /// What a request with these inputs is expected to take; 0 = fewer than two runs, or none within kFresh. Neither throws: what
  /// there is no memory for is not known.
  Nanoseconds Expected(std::span<const WireTensor> inputs, TimePoint now) const;

 private:
  /// Rank and extents of each input, one after the other.
  using Extents = std::vector<int64_t>;
  struct Entry {
    BatchTime time;
    int64_t runs = 0;
  };
  static Extents ExtentsOf(std::span<const WireTensor> inputs);
  void Learn(Extents extents, Nanoseconds time, TimePoint now);

  mutable absl::Mutex mutex_;
  std::map<Extents, Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace octet
