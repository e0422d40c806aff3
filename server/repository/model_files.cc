#include "server/repository/model_files.h"

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <system_error>

#include <sys/stat.h>

#include "engine/tensor/status.h"
#include "engine/tensor/utf8.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kOnnx = ".onnx";

/// True for what says that there is nothing, be it a link that leads nowhere or a name that no file can have; else something is
/// there, and nobody knows what.
bool SaysAbsent(int error) {
  return error == ENOENT || error == ENOTDIR || error == ELOOP || error == ENAMETOOLONG ||
         error == EILSEQ || error == EINVAL;
}

absl::Status Unreadable(const fs::path& path, int error) {
  return MakeError(absl::StatusCode::kUnavailable, "cannot look at ({}): '{}'",
                   std::generic_category().message(error), path.string());
}

/// What `path` leads to, links followed; nullopt when there is nothing.
absl::StatusOr<std::optional<struct stat>> Look(const fs::path& path) {
  struct stat info{};
  if (stat(path.c_str(), &info) == 0) return info;
  if (SaysAbsent(errno)) return std::nullopt;
  return Unreadable(path, errno);
}

/// As StampOf, telling what is no file from what cannot be looked at.
absl::StatusOr<std::optional<FileStamp>> ReadStamp(const fs::path& path) {
  OCTET_ASSIGN_OR_RETURN(const std::optional<struct stat> info, Look(path));
  if (!info || !S_ISREG(info->st_mode)) return std::nullopt;
  return FileStamp::Of(*info);
}

/// The names in a folder, sorted; those that begin with a dot are somebody else's business.
absl::StatusOr<std::vector<std::string>> Names(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto it = fs::directory_iterator(folder, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    std::string name = it->path().filename().string();
    if (!name.starts_with('.')) names.push_back(std::move(name));
  }
  if (error && SaysAbsent(error.value())) {
    return NotFound("cannot read folder ({}): '{}'", error.message(), folder.string());
  }
  if (error) return Unreadable(folder, error.value());
  std::ranges::sort(names);
  return names;
}

/// The number that a version folder is named after.
std::optional<int64_t> VersionOf(std::string_view name) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  const bool whole = error == std::errc() && end == name.data() + name.size();
  if (!whole || number < 1 || name.starts_with('0')) return std::nullopt;
  return number;
}

/// The precision that a file is named after.
std::optional<Precision> PrecisionOf(std::string_view file) {
  if (!file.ends_with(kOnnx)) return std::nullopt;
  return ParsePrecision(file.substr(0, file.size() - kOnnx.size()));
}

absl::Status ScanVersion(const fs::path& folder, std::map<Precision, VariantFile>& variants,
                         std::vector<std::string>& ignored) {
  const auto names = Names(folder);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();  // gone meanwhile
  OCTET_RETURN_IF_ERROR(names.status());
  std::vector<FileStamp> beside;
  for (const std::string& name : *names) {
    const std::string path = folder / name;
    OCTET_ASSIGN_OR_RETURN(const std::optional<FileStamp> stamp, ReadStamp(path));
    const std::optional<Precision> precision = PrecisionOf(name);
    if (stamp && precision) {
      variants[*precision] = {path, {*stamp}};
    } else if (!stamp || name.ends_with(kOnnx)) {
      ignored.push_back(path);
    } else {
      beside.push_back(*stamp);
    }
  }
  for (auto& [unused, variant] : variants) {
    variant.stamps.insert(variant.stamps.end(), beside.begin(), beside.end());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<bool> IsFolder(const std::string& path) {
  OCTET_ASSIGN_OR_RETURN(const std::optional<struct stat> info, Look(path));
  return info && S_ISDIR(info->st_mode);
}

std::optional<FileStamp> StampOf(const std::string& path) {
  const auto stamp = ReadStamp(path);
  return stamp.ok() ? *stamp : std::nullopt;
}

std::string VariantPath(const ModelFiles& model, int64_t version, Precision precision) {
  return Format("{}/{}/{}{}", model.folder, version, PrecisionName(precision), kOnnx);
}

std::string GoldenPath(const std::string& variant_path) {
  return (fs::path(variant_path).parent_path() / "golden.npz").string();
}

bool IsModelName(std::string_view name) {
  return !name.empty() && !name.starts_with('.') && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos && IsUtf8(name);
}

absl::StatusOr<ModelFiles> ScanModel(const std::string& root, std::string_view name) {
  const fs::path folder = fs::path(root) / name;
  bool is_folder = IsModelName(name);
  if (is_folder) {
    OCTET_ASSIGN_OR_RETURN(is_folder, IsFolder(folder.string()));
  }
  if (!is_folder) return NotFound("the repository has no such model: '{}'", name);
  OCTET_ASSIGN_OR_RETURN(const std::vector<std::string> entries, Names(folder));
  ModelFiles model{.folder = folder.string()};
  OCTET_ASSIGN_OR_RETURN(model.config, ReadStamp(model.config_path()));
  OCTET_ASSIGN_OR_RETURN(model.rollout, ReadStamp(model.rollout_path()));
  OCTET_ASSIGN_OR_RETURN(model.labels, ReadStamp(model.labels_path()));
  for (const std::string& entry : entries) {
    const fs::path path = folder / entry;
    const std::optional<int64_t> version = VersionOf(entry);
    bool is_version = version.has_value();
    if (is_version) {
      OCTET_ASSIGN_OR_RETURN(is_version, IsFolder(path.string()));
    }
    if (is_version) {
      OCTET_RETURN_IF_ERROR(ScanVersion(path, model.versions[*version], model.ignored));
    } else if (!(model.config && entry == "model.yaml") &&
               !(model.rollout && entry == "rollout.yaml") &&
               !(model.labels && entry == "labels.txt")) {
      model.ignored.push_back(path.string());
    }
  }
  return model;
}

absl::StatusOr<RepositoryFiles> ScanRepository(const std::string& root) {
  OCTET_ASSIGN_OR_RETURN(const std::vector<std::string> names, Names(root));
  RepositoryFiles files;
  for (const std::string& name : names) {
    if (name == "lost+found") continue;  // the file system's, for nobody else to read
    if (!IsModelName(name)) {
      const std::string path = fs::path(root) / name;
      if (IsFolder(path).value_or(false)) files.ignored.push_back(path);
      continue;
    }
    auto model = ScanModel(root, name);
    if (model.ok()) {
      files.models.emplace(name, *std::move(model));
    } else if (!absl::IsNotFound(model.status())) {
      files.unreadable.emplace(name, model.status());
    }
  }
  return files;
}

}  // namespace octet
