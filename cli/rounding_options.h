// The options of every verb that makes an int8 file: how it rounds.
#pragma once

#include <CLI/CLI.hpp>

#include "engine/engine.h"

namespace octet::cli {

/// The names that AddRoundingOptions adds.
inline constexpr const char* kRoundingOptions[] = {
    "--activations",   "--per-tensor", "--weight-bits",  "--equalize",       "--smooth",
    "--scale-concats", "--compensate", "--correct-bias", "--fewer-roundings"};

/// Adds --activations, --per-tensor, --weight-bits, --equalize, --smooth, --scale-concats, --compensate, --correct-bias and --fewer-roundings, the last six with a --no- form, which write into
/// `recipe`. Requires: `recipe` lives until `verb` has been parsed.
void AddRoundingOptions(CLI::App& verb, QuantizeRecipe& recipe);

}  // namespace octet::cli
