#include "cli/rollout_capture.h"

#include <cerrno>
#include <fstream>
#include <memory>
#include <system_error>

#include "config/model_config.h"
#include "engine/engine.h"
#include "engine/tensor/pending_file.h"
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

absl::StatusOr<CapturedFile> LargestCapture(const std::string& folder, fs::file_time_type began) {
  CapturedFile largest;
  std::error_code error;
  for (auto it = fs::directory_iterator(folder, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    const std::string path = it->path().string();
    std::error_code gone;  // replaced this moment
    const fs::file_time_type written = fs::last_write_time(path, gone);
    if (it->path().extension() != ".npz" || gone || written < began) continue;
    if (!std::ifstream(path) && errno == EACCES) return SystemError("read", path, EACCES);
    const auto arrays = OpenNpz(path, {.spool = std::make_shared<Spool>()});
    if (!arrays.ok() || arrays->empty()) continue;
    const Shape& shape = arrays->begin()->second->spec().shape;
    if (shape.rank() > 0 && shape[0] > largest.samples) largest = {path, written, shape[0]};
  }
  // Until the server has written it is not there.
  if (error && error != std::errc::no_such_file_or_directory) {
    return SystemError("read", folder, error.value());
  }
  return largest;
}

}  // namespace octet::cli
