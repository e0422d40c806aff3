// std::format whose machinery is compiled once. The standard library's is inline and costs every file that formats
// anything four seconds of compilation.
#pragma once

#include <format>
#include <string>
#include <string_view>
#include <utility>

namespace octet {

/// std::vformat. Thread-safety: pure.
std::string FormatArgs(std::string_view format, std::format_args args);

/// std::format: the format string is checked against the arguments when compiled.
template <typename... Args>
std::string Format(std::format_string<Args...> format, Args&&... args) {
  return FormatArgs(format.get(), std::make_format_args(args...));
}

}  // namespace octet
