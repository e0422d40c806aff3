#include "cli/output_file.h"

#include <filesystem>
#include <system_error>

#include "cli/sample_arrays.h"

#include "engine/tensor/pending_file.h"
#include "engine/tensor/status.h"

namespace octet::cli {

namespace {

namespace fs = std::filesystem;

// By whatever names; one that is not there yet is where it would be.
bool IsSameFile(const std::string& a, const std::string& b) {
  std::error_code error;
  if (fs::equivalent(a, b, error)) return true;
  const fs::path place = fs::weakly_canonical(fs::absolute(a, error), error);
  return !error && place == fs::weakly_canonical(fs::absolute(b, error), error) && !error;
}

// Or a link to an open file, as /dev/stdout is one.
bool IsDevice(const std::string& path, const fs::file_status& status) {
  if (fs::is_character_file(status) || fs::is_block_file(status) || fs::is_fifo(status) ||
      fs::is_socket(status)) {
    return true;
  }
  std::error_code error;
  return fs::read_symlink(path, error).string().starts_with("/proc/") && !error;
}

bool WouldBeSamplesOf(const fs::path& path, const std::string& folder) {
  std::error_code error;
  return IsSampleFile(path) && IsFolder(folder) &&
         IsSameFile(fs::absolute(path, error).parent_path().string(), folder);
}

}  // namespace

absl::Status CheckOutputFile(const std::string& path, std::span<const std::string> others) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) {
    return InvalidArgument("cannot write '{}': it is a folder, expected a file", path);
  }
  // Nothing would be written to it: the finished file would take its place, and root's would that of /dev/null.
  if (IsDevice(path, status)) {
    return InvalidArgument("cannot write '{}': it is a device or a pipe, expected a file", path);
  }
  for (const std::string& other : others) {
    if (!other.empty() && IsSameFile(path, other))
      return InvalidArgument(
          "cannot write '{}': it would replace '{}', which is read or written, too", path, other);
    if (WouldBeSamplesOf(path, other)) {
      return InvalidArgument(
          "cannot write '{}': it would be one of the files of samples in '{}', expected another "
          "folder",
          path, other);
    }
  }
  return PendingFile(path).Open();
}

}  // namespace octet::cli
