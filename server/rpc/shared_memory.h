// POSIX shared memory of clients on this machine: tensors that no message carries.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "proto/inference.pb.h"

namespace octet {

/// A part of a shared memory object. The object is read and written through its descriptor, with pread(2) and
/// pwrite(2), and never mapped: the client can shrink it at any time, and touching a page that is gone from a
/// mapping is a SIGBUS, which ends the process; here it is a short read. The copy also keeps the client from
/// changing a tensor between its check and its use. Thread-safety: safe.
class SharedRegion {
 public:
  /// Owns the descriptor.
  SharedRegion(int fd, std::string name, std::string key, uint64_t offset, uint64_t bytes)
      : fd_(fd), name_(std::move(name)), key_(std::move(key)), offset_(offset), bytes_(bytes) {}
  ~SharedRegion();
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;

  const std::string& name() const { return name_; }
  const std::string& key() const { return key_; }
  uint64_t offset() const { return offset_; }
  uint64_t bytes() const { return bytes_; }

  /// Replaces `out` by `bytes` bytes from `offset` of the region on. Requires: they lie in the region.
  /// INVALID_ARGUMENT when the object has become smaller than that.
  absl::Status Read(uint64_t offset, uint64_t bytes, std::string& out) const;
  /// Writes there. The object does not grow; errors as Read, RESOURCE_EXHAUSTED when the memory is not to be had.
  absl::Status Write(uint64_t offset, std::string_view data) const;

 private:
  /// How a system call on the object failed, or ended early.
  absl::Status Failure(std::string_view verb, int error) const;

  const int fd_;
  const std::string name_;
  const std::string key_;
  const uint64_t offset_;
  const uint64_t bytes_;
};

/// Where the parameters of a tensor say that its bytes lie.
struct SharedSlice {
  std::shared_ptr<const SharedRegion> region;
  uint64_t offset = 0;  ///< In the region.
  uint64_t bytes = 0;
};

/// The regions that clients have registered. Thread-safety: safe.
class SharedMemory {
 public:
  static constexpr size_t kMaxRegions = 128;
  static constexpr size_t kMaxNameBytes = 256;

  /// A request's inputs take at most `max_request_bytes` of shared memory, as if a message carried them.
  explicit SharedMemory(uint64_t max_request_bytes) : max_request_bytes_(max_request_bytes) {}

  uint64_t max_request_bytes() const { return max_request_bytes_; }

  /// Opens the object that shm_open(3) knows as `key` ("/name" or "name"). INVALID_ARGUMENT for an empty name or one of
  /// more than kMaxNameBytes, a name or a key that is no UTF-8, a key that is none, a region that is empty or goes beyond the object; NOT_FOUND for an object that does not
  /// exist; PERMISSION_DENIED; ALREADY_EXISTS for a name that is taken; RESOURCE_EXHAUSTED.
  absl::Status Register(const std::string& name, const std::string& key, uint64_t offset,
                        uint64_t bytes);
  /// Forgets a region, or all when `name` is empty. Requests under way keep theirs. Unknown names are well.
  void Unregister(const std::string& name);
  /// NOT_FOUND.
  absl::StatusOr<std::shared_ptr<const SharedRegion>> Find(const std::string& name) const;
  /// By name.
  std::vector<std::shared_ptr<const SharedRegion>> All() const;

 private:
  const uint64_t max_request_bytes_;
  mutable absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<const SharedRegion>> regions_ ABSL_GUARDED_BY(mutex_);
};

using TensorParameters = google::protobuf::Map<std::string, inference::InferParameter>;

/// True when any of the parameters shared_memory_* is there.
bool NamesSharedMemory(const TensorParameters& parameters);

/// What the parameters shared_memory_region, _byte_size and _offset (0 unless given) say. INVALID_ARGUMENT when
/// one is missing, of another kind or unknown, or they go beyond the region; NOT_FOUND for a region that is not
/// registered; UNIMPLEMENTED when `memory` is null: not offered. They begin with `tensor`. Requires:
/// NamesSharedMemory.
absl::StatusOr<SharedSlice> FindSharedSlice(std::string_view tensor,
                                            const TensorParameters& parameters,
                                            const SharedMemory* memory);

}  // namespace octet
