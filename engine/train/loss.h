// What training makes small, and its gradient.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/train/train.h"

namespace octet::train {

/// What the outputs of some samples are held against.
struct Targets {
  std::span<const float>
      teacher;  ///< The fp32 model's outputs, as many as the network's; for the losses that it teaches.
  std::span<const int64_t> labels;  ///< One per row, for TrainLoss::kLabels; in [0, classes).
  /// A Softmax follows: what is added to all classes of a row alike changes nothing, and is no noise.
  bool shares = false;
};

/// How many rows of classes a batch of outputs [N, ...] is: N T of [N, T, C] with C > 1, as of a sequence; else N, classes along all
/// that is behind axis 0.
int64_t RowsOf(const Shape& outputs);

/// The loss of outputs z [rows, classes] as TrainLoss defines it. Writes its gradient by z,
/// unless `gradient` is empty. kNoise takes each row's mean out of z and the teacher's outputs where they become shares; of a teacher that answers 0 alone is the plain sum of squares.
double LossOf(TrainLoss loss, int64_t rows, std::span<const float> z, const Targets& targets,
              std::span<float> gradient = {});

/// What each row adds to the loss, times their count: the loss is their mean.
std::vector<double> LossesOf(TrainLoss loss, int64_t rows, std::span<const float> z,
                             const Targets& targets);

/// Rows whose largest output is where the teacher's is, or where the label says.
int64_t Agreements(TrainLoss loss, int64_t rows, std::span<const float> z, const Targets& targets);

}  // namespace octet::train
