// One line per event: time, level, event, then key=value pairs that a machine can take apart.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <variant>

#include "absl/status/status.h"

namespace octet {

enum class LogLevel : uint8_t { kTrace, kDebug, kInfo, kWarn, kError, kOff };

/// A key and its value; the value is quoted and escaped when it needs to be, so that an event is one line.
struct LogField {
  std::string_view key;
  std::variant<std::string_view, int64_t, uint64_t, double, bool> value;
};

/// Sets the least severe level that is written to stderr (spdlog, flushed per line). INVALID_ARGUMENT for an unknown
/// name. Call once, before threads start.
absl::Status ConfigureLog(std::string_view level);
/// True when an event of this level would be written: asked before fields are made on hot paths.
bool Logs(LogLevel level);
/// Writes `time=2026-01-31T12:00:00.000Z level=info event=model_loaded model=resnet seconds=0.41`.
/// Thread-safety: safe.
void LogEvent(LogLevel level, std::string_view event, std::initializer_list<LogField> fields);

}  // namespace octet
