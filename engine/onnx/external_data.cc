#include "engine/onnx/external_data.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "engine/tensor/status.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

// True when `path`, canonical, is `folder`, canonical, or below it.
bool IsBelow(const fs::path& path, const fs::path& folder) {
  const auto [end, at] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return end == folder.end();
}

absl::Status CheckLocation(const std::string& location) {
  const fs::path path(location);
  if (location.empty() || location.find('\0') != std::string::npos || path.is_absolute() ||
      std::ranges::find(path, "..") != path.end()) {
    return InvalidArgument("external data outside the model's folder: '{}'",
                           std::string(location.c_str()));
  }
  return absl::OkStatus();
}

}  // namespace

ExternalDataReader::ExternalDataReader(const std::string& model_path) {
  const fs::path parent = fs::path(model_path).parent_path();
  folder_ = parent.empty() ? "." : parent.string();
}

absl::StatusOr<const OpenFile*> ExternalDataReader::Find(const std::string& location) {
  if (const auto found = files_.find(location); found != files_.end()) return &found->second;
  OCTET_RETURN_IF_ERROR(CheckLocation(location));
  std::error_code error;
  const fs::path folder = fs::canonical(folder_, error);
  if (error) return NotFound("no such folder: {}", folder_);
  const fs::path path = fs::canonical(folder / location, error);
  if (error) return NotFound("no external data file: '{}'", location);
  if (!IsBelow(path, folder)) {
    return InvalidArgument("external data outside the model's folder, through a link: '{}'",
                           location);
  }
  OCTET_ASSIGN_OR_RETURN(OpenFile file, OpenFile::Open(path.string()));
  return &files_.emplace(location, std::move(file)).first->second;
}

absl::Status ExternalDataReader::Check(const ExternalRange& range, uint64_t bytes) {
  OCTET_ASSIGN_OR_RETURN(const OpenFile* file, Find(range.location));
  if (range.length && *range.length != bytes) {
    return InvalidArgument("length of external data in '{}': expected {} bytes, got {}",
                           range.location, bytes, *range.length);
  }
  if (range.offset > file->bytes() || bytes > file->bytes() - range.offset) {
    return InvalidArgument(
        "external data file '{}' is too short: expected {} bytes at offset {}, it has {} in all",
        range.location, bytes, range.offset, file->bytes());
  }
  return absl::OkStatus();
}

absl::Status ExternalDataReader::Read(const ExternalRange& range, std::span<std::byte> dst) {
  OCTET_ASSIGN_OR_RETURN(const OpenFile* file, Find(range.location));
  absl::Status status = file->ReadAt(range.offset, dst);
  if (status.ok()) return status;
  return Annotate(status, Format("external data file '{}'", range.location));
}

std::vector<SourceFile> ExternalDataReader::Stamps() const {
  std::vector<SourceFile> stamps;
  for (const auto& [location, file] : files_)
    stamps.push_back({(fs::path(folder_) / location).string(), file.stamp()});
  return stamps;
}

}  // namespace octet
