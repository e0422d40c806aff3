// What makes more samples of those that are there.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "absl/status/status.h"

#include "engine/quantize/input_grids.h"
#include "engine/tensor/tensor.h"
#include "engine/train/model_samples.h"

namespace octet::train {

/// What a row is blended with, and how much of it stays.
struct Blend {
  int64_t other = 0;  ///< A sample.
  float t = 0;
};

/// One of `others`, and t uniform in [0, 1).
Blend DrawBlend(std::span<const int64_t> others, std::mt19937_64& random);

/// Blends a row of a batch with another sample: x = t x + (1 - t) x'. `grids`:
/// per input the grid of each channel (SensorGrids), to whose nearest integers blends are rounded, as a sensor would have given them:
/// the int8 file's input rounds to these too, and what lies between them it answers to with an error that no training can mend; or none.
/// Requires: FP32 samples. Errors: as SampleSource::Read.
absl::Status BlendRow(const ModelSamples& samples, std::span<const std::vector<ChannelGrid>> grids,
                      const Blend& blend, size_t row, std::vector<Tensor>& batch);

/// How samples [N, C, spatial...] are moved.
struct Moves {
  bool flip = false;  ///< Half of the samples are mirrored along their last axis.
  int64_t shift =
      0;  ///< Along each spatial axis by -shift to shift elements, those of the border repeated.

  bool any() const { return flip || shift > 0; }
};

/// Moves each row of each input by itself, the same way in all its channels. Inputs without spatial axes stay. Requires: FP32 samples.
void MoveSamples(const Moves& moves, std::mt19937_64& random, std::vector<Tensor>& batch);

}  // namespace octet::train
