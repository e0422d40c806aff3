#include "server/logging/event_log.h"

#include <algorithm>
#include <array>
#include <format>
#include <iterator>
#include <memory>

#include "spdlog/pattern_formatter.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

#include "engine/tensor/format.h"
#include "engine/tensor/utf8.h"

namespace octet {
namespace {

constexpr std::array<std::string_view, 6> kLevelNames = {"trace", "debug", "info",
                                                         "warn",  "error", "off"};

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return spdlog::level::trace;
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      return spdlog::level::off;
  }
  return spdlog::level::off;
}

spdlog::logger& Logger() {
  // Never destroyed: threads that outlive main may still have something to say.
  static spdlog::logger* logger = [] {
    auto* made = new spdlog::logger("octet", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_formatter(std::make_unique<spdlog::pattern_formatter>(
        "time=%Y-%m-%dT%H:%M:%S.%eZ %v", spdlog::pattern_time_type::utc));
    made->flush_on(spdlog::level::trace);
    return made;
  }();
  return *logger;
}

/// Text that a reader which splits at blanks and `=` cannot take for more than one value, and which is UTF-8.
bool IsPlain(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const auto c = static_cast<unsigned char>(text[at]);
    if (c <= 0x20 || c == 0x7f || c == '"' || c == '=' || c == '\\') return false;
    const CodePoint code = DecodeUtf8(text, at);
    if (!code.valid) return false;
    at += code.bytes;
  }
  return !text.empty();
}

void AppendText(std::string& line, std::string_view text) {
  if (IsPlain(text)) {
    line += text;
    return;
  }
  line += '"';
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    const auto byte = static_cast<unsigned char>(c);
    const CodePoint code = DecodeUtf8(text, at);
    if (c == '"' || c == '\\') {
      line += '\\';
      line += c;
    } else if (c == '\n') {
      line += "\\n";
    } else if (byte < 0x20 || byte == 0x7f || !code.valid) {
      std::format_to(std::back_inserter(line), "\\x{:02x}", byte);
    } else {
      line += text.substr(at, code.bytes);
    }
    at += code.bytes;
  }
  line += '"';
}

void AppendValue(std::string& line, const LogField& field) {
  std::visit(
      [&line]<typename T>(const T& value) {
        if constexpr (std::is_same_v<T, std::string_view>) {
          AppendText(line, value);
        } else if constexpr (std::is_same_v<T, double>) {
          std::format_to(std::back_inserter(line), "{:.6g}", value);
        } else {
          std::format_to(std::back_inserter(line), "{}", value);
        }
      },
      field.value);
}

}  // namespace

absl::Status ConfigureLog(std::string_view level) {
  const auto found = std::ranges::find(kLevelNames, level);
  if (found == kLevelNames.end()) {
    return absl::InvalidArgumentError(
        Format("unknown log level, expected trace, debug, info, warn, error or off: {}", level));
  }
  SetLeastSevereLogged(static_cast<LogLevel>(found - kLevelNames.begin()));
  return absl::OkStatus();
}

void SetLeastSevereLogged(LogLevel level) { Logger().set_level(ToSpdlog(level)); }

LogLevel LeastSevereLogged() {
  const auto level = Logger().level();
  for (const LogLevel known :
       {LogLevel::kTrace, LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarn, LogLevel::kError}) {
    if (ToSpdlog(known) == level) return known;
  }
  return LogLevel::kOff;
}

bool Logs(LogLevel level) { return Logger().should_log(ToSpdlog(level)); }

std::string EventText(LogLevel level, std::string_view event,
                      std::initializer_list<LogField> fields) {
  std::string line = Format("level={} event=", kLevelNames[static_cast<size_t>(level)]);
  AppendText(line, event);
  for (const LogField& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    AppendValue(line, field);
  }
  return line;
}

void LogEvent(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  if (!Logs(level)) return;
  // As one string: spdlog's own formatting is not asked to look into it.
  Logger().log(ToSpdlog(level), spdlog::string_view_t(EventText(level, event, fields)));
}

}  // namespace octet
