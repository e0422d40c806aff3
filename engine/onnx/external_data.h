// Tensor bytes that lie in files beside the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/onnx/byte_source.h"

namespace octet {

/// Where the bytes of one tensor lie (TensorProto.external_data).
struct ExternalRange {
  std::string location;  ///< File, relative to the model's folder.
  uint64_t offset = 0;
  std::optional<uint64_t> length;  ///< Absent: up to the end of the file.
};

/// Reads ranges of files inside one folder; files stay open between reads. Refuses whatever leads out of the
/// folder: absolute paths, "..", and links. Thread-safety: none.
class ExternalDataReader {
 public:
  /// `model_path` is the model's file; the data lie in its folder or below.
  explicit ExternalDataReader(const std::string& model_path);

  /// Checks that `range` holds `bytes` bytes before anything is allocated for them.
  /// Errors: NOT_FOUND, INVALID_ARGUMENT naming the location.
  absl::Status Check(const ExternalRange& range, uint64_t bytes);
  /// Fills `dst` from the start of `range`. Requires: Check(range, dst.size()) succeeded.
  absl::Status Read(const ExternalRange& range, std::span<std::byte> dst);

  /// Every file that was opened, by the path that the model gives it.
  std::vector<SourceFile> Stamps() const;

 private:
  absl::StatusOr<const OpenFile*> Find(const std::string& location);

  std::string folder_;
  std::map<std::string, OpenFile> files_;
};

}  // namespace octet
