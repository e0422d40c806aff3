#include "engine/onnx/names.h"

#include <cstddef>

#include "engine/graph/graph.h"
#include "engine/tensor/status.h"
#include "engine/tensor/utf8.h"

namespace octet {
namespace {

// Longer names are no names, and would make messages of any size.
constexpr size_t kMaxNameBytes = 1 << 12;

}  // namespace

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
