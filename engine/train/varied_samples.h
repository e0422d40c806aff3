// What makes more samples of those that are there.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "engine/quantize/input_grids.h"
#include "engine/tensor/tensor.h"

namespace octet::train {

/// Blends the rows from `first` on with other samples: x = t x + (1 - t) x', t uniform in [0, 1), x' being one of `others`. `grids`:
/// per input the grid of each channel (SensorGrids), to whose nearest integers blends are rounded, as a sensor would have given them:
/// the int8 file's input rounds to these too, and what lies between them it answers to with an error that no training can mend; or none.
/// Requires: FP32 samples.
void BlendSamples(std::span<const Tensor> samples, std::span<const std::vector<ChannelGrid>> grids,
                  std::span<const int64_t> others, size_t first, std::mt19937_64& random,
                  std::vector<Tensor>& batch);

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
