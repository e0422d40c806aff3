// BYTES on the wire of the Open Inference Protocol: each element is its length in 4 bytes, little-endian, and then itself.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace octet {

/// Appends one element. Requires: element.size() < 2^32.
void AppendBytesElement(std::string_view element, std::string& wire);

/// What elements take on the wire.
uint64_t BytesOnWire(std::span<const std::string_view> elements);

/// Appends views of all elements that `wire` holds, `most` in all. INVALID_ARGUMENT for more, and naming the element whose
/// length, or the rest of which, is not there.
absl::Status ReadBytesElements(std::string_view wire, uint64_t most,
                               std::vector<std::string_view>& elements);

}  // namespace octet
