// Code points in UTF-8. Source: RFC 3629.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace octet {

inline constexpr char32_t kMaxCodePoint = 0x10FFFF;

/// One code point and the bytes that it takes. A byte that begins none is alone, and not valid.
struct CodePoint {
  char32_t point = 0;
  size_t bytes = 1;
  bool valid = false;
};

/// What `text` has at byte `at`. Overlong forms, surrogates and what is above kMaxCodePoint are not valid.
/// Requires: at < text.size().
CodePoint DecodeUtf8(std::string_view text, size_t at);

/// True when every byte is one of a code point.
bool IsUtf8(std::string_view text);

/// The text with U+FFFD for each byte that is none of a code point: what protobuf and JSON take.
std::string Utf8Of(std::string_view text);

/// Requires: point <= kMaxCodePoint.
void AppendUtf8(char32_t point, std::string& text);

}  // namespace octet
