// Which answered requests are copied to another precision, to be compared: a pure function.
#pragma once

#include <cstdint>

#include "config/model_config.h"
#include "engine/graph/precision.h"

namespace octet {

/// Why a copy did not run; also the label of the metric that counts it.
enum class ShadowDrop : uint8_t {
  kQueueFull,  ///< Too many wait, or too much memory is held by them.
  kNotReady,   ///< Its precision is not loaded.
  kUnloaded,   ///< The model was unloaded or replaced while it waited.
  kDraining,   ///< The server is shutting down.
};

/// True when answers of `answered` are compared at all.
bool Compares(const ModelConfig::Routing::Shadow& rule, Precision answered);

/// What is known of a request that was answered.
struct ShadowFacts {
  Precision answered = Precision::kFp32;
  double draw = 0;  ///< Uniform in [0, 1), independent of the one that routed it.
};

/// True when it is to be copied: `percent` of all requests that the rule compares.
bool WantsCopy(const ModelConfig::Routing::Shadow& rule, const ShadowFacts& facts);

}  // namespace octet
