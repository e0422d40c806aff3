#include "cli/report/page.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "cli/report/page_text.h"
#include <sys/stat.h>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

constexpr auto kReplace = nlohmann::ordered_json::error_handler_t::replace;

absl::Status CannotWrite(const std::string& path) {
  return InvalidArgument("cannot write '{}': {}", path, std::strerror(errno));
}

std::string TemporaryName(const std::string& path) { return Format("{}.{}.tmp", path, getpid()); }

absl::StatusOr<int> Create(const std::string& path, const std::string& temporary) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error))
    return InvalidArgument("cannot write '{}': it is a folder, expected a file", path);
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) return CannotWrite(path);
  return fd;
}

bool WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return fsync(fd) == 0;
}

}  // namespace

std::string ReportPage(const nlohmann::ordered_json& report) {
  std::string page(kPageBeforeData);
  for (const char c : report.dump(-1, ' ', true, kReplace)) {
    switch (c) {
      case '<':
        page += "\\u003c";
        break;
      case '>':
        page += "\\u003e";
        break;
      case '&':
        page += "\\u0026";
        break;
      default:
        page += c;
    }
  }
  page += kPageAfterData;
  return page;
}

std::string ReportText(const nlohmann::ordered_json& report) {
  return report.dump(2, ' ', false, kReplace) + '\n';
}

absl::Status CheckWritable(const std::string& path) {
  const std::string temporary = TemporaryName(path);
  OCTET_ASSIGN_OR_RETURN(const int fd, Create(path, temporary));
  close(fd);
  unlink(temporary.c_str());
  return absl::OkStatus();
}

absl::Status WriteWhole(const std::string& path, std::string_view text) {
  const std::string temporary = TemporaryName(path);
  OCTET_ASSIGN_OR_RETURN(const int fd, Create(path, temporary));
  const bool written = WriteAll(fd, text);
  if (close(fd) == 0 && written && std::rename(temporary.c_str(), path.c_str()) == 0)
    return absl::OkStatus();
  const absl::Status status = CannotWrite(path);
  unlink(temporary.c_str());
  return status;
}

}  // namespace octet::cli
