// Where training stands, in a file, so that it goes on where it was stopped.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/train/optimizer.h"
#include "engine/train/parameter.h"
#include "engine/train/train.h"

namespace octet::train {

/// What decides every bit of training: a checkpoint serves whoever has the same.
struct Origin {
  uint64_t model = 0;  ///< MarkOf the fp32 graph.
  uint64_t data = 0;   ///< MarkOf the samples, and the labels where they teach.
  uint64_t start = 0;  ///< MarkOf the quantized graph that training begins with.
  int64_t samples = 0;
  std::vector<std::pair<std::string, std::string>>
      options;  ///< Names and values, always the same names.
};

/// Where training stands between two mini-batches, beside parameters and optimizer. Random numbers need no place: those of a
/// mini-batch follow from the seed, its epoch and its place in it.
struct Progress {
  std::vector<TrainEpoch> epochs;  ///< Those that are done, epoch 0 among them.
  int best_epoch = 0;
  std::vector<std::vector<float>> best;  ///< What the parameters were in it.
  int64_t batch = 0;                     ///< Mini-batches of the next epoch that are done.
  double loss_sum = 0;                   ///< Over these.
};

/// Writes an .npz archive that NumPy reads, whole or not at all (WriteNpz):
///   version, marks, samples          what it is; model, data and start of the origin
///   options/names, options/values    as texts
///   progress                         epochs done, best epoch, mini-batches of the next one, steps of the optimizer
///   curve                            per epoch: train loss (NaN: none), held-back loss, agreement, sureness, seconds
///   loss_sum                         over the mini-batches of the next epoch
///   parameters/names, sizes, values, best, first, second, average
///                                    the parameters one behind the other, with the optimizer's moments and averages of each
/// Errors: as WriteNpz. Requires: an epoch is done.
absl::Status WriteCheckpoint(const Origin& origin, const Progress& progress,
                             std::span<Parameter* const> parameters,
                             const Optimizer::State& optimizer, const std::string& path);

/// Puts what the file holds into progress, parameters and optimizer, which are those of training that begins.
/// Errors: as ReadNpz; INVALID_ARGUMENT naming the file and the array, where it is malformed, or what differs, where it is of another
/// origin; nothing has been changed then. Source of the order: the network's parameters().
absl::Status ReadCheckpoint(const std::string& path, const Origin& origin, int epochs,
                            int64_t batches_per_epoch, Progress& progress,
                            std::span<Parameter* const> parameters, Optimizer::State& optimizer);

}  // namespace octet::train
