// What an option that is a number takes.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

#include "engine/tensor/format.h"

namespace octet::cli {

/// Refuses what is no number in [low, high], before the verb runs: NaN too, of which CLI::Range and CLI::PositiveNumber find nothing
/// to say, and with which no value compares, so that a floor that is NaN would hold of everything.
inline CLI::Validator FiniteRange(double low, double high) {
  const auto check = [low, high](std::string& text) -> std::string {
    double value = 0;
    if (CLI::detail::lexical_cast(text, value) && value >= low && value <= high) return {};
    return Format("Value {} not in range [{} - {}]", text, low, high);
  };
  return CLI::Validator(check, Format("FLOAT in [{} - {}]", low, high));
}

}  // namespace octet::cli
