// The options of `octet quantize` that keep layers in float, and what it prints about them.
#pragma once

#include <cstdint>
#include <optional>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "engine/engine.h"

namespace octet::cli {

struct MixedOptions {
  std::optional<double> max_drop;
  std::optional<double> min_agreement;
  std::optional<double> min_sqnr_db;
  bool all_int8 = false;
  uint64_t seed = 0;

  /// Adds --max-drop, --min-agreement, --min-sqnr-db and --all-int8, one of which may be given, and --seed.
  /// Requires: this lives until `verb` has been parsed.
  void AddTo(CLI::App& verb);
  AccuracyFloor Floor() const;
};

/// null: an SQNR of outputs without noise, and what needs labels or class scores that are not there.
nlohmann::ordered_json MixedAsJson(const MixedPrecision& mixed);
/// Prints the front of accuracy against latency, the mixture that was written marked, and what stays in float. Requires: made by MixedAsJson.
void PrintMixed(const nlohmann::ordered_json& mixed);

}  // namespace octet::cli
