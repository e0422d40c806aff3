// What a server has captured of a model's traffic, for a rollout to calibrate with.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

namespace octet::cli {

/// INVALID_ARGUMENT unless `folder` is the one that a server captures to: it may have another path there, in a container for
/// instance, and is known by its CaptureMark; by its path where the server tells none. `server` is RolloutLook's.
absl::Status CheckCaptureFolder(const nlohmann::json& server, const std::string& folder);

/// Whether inputs of the model in `folder` are kept as zeros when requests are captured. Errors: as LoadModelConfig.
absl::StatusOr<bool> Redacts(const std::string& folder);

/// A file of captured requests.
struct CapturedFile {
  std::string path;
  std::filesystem::file_time_type written;
  int64_t samples = 0;
};

/// Of the archives in `folder` that are newer than `began` the one with the most samples; 0 without any, or without the folder.
/// INVALID_ARGUMENT naming the one that is there and may not be read: as the server's user alone may.
absl::StatusOr<CapturedFile> LargestCapture(const std::string& folder,
                                            std::filesystem::file_time_type began);

/// Tells when a server's sample is full: its files are written anew only when requests came in, and then hold no more than
/// before, as others had to go.
class FullSample {
 public:
  /// After one more look at the largest file.
  bool Look(const CapturedFile& now) {
    if (now.samples > last_.samples) {
      rewritten_ = 0;
    } else if (now.samples > 0 && now.written != last_.written) {
      ++rewritten_;
    }
    last_ = now;
    return rewritten_ >= kLooks;
  }

 private:
  static constexpr int kLooks = 2;  // One may be that of a sample that began anew.
  CapturedFile last_;
  int rewritten_ = 0;  ///< Since it grew.
};

}  // namespace octet::cli
