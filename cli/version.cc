#include "cli/version.h"

#include <format>

#include "engine/engine.h"

namespace octet::cli {

std::string VersionText() {
  return std::format("octet {} (oneDNN {}, {})", OCTET_VERSION, OneDnnVersion(),
                     DetectTarget(1).isa);
}

}  // namespace octet::cli
