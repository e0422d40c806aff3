#include "server/repository/model_files.h"

#include <charconv>
#include <filesystem>
#include <system_error>

#include <sys/stat.h>

#include "engine/tensor/status.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kOnnx = ".onnx";

/// The names in a folder, sorted; those that begin with a dot are somebody else's business.
absl::StatusOr<std::vector<std::string>> Names(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto it = fs::directory_iterator(folder, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    std::string name = it->path().filename().string();
    if (!name.starts_with('.')) names.push_back(std::move(name));
  }
  if (error) return NotFound("cannot read folder ({}): '{}'", error.message(), folder.string());
  std::ranges::sort(names);
  return names;
}

bool IsFolder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
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

void ScanVersion(const fs::path& folder, std::map<Precision, VariantFile>& variants,
                 std::vector<std::string>& ignored) {
  const auto names = Names(folder);
  if (!names.ok()) return;  // gone meanwhile
  std::vector<FileStamp> beside;
  for (const std::string& name : *names) {
    const std::string path = folder / name;
    const std::optional<FileStamp> stamp = StampOf(path);
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
}

}  // namespace

std::optional<FileStamp> StampOf(const std::string& path) {
  struct stat info{};
  if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  return FileStamp{.modified_ns = info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec,
                   .bytes = static_cast<uint64_t>(info.st_size),
                   .inode = info.st_ino};
}

std::string VariantPath(const ModelFiles& model, int64_t version, Precision precision) {
  return Format("{}/{}/{}{}", model.folder, version, PrecisionName(precision), kOnnx);
}

std::string GoldenPath(const std::string& variant_path) {
  return (fs::path(variant_path).parent_path() / "golden.npz").string();
}

bool IsModelName(std::string_view name) {
  return !name.empty() && !name.starts_with('.') && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

absl::StatusOr<ModelFiles> ScanModel(const std::string& root, std::string_view name) {
  const fs::path folder = fs::path(root) / name;
  if (!IsModelName(name) || !IsFolder(folder)) {
    return NotFound("the repository has no such model: '{}'", name);
  }
  OCTET_ASSIGN_OR_RETURN(const std::vector<std::string> entries, Names(folder));
  ModelFiles model{.folder = folder.string()};
  model.config = StampOf(model.config_path());
  model.rollout = StampOf(model.rollout_path());
  for (const std::string& entry : entries) {
    const fs::path path = folder / entry;
    const std::optional<int64_t> version = VersionOf(entry);
    if (version && IsFolder(path)) {
      ScanVersion(path, model.versions[*version], model.ignored);
    } else if (!(model.config && entry == "model.yaml") &&
               !(model.rollout && entry == "rollout.yaml")) {
      model.ignored.push_back(path.string());
    }
  }
  return model;
}

absl::StatusOr<std::map<std::string, ModelFiles>> ScanRepository(const std::string& root) {
  OCTET_ASSIGN_OR_RETURN(const std::vector<std::string> names, Names(root));
  std::map<std::string, ModelFiles> models;
  for (const std::string& name : names) {
    auto model = ScanModel(root, name);
    if (model.ok()) models.emplace(name, *std::move(model));
  }
  return models;
}

}  // namespace octet
