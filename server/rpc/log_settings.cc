#include "server/rpc/log_settings.h"

#include <algorithm>

#include "engine/tensor/status.h"
#include "server/logging/event_log.h"

namespace octet {
namespace {

using Setting = inference::LogSettingsRequest::SettingValue;

/// What is logged, one by one.
struct Logged {
  bool error = false;
  bool warning = false;
  bool info = false;
  uint32_t verbose = 0;
  bool operator==(const Logged&) const = default;
};

constexpr uint32_t kMostVerbose = 2;

Logged ToLogged(LogLevel level) {
  return {.error = level <= LogLevel::kError,
          .warning = level <= LogLevel::kWarn,
          .info = level <= LogLevel::kInfo,
          .verbose = level == LogLevel::kTrace   ? kMostVerbose
                     : level == LogLevel::kDebug ? 1U
                                                 : 0U};
}

absl::Status ReadBool(const std::string& name, const Setting& setting, bool& value) {
  if (!setting.has_bool_param()) {
    return InvalidArgument("log setting \"{}\": expected true or false", name);
  }
  value = setting.bool_param();
  return absl::OkStatus();
}

absl::Status ReadSetting(const std::string& name, const Setting& setting, Logged& logged) {
  if (name == "log_error") return ReadBool(name, setting, logged.error);
  if (name == "log_warning") return ReadBool(name, setting, logged.warning);
  if (name == "log_info") return ReadBool(name, setting, logged.info);
  if (name == "log_verbose_level") {
    if (!setting.has_uint32_param()) {
      return InvalidArgument("log setting \"{}\": expected a whole number", name);
    }
    logged.verbose = std::min(setting.uint32_param(), kMostVerbose);
    return absl::OkStatus();
  }
  const bool unchanged = (name == "log_file" && setting.string_param().empty()) ||
                         (name == "log_format" && setting.string_param() == "default");
  if (unchanged) return absl::OkStatus();
  return InvalidArgument("log setting \"{}\" cannot be changed here", name);
}

}  // namespace

absl::Status ChangeLogSettings(const inference::LogSettingsRequest& request,
                               inference::LogSettingsResponse& response) {
  LogLevel level = LeastSevereLogged();
  if (!request.settings().empty()) {
    Logged wanted = ToLogged(level);
    for (const auto& [name, setting] : request.settings()) {
      OCTET_RETURN_IF_ERROR(ReadSetting(name, setting, wanted));
    }
    level = LogLevel::kTrace;
    while (level < LogLevel::kOff && ToLogged(level) != wanted) {
      level = static_cast<LogLevel>(static_cast<int>(level) + 1);
    }
    if (ToLogged(level) != wanted) {
      return InvalidArgument(
          "log settings: what is logged includes all that is more severe, got error {}, warning "
          "{}, "
          "info {}, verbose {}",
          wanted.error, wanted.warning, wanted.info, wanted.verbose);
    }
    SetLeastSevereLogged(level);
  }
  const Logged logged = ToLogged(level);
  auto& settings = *response.mutable_settings();
  settings["log_error"].set_bool_param(logged.error);
  settings["log_warning"].set_bool_param(logged.warning);
  settings["log_info"].set_bool_param(logged.info);
  settings["log_verbose_level"].set_uint32_param(logged.verbose);
  settings["log_file"].set_string_param("");
  settings["log_format"].set_string_param("default");
  return absl::OkStatus();
}

}  // namespace octet
