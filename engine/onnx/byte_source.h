// Where a model's bytes are: a file, or memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/tensor/file_stamp.h"

namespace octet {

/// `length` bytes from `offset` on.
struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;
};

/// A file as it was when it was opened.
struct SourceFile {
  std::string path;
  FileStamp stamp;
};

/// Bytes that can be read in any order. Thread-safe.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual uint64_t bytes() const = 0;
  /// Fills `dst` from `offset` on. INVALID_ARGUMENT when there are fewer bytes, or on a read error.
  virtual absl::Status ReadAt(uint64_t offset, std::span<std::byte> dst) const = 0;
};

/// Bytes in memory that outlive it.
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::span<const std::byte> bytes) : bytes_(bytes) {}
  uint64_t bytes() const override { return bytes_.size(); }
  absl::Status ReadAt(uint64_t offset, std::span<std::byte> dst) const override;

 private:
  std::span<const std::byte> bytes_;
};

/// An open file; closed with the object.
class OpenFile final : public ByteSource {
 public:
  OpenFile() = default;
  OpenFile(OpenFile&& other) noexcept;
  OpenFile& operator=(OpenFile&& other) noexcept;
  ~OpenFile() override;

  /// Opens a regular file for reading. NOT_FOUND when there is none, INVALID_ARGUMENT when it is something
  /// else or may not be read.
  static absl::StatusOr<OpenFile> Open(const std::string& path);

  int fd() const { return fd_; }
  /// Of the file as it was opened.
  const FileStamp& stamp() const { return stamp_; }

  /// As it was opened: a file may become shorter, and is then an error to ReadAt. That is why it is not mapped, where the
  /// same would end the process.
  uint64_t bytes() const override { return stamp_.bytes; }
  absl::Status ReadAt(uint64_t offset, std::span<std::byte> dst) const override;

 private:
  explicit OpenFile(int fd) : fd_(fd) {}

  int fd_ = -1;
  FileStamp stamp_;
};

}  // namespace octet
