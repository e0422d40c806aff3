// Bytes that are written once and read again and again, on disk where they are many.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace octet {

/// What is appended lies in memory up to kInMemory bytes; beyond, all of it is in a file without a name, in the folder that the
/// environment's TMPDIR names, else in /var/tmp (/tmp is memory on many systems). The file is its owner's alone (0600) and gone with
/// the process. Appending is not thread-safe; reading what was appended before is.
class Spool {
 public:
  static constexpr uint64_t kInMemory = uint64_t{4} << 20;

  Spool() = default;
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  /// Errors: as SystemError, naming the folder and TMPDIR; RESOURCE_EXHAUSTED on a full disk.
  absl::Status Append(const void* bytes, size_t size);
  /// Bytes so far: where the next ones will be.
  uint64_t size() const { return size_; }
  /// Copies bytes [offset, offset + size). Requires: they were appended. Errors: as SystemError.
  absl::Status Read(uint64_t offset, uint64_t size, void* to) const;

 private:
  absl::Status OpenFile();
  absl::Status Write(const void* bytes, size_t size);

  std::vector<std::byte> memory_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

}  // namespace octet
