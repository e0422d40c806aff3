#include "cli/version.h"

#include "engine/engine.h"
#include "engine/tensor/format.h"

namespace octet::cli {

std::string VersionText() {
  return Format("octet {} (oneDNN {}, {})", OCTET_VERSION, OneDnnVersion(), DetectTarget(1).isa);
}

}  // namespace octet::cli
