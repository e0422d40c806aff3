// Files that appear whole or not at all.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include <sys/types.h>

namespace octet {

/// A new file beside `path` that takes its place when committed, and disappears otherwise. Until then its name begins with a dot,
/// for which who reads the folder passes it over, and is nobody else's: several threads and processes may write `path` at once, and
/// the last to commit wins. What a process that is killed leaves is called ".<name>.<process>-<number>.tmp". An object is one
/// thread's.
class PendingFile {
 public:
  explicit PendingFile(std::string path) : path_(std::move(path)) {}
  ~PendingFile();
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  /// `mode` as open(2) takes it, before umask. NOT_FOUND without the folder, RESOURCE_EXHAUSTED on a full disk,
  /// INVALID_ARGUMENT for any other reason of the system's, as in Commit.
  absl::Status Open(mode_t mode = 0666);
  /// Where its bytes are written to. Requires: Open.
  int fd() const { return fd_; }
  /// Where they are until Commit.
  const std::string& temporary() const { return temporary_; }
  /// Puts it in its place, on disk: also when power is cut right afterwards.
  absl::Status Commit();

 private:
  std::string path_;
  std::string temporary_;
  int fd_ = -1;
};

/// PendingFile with these bytes. Errors: as there.
absl::Status WriteWholeFile(const std::string& path, std::string_view bytes, mode_t mode = 0666);

/// The error number of a failed call as a status: "cannot <action> <path>: <reason>", with PendingFile's codes.
absl::Status SystemError(std::string_view action, const std::string& path, int error);

}  // namespace octet
