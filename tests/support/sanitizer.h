// What AddressSanitizer knows of the program, where it is in it: a macro would say so, too, but Abseil must not see that one.
#pragma once

#include <cstddef>
#include <optional>

// NOLINTNEXTLINE(bugprone-reserved-identifier): the sanitizer's own name; weak, as it is there in sanitized builds alone
extern "C" std::size_t __sanitizer_get_current_allocated_bytes() __attribute__((weak));

namespace octet {

inline bool IsSanitized() { return __sanitizer_get_current_allocated_bytes != nullptr; }

/// Bytes that are allocated now; nullopt without the sanitizer.
inline std::optional<std::size_t> SanitizedBytes() {
  if (!IsSanitized()) return std::nullopt;
  return __sanitizer_get_current_allocated_bytes();
}

}  // namespace octet
