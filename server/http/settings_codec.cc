#include "server/http/settings_codec.h"

#include "engine/tensor/status.h"
#include "server/http/json_reader.h"
#include "server/http/json_writer.h"

namespace octet {

absl::Status ReadLogSettings(std::string_view text, inference::LogSettingsRequest& request) {
  return ReadObject(text, [&](JsonReader& json, const std::string& key) -> absl::Status {
    auto& setting = (*request.mutable_settings())[key];
    switch (json.Next()) {
      case JsonReader::Kind::kText:
        return json.Text(*setting.mutable_string_param());
      case JsonReader::Kind::kTruth: {
        OCTET_ASSIGN_OR_RETURN(const bool truth, json.Truth());
        setting.set_bool_param(truth);
        return absl::OkStatus();
      }
      default: {
        OCTET_ASSIGN_OR_RETURN(const std::string_view number, json.Number());
        const absl::StatusOr<uint32_t> value = ConvertNumber<uint32_t>(number);
        if (!value.ok()) return Annotate(value.status(), key);
        setting.set_uint32_param(*value);
        return absl::OkStatus();
      }
    }
  });
}

std::string LogSettingsJson(const inference::LogSettingsResponse& response) {
  using Setting = inference::LogSettingsResponse::SettingValue;
  std::string json = "{";
  for (const auto& [name, setting] : response.settings()) {
    if (json.size() > 1) json += ',';
    AppendJsonText(name, json);
    json += ':';
    if (setting.parameter_choice_case() == Setting::kBoolParam) {
      json += setting.bool_param() ? "true" : "false";
    } else if (setting.parameter_choice_case() == Setting::kUint32Param) {
      json += std::to_string(setting.uint32_param());
    } else {
      AppendJsonText(setting.string_param(), json);
    }
  }
  return json + "}";
}

absl::Status ReadTraceSettings(std::string_view text, inference::TraceSettingRequest& request) {
  return ReadObject(text, [&](JsonReader& json, const std::string& key) -> absl::Status {
    auto& values = *(*request.mutable_settings())[key].mutable_value();
    if (json.Next() == JsonReader::Kind::kNull) return json.Skip().status();
    const auto value = [&]() -> absl::Status {
      if (json.Next() == JsonReader::Kind::kText) return json.Text(*values.Add());
      OCTET_ASSIGN_OR_RETURN(const std::string_view number, json.Number());
      *values.Add() = number;
      return absl::OkStatus();
    };
    return json.Next() == JsonReader::Kind::kArray ? json.Array(value) : value();
  });
}

std::string TraceSettingsJson(const inference::TraceSettingResponse& response) {
  std::string json = "{";
  for (const auto& [name, setting] : response.settings()) {
    if (json.size() > 1) json += ',';
    AppendJsonText(name, json);
    // Clients of this protocol expect a list of levels, and texts for the rest.
    const bool list = name == "trace_level";
    json += list ? ":[" : ":";
    for (int i = 0; i < setting.value_size(); ++i) {
      if (i > 0) json += ',';
      AppendJsonText(setting.value(i), json);
    }
    if (list) json += ']';
  }
  return json + "}";
}

}  // namespace octet
