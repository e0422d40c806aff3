#include "engine/onnx/names.h"

#include <cstddef>
#include <cstdint>

#include "engine/graph/graph.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Longer names are no names, and would make messages of any size.
constexpr size_t kMaxNameBytes = 1 << 12;

// The length of the UTF-8 sequence that starts `text`, 0 when there is none. Source: RFC 3629.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool overlong = (lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xf0 && byte(1) < 0x90);
  const bool surrogate = lead == 0xed && byte(1) > 0x9f;
  const bool beyond = lead == 0xf4 && byte(1) > 0x8f;
  return overlong || surrogate || beyond ? 0 : length;
}

}  // namespace

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

absl::Status CheckName(std::string_view name, std::string_view what) {
  if (name.size() > kMaxNameBytes) {
    return InvalidArgument("{} name is too long: {} bytes", what, name.size());
  }
  if (!IsUtf8(name)) return InvalidArgument("{} name is not UTF-8", what);
  return absl::OkStatus();
}

std::string NormalDomain(const std::string& domain) {
  return domain == "ai.onnx" ? std::string(kOnnxDomain) : domain;
}

}  // namespace octet
