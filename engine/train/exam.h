// What decides which epoch is the best: samples that are not trained on, run as they will be served.
#pragma once

#include <random>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/train/loss.h"
#include "engine/train/model_samples.h"
#include "engine/train/runner.h"
#include "engine/train/train.h"
#include "engine/train/varied_samples.h"

namespace octet::train {

/// Standard errors by which an epoch has to be better than what training began with.
inline constexpr double kSure = 2;

/// True when the held-back loss of the last `patience` epochs came below that of no earlier one, surely or not.
bool IsOutOfPatience(std::span<const TrainEpoch> epochs, int patience);

/// Held-back samples with what is wanted of them. Where the fp32 model teaches, blends of them are added until there are
/// kFewestRows: it answers to any input, and of a few samples the best epoch would be the luckiest one. Rows are read, and blended,
/// batch by batch whenever they are run.
class Exam {
 public:
  static constexpr int64_t kFewestRows = 256;

  /// `grids`: as BlendRow has them. `labels`: of all samples, or none. `shares`: a Softmax follows. Errors: as Runner.
  static absl::StatusOr<Exam> Make(const ModelSamples& samples,
                                   std::span<const std::vector<ChannelGrid>> grids,
                                   std::span<const int64_t> held_back,
                                   std::span<const int64_t> labels, const TrainOptions& options,
                                   bool shares, Runner& teacher, std::mt19937_64& random);

  /// Takes the graph with the least mean loss, of equals the first, for what training begins with, and returns which one it is.
  /// Requires: one at least.
  absl::StatusOr<size_t> Begin(std::span<const Graph> starts, const CalibrationRun& run);
  /// Fills held_back_loss (of all rows), agreement (of the samples themselves) and sureness, running the graph in int8: with d[i] by how
  /// much sample i's loss is less than it was at the beginning, sureness = mean d / (deviation d / sqrt(samples)); kSure for a gain
  /// without deviation. Requires: Begin.
  absl::Status Measure(const Graph& int8, const CalibrationRun& run, TrainEpoch& row) const;

 private:
  explicit Exam(const ModelSamples& samples) : samples_(samples) {}

  int64_t rows() const { return std::ssize(held_back_) + std::ssize(blends_); }
  /// As Runner::FillBatch; rows behind the last one begin again.
  absl::Status Fill(int64_t first, int64_t count, std::vector<Tensor>& batch) const;
  absl::StatusOr<std::vector<float>> Answer(const Graph& int8, const CalibrationRun& run) const;
  /// Mean loss over each sample's rows of classes.
  std::vector<double> LossOfSamples(std::span<const float> z) const;

  TrainLoss loss_ = TrainLoss::kNoise;
  bool shares_ = false;
  int64_t batch_ = 0;
  int64_t per_sample_ = 1;  ///< Rows of classes in a sample's output.
  ModelSamples samples_;
  std::vector<std::vector<ChannelGrid>> grids_;
  std::vector<int64_t> held_back_;  ///< The first rows.
  std::vector<Blend> blends_;  ///< The others, of these samples from the first on, over and over.
  std::vector<float> answers_;
  std::vector<int64_t> labels_;
  std::vector<double> first_losses_;  ///< Per sample, of what training begins with.
};

}  // namespace octet::train
