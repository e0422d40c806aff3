#include "cli/rounding_options.h"

namespace octet::cli {

void AddRoundingOptions(CLI::App& verb, QuantizeRecipe& recipe) {
  verb.add_option_function<std::string>(
          "--activations",
          [&recipe](const std::string& name) { recipe.activation = *ParseActivationGrid(name); },
          "Grid of int8 activations: u8 and s8-asymmetric fit both ends of each value's range, s8 "
          "and u8-symmetric have zero in the middle (int8)")
      ->check(CLI::IsMember({"u8", "u8-symmetric", "s8", "s8-asymmetric"}))
      ->default_str(std::string(ActivationGridName(recipe.activation)));
  verb.add_flag("--per-tensor{false}", recipe.per_channel,
                "One weight scale per layer instead of one per output channel");
  verb.add_option(
          "--weight-bits", recipe.weight_bits,
          "8, or 4: an experiment, in which the weights between the first and the last layer, "
          "which keep 8 bits, lie on a grid of 4 bits; the file holds them in bytes and runs "
          "as INT8, no smaller and no faster (int8)")
      ->check(CLI::IsMember({4, 8}))
      ->capture_default_str();
  verb.add_flag("--equalize,!--no-equalize", recipe.equalize,
                "Even out the channels of activations before rounding them (int8)")
      ->capture_default_str();
  verb.add_flag("--smooth,!--no-smooth", recipe.smooth,
                "Where it evens out: move the reach of a normalization's channels into the weights "
                "behind it, too (int8; SmoothQuant)")
      ->capture_default_str();
  verb.add_flag(
          "--scale-concats,!--no-scale-concats", recipe.scale_concats,
          "Give the narrow inputs of a concatenation finer steps where the outputs gain by it "
          "(int8)")
      ->capture_default_str();
  verb.add_flag("--compensate,!--no-compensate", recipe.compensate,
                "Round each weight so that it takes up the errors of others (int8)")
      ->capture_default_str();
  verb.add_flag("--correct-bias,!--no-correct-bias", recipe.correct_bias,
                "Take the mean error of rounded weights out of the bias (int8)")
      ->capture_default_str();
  verb.add_flag("--fewer-roundings,!--no-fewer-roundings", recipe.fewer_roundings,
                "Leave real what a residual sum adds to a layer's exact sums, and what a last "
                "product with at most a hundredth of the weights reads (int8)")
      ->capture_default_str();
}

}  // namespace octet::cli
