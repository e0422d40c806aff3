#include "engine/tensor/utf8.h"

namespace octet {

CodePoint DecodeUtf8(std::string_view text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  if (lead < 0x80) return {lead, 1, true};
  const size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || at + bytes > text.size()) return {};
  char32_t point = lead & (0x7FU >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    const auto next = static_cast<unsigned char>(text[at + i]);
    if ((next & 0xC0U) != 0x80) return {};
    point = point << 6U | (next & 0x3FU);
  }
  const bool overlong = (bytes == 3 && point < 0x800) || (bytes == 4 && point < 0x10000);
  const bool surrogate = 0xD800 <= point && point < 0xE000;
  if (overlong || surrogate || point > kMaxCodePoint) return {};
  return {point, bytes, true};
}

bool IsUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const CodePoint next = DecodeUtf8(text, at);
    if (!next.valid) return false;
    at += next.bytes;
  }
  return true;
}

std::string Utf8Of(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const CodePoint next = DecodeUtf8(text, at);
    valid += next.valid ? text.substr(at, next.bytes) : "\uFFFD";
    at += next.bytes;
  }
  return valid;
}

void AppendUtf8(char32_t point, std::string& text) {
  // The lead byte of a form, then its six bits at a time.
  const auto append = [&](char32_t lead, int shift) {
    text.push_back(static_cast<char>(lead | point >> static_cast<unsigned>(shift)));
    for (shift -= 6; shift >= 0; shift -= 6)
      text.push_back(static_cast<char>(0x80U | (point >> static_cast<unsigned>(shift) & 0x3FU)));
  };
  if (point < 0x80) {
    append(0, 0);
  } else if (point < 0x800) {
    append(0xC0, 6);
  } else if (point < 0x10000) {
    append(0xE0, 12);
  } else {
    append(0xF0, 18);
  }
}

}  // namespace octet
