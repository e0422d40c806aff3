// What tells one state of a file from another.
#pragma once

#include <cstdint>

#include <sys/stat.h>

namespace octet {

/// A file as it was at one moment: one that was written since, or whose place another has taken, has another stamp.
struct FileStamp {
  int64_t modified_ns = 0;  ///< Since 1970.
  uint64_t bytes = 0;
  uint64_t inode = 0;  ///< Of files that were put in place with the times of others.
  bool operator==(const FileStamp&) const = default;

  /// The stamp of what stat(2) tells of.
  static FileStamp Of(const struct stat& info) {
    return {.modified_ns = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec,
            .bytes = static_cast<uint64_t>(info.st_size),
            .inode = info.st_ino};
  }
};

}  // namespace octet
