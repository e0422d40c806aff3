// How far a model's outputs move with what rounding moves, by the backward pass of training.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/calibration.h"
#include "engine/quantize/output_gains.h"
#include "engine/quantize/recipe.h"

namespace octet::train {

/// Quantizes the model plainly and sends random gradients of the outputs back through it, u ~ N(0, 1) for each output of a sample, on up
/// to 512 samples drawn by `seed`: the mean of the squares of what arrives is what the squares of all the outputs' derivatives add up to.
/// Before a last Softmax u has no mean over the classes, which changes no share. Errors: as Quantize and Network::Build;
/// SampleSource::Read; CANCELLED when `run.progress` says so.
/// Requires: inputs of F32; samples of one shape. Source: Hutchinson, A Stochastic Estimator of the Trace of the Influence Matrix (1990).
absl::StatusOr<OutputGains> MeasureGains(const Graph& fp32, const QuantizeRecipe& recipe,
                                         const CalibrationData& set, const CalibrationRun& run,
                                         uint64_t seed);

}  // namespace octet::train
