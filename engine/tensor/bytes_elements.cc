#include "engine/tensor/bytes_elements.h"

#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr size_t kLengthBytes = 4;

}  // namespace

void AppendBytesElement(std::string_view element, std::string& wire) {
  const auto length = static_cast<uint32_t>(element.size());
  for (int shift = 0; shift < 32; shift += 8) {
    wire.push_back(static_cast<char>((length >> shift) & 0xFF));
  }
  wire += element;
}

uint64_t BytesOnWire(std::span<const std::string_view> elements) {
  uint64_t bytes = 0;
  for (const std::string_view element : elements) bytes += kLengthBytes + element.size();
  return bytes;
}

absl::Status ReadBytesElements(std::string_view wire, uint64_t most,
                               std::vector<std::string_view>& elements) {
  while (!wire.empty()) {
    if (wire.size() < kLengthBytes) {
      return InvalidArgument("element {}: length, expected {} bytes, got {}", elements.size(),
                             kLengthBytes, wire.size());
    }
    // A few bytes on the wire are four times as many in memory: what nobody asked for is not read.
    if (elements.size() >= most)
      return InvalidArgument("elements, expected {} by the shape, got more", most);
    uint32_t length = 0;
    for (size_t i = 0; i < kLengthBytes; ++i) {
      length |= uint32_t{static_cast<unsigned char>(wire[i])} << (8 * i);
    }
    wire.remove_prefix(kLengthBytes);
    if (length > wire.size()) {
      return InvalidArgument("element {}: expected {} bytes by its length, got {}", elements.size(),
                             length, wire.size());
    }
    elements.push_back(wire.substr(0, length));
    wire.remove_prefix(length);
  }
  return absl::OkStatus();
}

}  // namespace octet
