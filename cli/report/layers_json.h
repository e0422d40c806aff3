// A comparison of inner values as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "engine/engine.h"

namespace octet::cli {

/// samples, values, weights, unmatched: the fields of LayerComparison. "sqnr_db" is null where nothing differs ("equal" is true
/// then) and where it is no number.
nlohmann::ordered_json LayersAsJson(const LayerComparison& comparison);

}  // namespace octet::cli
