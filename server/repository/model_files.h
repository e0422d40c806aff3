// What the repository's folder holds: model folders, version folders, variant files, and how each
// file was when it was looked at.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/precision.h"
#include "engine/tensor/file_stamp.h"

namespace octet {

/// True when `path` leads to a folder, links followed; false when it leads to something else, or nowhere. UNAVAILABLE when it
/// cannot be looked at.
absl::StatusOr<bool> IsFolder(const std::string& path);

/// The stamp of what `path` leads to, links followed; nullopt when it is no regular file, or cannot be looked at.
std::optional<FileStamp> StampOf(const std::string& path);

/// A precision's file in a version folder.
struct VariantFile {
  std::string path;
  /// Of the file, and of those beside it that belong to no variant by name: they may hold the
  /// tensors that ONNX keeps outside the file.
  std::vector<FileStamp> stamps;
  bool operator==(const VariantFile&) const = default;
};

/// models/<name>: its configuration and its versions.
struct ModelFiles {
  std::string folder;
  std::optional<FileStamp> config;   ///< Of model.yaml; nullopt when there is none.
  std::optional<FileStamp> rollout;  ///< Of rollout.yaml; nullopt when there is none.
  std::optional<FileStamp> labels;   ///< Of labels.txt; nullopt when there is none.
  std::map<int64_t, std::map<Precision, VariantFile>> versions;
  std::vector<std::string> ignored;  ///< Paths of entries that mean nothing here.
  bool operator==(const ModelFiles&) const = default;

  std::string config_path() const { return folder + "/model.yaml"; }
  std::string rollout_path() const { return folder + "/rollout.yaml"; }
  std::string labels_path() const { return folder + "/labels.txt"; }
};

/// The path of a precision's file in a version folder.
std::string VariantPath(const ModelFiles& model, int64_t version, Precision precision);

/// The archive of answers that the variants of a version are held to: golden.npz beside the file.
std::string GoldenPath(const std::string& variant_path);

/// True for what may name a model's folder: not empty, no slash, no dot in front, UTF-8, as gRPC's clients must write it and
/// Prometheus reads it.
bool IsModelName(std::string_view name);

/// Looks at the folder of one model. Version folders are positive integers without leading zeros;
/// files in them that are named after a precision are variants. NOT_FOUND when `root` has no such
/// folder, or a file system none of that name; UNAVAILABLE naming the path when something of it is there and cannot be looked at: a permission, a network's file
/// system that is away. What it holds is not known then, and nothing of it is gone.
absl::StatusOr<ModelFiles> ScanModel(const std::string& root, std::string_view name);

/// The folders of a repository.
struct RepositoryFiles {
  std::map<std::string, ModelFiles> models;
  std::map<std::string, absl::Status>
      unreadable;                    ///< Entries that ScanModel answers UNAVAILABLE of.
  std::vector<std::string> ignored;  ///< Paths of folders that have no model's name.
};

/// Looks at every folder of the repository. NOT_FOUND when `root` is no folder, UNAVAILABLE when it cannot be read.
absl::StatusOr<RepositoryFiles> ScanRepository(const std::string& root);

}  // namespace octet
