#include "engine/tensor/spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "engine/tensor/pending_file.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

std::string Folder() {
  const char* const named = std::getenv("TMPDIR");
  return named != nullptr && *named != '\0' ? named : "/var/tmp";
}

absl::Status Failed(std::string_view action, int error) {
  return Annotate(SystemError(action, Folder(), error),
                  "samples that are compressed or in many files are copied to a temporary file, "
                  "in the folder that TMPDIR names");
}

}  // namespace

Spool::~Spool() {
  if (fd_ >= 0) ::close(fd_);
}

absl::Status Spool::OpenFile() {
  std::string path = Folder() + "/octet.XXXXXX";
  fd_ = ::mkostemp(path.data(), O_CLOEXEC);
  if (fd_ < 0) return Failed("create a file in", errno);
  ::unlink(path.c_str());
  OCTET_RETURN_IF_ERROR(Write(memory_.data(), memory_.size()));
  memory_ = {};
  return absl::OkStatus();
}

absl::Status Spool::Write(const void* bytes, size_t size) {
  const auto* at = static_cast<const std::byte*>(bytes);
  while (size > 0) {
    const ssize_t written = ::write(fd_, at, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Failed("write to a file in", errno);
    at += written;
    size -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::Status Spool::Append(const void* bytes, size_t size) {
  if (fd_ < 0 && size <= kInMemory - size_) {
    const auto* from = static_cast<const std::byte*>(bytes);
    memory_.insert(memory_.end(), from, from + size);
  } else {
    if (fd_ < 0) OCTET_RETURN_IF_ERROR(OpenFile());
    OCTET_RETURN_IF_ERROR(Write(bytes, size));
  }
  size_ += size;
  return absl::OkStatus();
}

absl::Status Spool::Read(uint64_t offset, uint64_t size, void* to) const {
  if (size == 0) return absl::OkStatus();
  if (fd_ < 0) {
    std::memcpy(to, memory_.data() + offset, size);
    return absl::OkStatus();
  }
  auto* at = static_cast<std::byte*>(to);
  while (size > 0) {
    const ssize_t got = ::pread(fd_, at, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Failed("read a file in", got < 0 ? errno : EIO);
    at += got;
    offset += static_cast<uint64_t>(got);
    size -= static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

}  // namespace octet
