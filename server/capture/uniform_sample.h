// A uniform sample of a stream of requests in bounded memory.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "engine/engine.h"

namespace octet {

/// Keeps a request by a draw from [0, 1) that is its own for ever. The sample is the longest beginning of the
/// stream, in the order of the draws, that fits into `max_bytes` of memory, and into kFileFactor times as much where it
/// is written:
///
///     draws      0 |--o--o-o----o--o-------x-----x--x------- share ---------| 1
///                     the sample          threshold: the smallest draw that did not fit
///
/// A draw below `share` is in the stream at all; one at or above the threshold can never come in any more, so a request
/// is refused with one comparison before anything of it is copied. It is what algorithm R (Vitter, 1985) keeps, with
/// random keys instead of random places.
///
/// Promise: requests of equal size are a simple random sample without replacement of everything that was offered
/// with a draw below `share`: each subset of that size is equally likely. Of different sizes, the order is still
/// uniformly random and does not depend on them; the sizes decide where it is cut alone: the first request that does
/// not fit ends the sample, so a large one is missing more often than a small one, by at most this one
/// request. Left out, and told by the verdict: what is larger than one of the two alone, what has another
/// shape than the first kMostShapes, and what would take the memory of a request that is being read or copied now.
///
/// Memory: the bytes that requests are reserved with never exceed `max_bytes` together, those that a snapshot still
/// holds among them.
/// Files: one array holds strings of one width, so that what a file takes is, for each of its shapes,
///
///     sum of fixed bytes  +  sum over inputs of strings: number of elements * length of the longest
///
/// where the length is rounded up to a power of two minus one: the longest is then found without a list of all lengths.
/// Source: random keys: Fan, Muller and Rezucha, 1962; the threshold: Ting, Adaptive threshold sampling, 2022.
/// Thread-safety: safe.
class UniformSample {
 public:
  static constexpr size_t kMostShapes = 64;
  static constexpr size_t kFileFactor = 4;

  /// What is kept of an input.
  struct Input {
    TensorSpec spec;
    Tensor elements;  ///< An empty handle where they are not kept.
    ConstTensorView view() const { return {elements.data(), spec}; }
  };

  /// The elements of an input of strings.
  struct Texts {
    uint64_t count = 0;
    uint64_t longest = 0;  ///< Bytes.
  };

  /// What a request takes in its shape's file.
  struct FileShare {
    uint64_t fixed = 0;  ///< Bytes of everything but strings.
    std::vector<Texts>
        texts;  ///< Of every input of strings, the same number for each request of a shape.
  };

  /// What is kept of a request.
  struct Entry {
    size_t shape = 0;  ///< Index into Snapshot::shapes.
    int64_t rows = 0;
    size_t bytes = 0;
    FileShare file;
    std::vector<Input> inputs;  ///< Empty until it was filled.
  };

  enum class Verdict : uint8_t { kTaken, kPassed, kTooLarge, kTooManyShapes, kBusy };

  struct Reservation {
    Verdict verdict = Verdict::kPassed;
    double draw = 0;
    std::shared_ptr<Entry> entry;  ///< When it was taken.
  };

  /// One kind of requests: those that can be joined along axis 0.
  struct ShapeState {
    std::string name;
    uint64_t changes = 0;  ///< Requests of it that came and went.
  };

  struct Snapshot {
    std::vector<ShapeState> shapes;                     ///< In the order of their first request.
    std::vector<std::shared_ptr<const Entry>> entries;  ///< In the order of the draws.
  };

  struct Totals {
    size_t requests = 0;
    int64_t rows = 0;
    size_t bytes = 0;
  };

  UniformSample(double share, size_t max_bytes)
      : max_bytes_(max_bytes),
        max_file_bytes_(max_bytes > SIZE_MAX / kFileFactor ? SIZE_MAX : max_bytes * kFileFactor),
        threshold_(share) {}

  /// False: Reserve would pass it.
  bool MayTake(double draw) const { return draw < threshold_.load(std::memory_order_relaxed); }

  /// Makes room for a request, which replaces those of the largest draws.
  Reservation Reserve(double draw, size_t bytes, int64_t rows, const std::string& shape,
                      FileShare file);
  /// Completes a reserved one; from now on it is in snapshots.
  void Fill(Reservation reservation, std::vector<Input> inputs);
  /// Gives a reserved one's place back.
  void Abandon(Reservation reservation);

  /// Changes with every request that came or went.
  uint64_t changes() const { return changes_.load(std::memory_order_acquire); }
  Snapshot Take() const;
  Totals totals() const;

 private:
  using Entries = std::multimap<double, std::shared_ptr<Entry>>;

  /// The strings of one input in one file.
  struct Column {
    uint64_t count = 0;
    std::array<uint64_t, 65> requests{};  ///< By the bits of their longest element's length.
    uint64_t bytes() const;
  };

  /// Adds a share to the file of its shape, or takes it away.
  void AddToFile(size_t shape, const FileShare& file) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeFromFile(size_t shape, const FileShare& file) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  /// The entries that must go before `bytes` more fit, largest draw first, already taken from their files, which have the
  /// request's share; kPassed when the request itself must, too; kBusy when one of them cannot.
  Verdict FindVictims(double draw, size_t bytes, std::vector<Entries::iterator>& victims)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Remove(Entries::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Changed(size_t shape) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t max_bytes_;
  const size_t max_file_bytes_;
  std::atomic<double> threshold_;  ///< Written under the lock.
  std::atomic<uint64_t> changes_{0};
  mutable absl::Mutex mutex_;
  Entries entries_ ABSL_GUARDED_BY(mutex_);
  Totals totals_ ABSL_GUARDED_BY(mutex_);
  std::vector<ShapeState> shapes_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::vector<Column>> columns_ ABSL_GUARDED_BY(mutex_);  ///< By shape.
  uint64_t file_bytes_ ABSL_GUARDED_BY(mutex_) = 0;                   ///< Of all files together.
};

}  // namespace octet
