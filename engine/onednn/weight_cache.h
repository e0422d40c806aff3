// Constants in the form that kernels want them in, made once and shared by all plans of a model.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "oneapi/dnnl/dnnl.hpp"

#include "engine/tensor/slab.h"
#include "engine/tensor/tensor.h"

namespace octet::onednn {

/// 128 bits that stand for the elements of a constant. Plans find a packed form by what the constant holds, so
/// that a model that is read again from its file meets the forms of the first reading.
struct ContentHash {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const ContentHash&) const = default;
};
ContentHash HashBytes(const void* data, size_t bytes);

/// What becomes of a constant's elements when a form is made of them.
enum class SourceUse {
  kKeep,
  /// Large ones are packed where they lie, or their pages given back piece by piece, so that the elements and their packed form are not in memory
  /// together. What they hold afterwards is anything; behind an error, too, unless it is UNIMPLEMENTED.
  /// Requires: nobody else reads them, see LowerContext::MayDiscard.
  kDiscard
};

/// An error that came when a constant's elements had been given up. UNIMPLEMENTED, which sends a lowering to the reference kernel and
/// that to the elements, is INTERNAL; any other code says what it says: RESOURCE_EXHAUSTED that there is no memory, now.
absl::Status BehindDiscard(absl::Status error);

/// Keeps every form alive as long as a plan uses it, and no longer. Thread-safe.
class WeightCache {
 public:
  WeightCache();

  /// Returns the form of `source` that `form` names, filling `bytes` bytes with fill() when nobody holds it yet.
  /// `form` says all that the result depends on besides the elements of `source`.
  /// Errors: those of fill.
  absl::StatusOr<std::shared_ptr<const std::byte[]>> GetOrMake(
      const Tensor& source, std::string_view form, size_t bytes,
      const std::function<absl::Status(std::byte*)>& fill);

  /// `source`, described by `from`, reordered to `to`. Errors: oneDNN's.
  absl::StatusOr<std::shared_ptr<const std::byte[]>> Reordered(const Tensor& source,
                                                               const dnnl::memory::desc& from,
                                                               const dnnl::memory::desc& to,
                                                               SourceUse use = SourceUse::kKeep);

  /// The layouts that `source` is held in at present: a plan for another batch size that can use one of them
  /// saves a second copy.
  std::vector<dnnl::memory::desc> LayoutsOf(const Tensor& source) const;

  /// A copy of the constant that owns nothing but its own bytes, shared between plans.
  Tensor Intern(const Tensor& source);

  /// Bytes of all forms that are held.
  size_t resident_bytes() const;

  /// Gives back what no form has been laid into: see Slab::Trim.
  void Trim();

 private:
  struct Counter;
  struct Layout {
    dnnl::memory::desc from, to;
    std::weak_ptr<const std::byte[]> data;
  };
  /// What Reordered() made of the constant that `key` names, or null.
  std::shared_ptr<const std::byte[]> Held(const std::string& key, const dnnl::memory::desc& from,
                                          const dnnl::memory::desc& to) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  struct Hashed {
    std::weak_ptr<const void>
        owner;  ///< Of the elements: they are what they were as long as it lives.
    size_t bytes = 0;
    ContentHash hash;
  };
  /// What names the elements of a constant: their bytes, type and extents. Reads them once, however often it is asked.
  std::string SourceKey(const Tensor& source) const;
  /// What Reordered() keeps; where the source lies, if it is discarded and has room for it.
  absl::StatusOr<std::shared_ptr<std::byte[]>> Pack(const Tensor& source,
                                                    const dnnl::memory::desc& from,
                                                    const dnnl::memory::desc& to, SourceUse use);
  std::shared_ptr<std::byte[]> Allocate(size_t bytes);
  /// `data`, which `memory` keeps alive, as a form that resident_bytes() counts.
  std::shared_ptr<std::byte[]> Counted(std::shared_ptr<const void> memory, std::byte* data,
                                       size_t bytes);
  void DropExpired() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<Counter> counter_;  ///< Shared with the forms, which may outlive the cache.
  mutable absl::Mutex mutex_;
  Slab memory_ ABSL_GUARDED_BY(mutex_);
  mutable std::unordered_map<const void*, Hashed> hashes_ ABSL_GUARDED_BY(mutex_);  ///< By place.
  std::unordered_map<std::string, std::weak_ptr<const std::byte[]>> forms_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<std::string, std::vector<Layout>> layouts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace octet::onednn
