// One line per event: time, level, event, then key=value pairs that a machine can take apart.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/status.h"

namespace octet {

enum class LogLevel : uint8_t { kTrace, kDebug, kInfo, kWarn, kError, kOff };

/// A key and its value. Text is quoted where it needs to be: `"` and `\` are written `\"` and `\\`,
/// a line end `\n`, other control characters `\xNN`, so that an event is one line whatever it says.
struct LogField {
  std::string_view key;
  std::variant<std::string_view, int64_t, uint64_t, double, bool> value;
};

/// Sets the least severe level that is written to stderr ("info" until then). INVALID_ARGUMENT for
/// an unknown name. Thread-safety: safe.
absl::Status ConfigureLog(std::string_view level);

/// The level that ConfigureLog set, and the same by its number. Thread-safety: safe.
LogLevel LeastSevereLogged();
void SetLeastSevereLogged(LogLevel level);

/// True when an event of this level would be written: asked before fields are made on hot paths.
bool Logs(LogLevel level);

/// `level=info event=model_loaded model=resnet seconds=0.41`: an event without its time.
std::string EventText(LogLevel level, std::string_view event,
                      std::initializer_list<LogField> fields);

/// Writes `time=2026-01-31T12:00:00.000Z` and EventText as one line, and flushes it. Never throws.
/// Thread-safety: safe.
void LogEvent(LogLevel level, std::string_view event, std::initializer_list<LogField> fields);

}  // namespace octet
