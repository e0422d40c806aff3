// The certificate's rows as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "engine/engine.h"

namespace octet {

/// One object per layer: name, op, requested, runs, impl, isa, macs, reason.
nlohmann::ordered_json LayersAsJson(const Certificate& certificate);

}  // namespace octet
