#include "server/rpc/trace_settings.h"

#include <array>
#include <charconv>
#include <utility>

#include "engine/tensor/status.h"

namespace octet {
namespace {

using TraceValues = inference::TraceSettingRequest::SettingValue;

constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kFixedSettings = {{
    {"trace_mode", "opentelemetry"},
    {"trace_file", ""},
    {"log_frequency", "0"},
}};

/// Nothing for a setting that is set back. INVALID_ARGUMENT for more than one value.
absl::StatusOr<std::optional<std::string>> OnlyValue(const std::string& name,
                                                     const TraceValues& values) {
  if (values.value().empty()) return std::nullopt;
  if (values.value_size() > 1) {
    return InvalidArgument("trace setting \"{}\": expected one value, got {}", name,
                           values.value_size());
  }
  return values.value(0);
}

absl::Status ReadNumber(const std::string& name, const std::optional<std::string>& text,
                        int64_t least, std::optional<int64_t>& number) {
  number.reset();
  if (!text) return absl::OkStatus();
  int64_t value = 0;
  const char* end = text->data() + text->size();
  const auto [stopped, error] = std::from_chars(text->data(), end, value);
  if (error != std::errc() || stopped != end || value < least) {
    return InvalidArgument("trace setting \"{}\": expected a whole number >= {}, got \"{}\"", name,
                           least, *text);
  }
  number = value;
  return absl::OkStatus();
}

absl::Status ReadLevel(const std::optional<std::string>& text, std::optional<bool>& on) {
  on.reset();
  if (!text) return absl::OkStatus();
  if (*text != "TIMESTAMPS" && *text != "OFF") {
    return InvalidArgument(
        "trace setting \"trace_level\": expected \"TIMESTAMPS\" or \"OFF\", got \"{}\"", *text);
  }
  on = *text == "TIMESTAMPS";
  return absl::OkStatus();
}

absl::Status ReadTraceSetting(const std::string& name, const TraceValues& values,
                              TraceSettings& settings) {
  OCTET_ASSIGN_OR_RETURN(const std::optional<std::string> value, OnlyValue(name, values));
  if (name == "trace_level") return ReadLevel(value, settings.on);
  if (name == "trace_rate") return ReadNumber(name, value, 1, settings.rate);
  if (name == "trace_count") return ReadNumber(name, value, -1, settings.count);
  for (const auto& [fixed, text] : kFixedSettings) {
    if (name == fixed && value.value_or(std::string(text)) == text) return absl::OkStatus();
  }
  return InvalidArgument("trace setting \"{}\" cannot be changed here", name);
}

}  // namespace

absl::Status ChangeTraceSettings(Tracer* tracer, const inference::TraceSettingRequest& request,
                                 inference::TraceSettingResponse& response) {
  const std::string& model = request.model_name();
  if (!request.settings().empty()) {
    TraceSettings settings = tracer == nullptr ? TraceSettings() : tracer->Told(model);
    for (const auto& [name, values] : request.settings()) {
      OCTET_RETURN_IF_ERROR(ReadTraceSetting(name, values, settings));
    }
    if (tracer == nullptr) {
      return absl::FailedPreconditionError(
          "trace settings cannot be changed: tracing.otlp_endpoint names no collector");
    }
    tracer->Tell(model, settings);
  }
  const TraceSettings now = tracer == nullptr ? TraceSettings{.on = false, .rate = 0, .count = 0}
                                              : tracer->Effective(model);
  auto& settings = *response.mutable_settings();
  settings["trace_level"].add_value(*now.on ? "TIMESTAMPS" : "OFF");
  settings["trace_rate"].add_value(std::to_string(*now.rate));
  settings["trace_count"].add_value(std::to_string(*now.count));
  for (const auto& [name, text] : kFixedSettings) {
    settings[std::string(name)].add_value(std::string(text));
  }
  return absl::OkStatus();
}

}  // namespace octet
