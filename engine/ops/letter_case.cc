#include "engine/ops/letter_case.h"

#include <clocale>
#include <cwctype>

#include "engine/tensor/status.h"
#include "engine/tensor/utf8.h"

namespace octet {
namespace {

/// Null when there is none. Made once; lives as long as the process.
locale_t Unicode() {
  static const locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  return locale;
}

}  // namespace

std::string InCase(LetterCase letters, std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const CodePoint letter = DecodeUtf8(text, at);
    if (letter.valid) {
      const auto wide = static_cast<wint_t>(letter.point);
      AppendUtf8(
          letters == LetterCase::kLower ? towlower_l(wide, Unicode()) : towupper_l(wide, Unicode()),
          result);
    } else {
      result.push_back(text[at]);
    }
    at += letter.bytes;
  }
  return result;
}

absl::Status CheckLetterCase() {
  if (Unicode() != nullptr) return absl::OkStatus();
  return Unimplemented("unsupported change of case: this system lacks the locale C.UTF-8");
}

}  // namespace octet
