#include "engine/onnx/byte_source.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <sys/stat.h>

#include "engine/tensor/status.h"

namespace octet {

absl::Status MemorySource::ReadAt(uint64_t offset, std::span<std::byte> dst) const {
  if (offset > bytes_.size() || dst.size() > bytes_.size() - offset)
    return InvalidArgument("truncated: {} bytes at offset {} of {}", dst.size(), offset,
                           bytes_.size());
  if (!dst.empty()) std::memcpy(dst.data(), bytes_.data() + offset, dst.size());
  return absl::OkStatus();
}

OpenFile::OpenFile(OpenFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), stamp_(other.stamp_) {}

OpenFile& OpenFile::operator=(OpenFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(stamp_, other.stamp_);
  return *this;
}

OpenFile::~OpenFile() {
  if (fd_ >= 0) ::close(fd_);
}

absl::StatusOr<OpenFile> OpenFile::Open(const std::string& path) {
  // O_NONBLOCK: opening a named pipe must not wait for its writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    const int error = errno;
    const std::string reason = std::generic_category().message(error);
    if (error == ENOENT || error == ENOTDIR) return NotFound("no such file: {}", path);
    // Nothing is wrong with the path: there will be room again.
    if (error == EMFILE || error == ENFILE || error == ENOMEM) {
      return MakeError(absl::StatusCode::kResourceExhausted, "cannot open {}: {}", path, reason);
    }
    return InvalidArgument("cannot open {}: {}", path, reason);
  }
  OpenFile file(fd);
  struct stat info = {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return InvalidArgument("not a regular file: {}", path);
  }
  file.stamp_ = FileStamp::Of(info);
  return file;
}

absl::Status OpenFile::ReadAt(uint64_t offset, std::span<std::byte> dst) const {
  while (!dst.empty()) {
    const ssize_t got = ::pread(fd_, dst.data(), dst.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      return InvalidArgument(
          "read error at offset {}: {}", offset,
          got == 0 ? "it became shorter" : std::generic_category().message(errno));
    }
    dst = dst.subspan(static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

}  // namespace octet
