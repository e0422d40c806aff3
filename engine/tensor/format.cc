#include "engine/tensor/format.h"

namespace octet {

std::string FormatArgs(std::string_view format, std::format_args args) {
  return std::vformat(format, args);
}

}  // namespace octet
