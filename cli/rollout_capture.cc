#include "cli/rollout_capture.h"

#include "config/model_config.h"
#include "engine/engine.h"
#include "engine/tensor/status.h"
#include "server/http/capture_mark.h"

namespace octet::cli {
namespace {
namespace fs = std::filesystem;
}  // namespace

absl::Status CheckCaptureFolder(const nlohmann::json& server, const std::string& folder) {
  const auto captures = server.find("captures");
  if (captures == server.end() || captures->is_null()) {
    return InvalidArgument(
        "--captures: the server's configuration has no capture.path: it captures nothing");
  }
  const auto path = captures->at("path").get<std::string>();
  const nlohmann::json mark = captures->value("mark", nlohmann::json());
  std::error_code error;
  const bool is_same = mark.is_null() ? fs::equivalent(path, folder, error)
                                      : mark.get<std::string>() == CaptureMark(folder);
  if (is_same) return absl::OkStatus();
  return InvalidArgument(
      "--captures: not the folder that the server captures to: its capture.path is '{}', got '{}'",
      path, folder);
}

absl::StatusOr<bool> Redacts(const std::string& folder) {
  std::error_code error;
  if (!fs::exists(folder + "/model.yaml", error)) return false;
  OCTET_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(folder + "/model.yaml"));
  return config.capture && !config.capture->redact.empty();
}

CapturedFile LargestCapture(const std::string& folder, fs::file_time_type began) {
  CapturedFile largest;
  std::error_code error;
  for (auto it = fs::directory_iterator(folder, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    std::error_code gone;  // replaced this moment
    const fs::file_time_type written = fs::last_write_time(it->path(), gone);
    if (it->path().extension() != ".npz" || gone || written < began) continue;
    const auto arrays = ReadNpz(it->path().string());
    if (!arrays.ok() || arrays->empty()) continue;
    const Shape& shape = arrays->begin()->second.shape();
    if (shape.rank() > 0 && shape[0] > largest.samples) {
      largest = {it->path().string(), written, shape[0]};
    }
  }
  return largest;
}

}  // namespace octet::cli
