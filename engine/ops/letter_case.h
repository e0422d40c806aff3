// Upper and lower case of letters in UTF-8.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace octet {

enum class LetterCase : uint8_t { kLower, kUpper };

/// `text` in another case, letter by letter as Unicode maps them: those of one code point to one, in no language's own way
/// (so the capital of a dotless i is not special). Bytes that are no UTF-8 stay as they are. Requires: CheckLetterCase.
/// Thread-safety: pure.
std::string InCase(LetterCase letters, std::string_view text);

/// UNIMPLEMENTED when the system lacks the tables: glibc has them in its locale C.UTF-8.
absl::Status CheckLetterCase();

}  // namespace octet
