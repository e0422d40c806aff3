#include "server/http/capture_mark.h"

#include <filesystem>
#include <fstream>
#include <random>
#include <system_error>

#include "engine/tensor/format.h"
#include "engine/tensor/pending_file.h"

namespace octet {
namespace {

constexpr size_t kMarkDigits = 32;

std::string MarkFile(const std::string& folder) { return folder + "/.octet-captures"; }

}  // namespace

std::string CaptureMark(const std::string& folder) {
  std::error_code error;
  const auto status = std::filesystem::symlink_status(MarkFile(folder), error);
  if (status.type() != std::filesystem::file_type::regular) return "";
  std::ifstream file(MarkFile(folder), std::ios::binary);
  std::string mark(kMarkDigits + 1, ' ');
  file.read(mark.data(), static_cast<std::streamsize>(mark.size()));
  mark.resize(static_cast<size_t>(file.gcount()));
  const bool is_mark =
      mark.size() == kMarkDigits && mark.find_first_not_of("0123456789abcdef") == std::string::npos;
  return is_mark ? mark : "";
}

void MarkCaptureFolder(const std::string& folder) {
  if (!CaptureMark(folder).empty()) return;
  std::random_device random;
  std::string mark;
  while (mark.size() < kMarkDigits) mark += Format("{:08x}", random());
  WriteWholeFile(MarkFile(folder), mark, 0600).IgnoreError();  // Captures fail alike, and say so.
}

}  // namespace octet
