#include "engine/tensor/pending_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "engine/tensor/status.h"

namespace octet {

namespace {

// Waits until the folder's names are on disk.
absl::Status SyncFolderOf(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const std::string folder = parent.empty() ? "." : parent.string();
  const int fd = ::open(folder.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
  if (fd < 0) return SystemError("write", folder, errno);
  const int error = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  return error == 0 ? absl::OkStatus() : SystemError("write", folder, error);
}

}  // namespace

absl::Status SystemError(std::string_view action, const std::string& path, int error) {
  const std::string reason = std::generic_category().message(error);
  if (error == ENOENT || error == ENOTDIR)
    return NotFound("cannot {} {}: {}", action, path, reason);
  if (error == ENOSPC || error == EDQUOT) {
    return MakeError(absl::StatusCode::kResourceExhausted, "cannot {} {}: {}", action, path,
                     reason);
  }
  return InvalidArgument("cannot {} {}: {}", action, path, reason);
}

PendingFile::~PendingFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

absl::Status PendingFile::Open(mode_t mode) {
  const std::filesystem::path target(path_);
  // Another process may write the same file: take the first free name.
  for (int attempt = 0; temporary_.empty(); ++attempt) {
    std::string name = target.parent_path() /
                       Format(".{}.{}-{}.tmp", target.filename().string(), ::getpid(), attempt);
    fd_ = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd_ < 0 && errno == EEXIST && attempt < 1000) continue;
    if (fd_ < 0) return SystemError("create", path_, errno);
    temporary_ = std::move(name);
  }
  return absl::OkStatus();
}

absl::Status PendingFile::Commit() {
  if (::fsync(fd_) != 0) return SystemError("write", path_, errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return SystemError("write", path_, errno);
  temporary_.clear();
  return SyncFolderOf(path_);
}

absl::Status WriteWholeFile(const std::string& path, std::string_view bytes, mode_t mode) {
  PendingFile file(path);
  OCTET_RETURN_IF_ERROR(file.Open(mode));
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.fd(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return SystemError("write", path, errno);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return file.Commit();
}

}  // namespace octet
