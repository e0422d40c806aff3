// `octet qat` as a function: an fp32 model in, an int8 variant out whose weights, biases and ranges were trained with the
// rounding in place.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/quantize/calibration.h"
#include "engine/quantize/quantizer.h"

namespace octet {

/// What training makes small. z: the model's output, before its last Softmax if that ends it, and then without the mean over
/// the classes, which changes no share; p = softmax(z).
enum class TrainLoss : uint8_t {
  kDivergence,  ///< sum p_fp32 (log p_fp32 - log p), mean over the rows of classes (RowsOf in train/loss.h): the fp32 model teaches.
  kNoise,  ///< sum (z - z_fp32)^2 / sum z_fp32^2: the fp32 model teaches, outputs need not be classes.
  kLabels,  ///< -log p[label], mean over the samples.
};
/// "kl", "mse", "labels".
std::string_view TrainLossName(TrainLoss loss);
std::optional<TrainLoss> ParseTrainLoss(std::string_view name);

enum class TrainMethod : uint8_t {
  kAdam,  ///< Step sizes are in steps of each weight's grid.
  kSgd,   ///< Momentum 0.9; step sizes are in reals.
};
/// "adam", "sgd".
std::string_view TrainMethodName(TrainMethod method);
std::optional<TrainMethod> ParseTrainMethod(std::string_view name);

enum class TrainCompute : uint8_t {
  kF32,
  /// Products of integers and of gradients in bf16, sums and everything else in f32.
  kBf16,
};
/// "f32", "bf16".
std::string_view TrainComputeName(TrainCompute compute);
std::optional<TrainCompute> ParseTrainCompute(std::string_view name);

struct TrainOptions {
  TrainCompute compute =
      TrainCompute::kF32;  ///< Of convolutions and products, forward and backward.
  TrainLoss loss = TrainLoss::kNoise;
  TrainMethod method = TrainMethod::kAdam;
  int epochs = 30;
  int64_t batch = 16;
  /// At the first step; falls to 0 along half a cosine over all epochs. nullopt: 0.01 for Adam, 0.001 for SGD.
  std::optional<double> learning_rate;
  bool learn_ranges = true;  ///< Learn the activations' scales; else keep those of calibration.
  /// Share of distillation batches whose samples are blended with others, for the teacher answers to them as to any input.
  double blend = 0.3;
  bool flip =
      false;  ///< Half of the samples [N, C, spatial...] are mirrored along their last axis.
  /// Samples [N, C, spatial...] are moved along each spatial axis by up to so many elements.
  int64_t shift = 0;
  double held_back =
      0.2;  ///< Share of the samples that are not trained on and decide which epoch is the best.
  int patience =
      30;  ///< Epochs whose held-back loss is below no earlier one's, after which training stops.
  uint64_t seed = 1;
};

/// Real-valued inputs of one shape, which are read wherever they lie, in random order; one label per sample in the order in which they
/// were added, or none.
struct TrainSet {
  CalibrationData inputs;
  std::vector<int64_t> labels;
};

/// One row of the training curve. Epoch 0 is the result of post-training quantization, or the file that training goes on from.
struct TrainEpoch {
  int epoch = 0;
  std::optional<double> train_loss;  ///< Mean over the epoch's batches; none for epoch 0.
  double held_back_loss = 0;         ///< Of the int8 file, as the engine runs it.
  /// Share of held-back rows of classes whose largest output is where the teacher has it: the fp32 model's, or the label.
  double agreement = 0;
  /// By how many standard errors the held-back loss is below epoch 0's, sample by sample; 0 for epoch 0.
  double sureness = 0;
  double seconds = 0;
  bool best = false;      ///< So far, and surely better than epoch 0.
  bool restored = false;  ///< A checkpoint had it.
};

/// How the caller follows training; all may be empty.
struct TrainWatch {
  /// Called for the epochs that a checkpoint had, too.
  std::function<void(const TrainEpoch&)> on_epoch;
  /// Asked before each batch; false ends training with CANCELLED.
  std::function<bool()> keep_going;
  /// File that keeps where training stands (train/checkpoint.h), written after every epoch and when training is stopped. Where it is
  /// there, training goes on from it, to the same result bit by bit. One that cannot be written ends training, unless training is done.
  std::string checkpoint;
};

struct TrainResult {
  Graph graph;
  std::vector<TrainEpoch> epochs;
  int best_epoch =
      0;  ///< 0: nothing was better than what training began with, which `graph` then is.
  absl::Status checkpoint;  ///< Why the last checkpoint, behind the last epoch, was not written.
};

/// Puts the inputs' channels on one grid (SeparateInputGrids), quantizes the model by `recipe` (to int8) with all samples, then trains what the QDQ graph holds:
///   activations  y = s (clamp(round(x / s) + z) - z), s learned (LSQ), z and the model inputs' s kept
///   weights      w = s[c] clamp(round(u)), u learned, s kept
///   biases       b learned, rounded to the product of both scales
/// with straight-through gradients: those of round are 1, those of clamp 0 outside its range. An epoch's file has the moving averages
/// of what was learned; the result is the epoch with the least held-back loss among those
/// whose loss is below epoch 0's by two standard errors, of the same form as the quantizer's. The same seed, data and thread count give the same file.
/// Errors: as Quantize; FAILED_PRECONDITION for TrainCompute::kBf16 where the CPU has no such primitives; INVALID_ARGUMENT for options out of range, too few samples or several shapes, labels out of range, or a loss that is no
/// number; as ReadCheckpoint, WriteCheckpoint and SampleSource::Read; UNIMPLEMENTED naming node and operator for one that training does not know; CANCELLED.
/// Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference (2018);
/// Esser et al., Learned Step Size Quantization (2020).
absl::StatusOr<TrainResult> TrainInt8(const Graph& fp32, const QuantizeRecipe& recipe,
                                      const TrainSet& set, const TrainOptions& options,
                                      const CalibrationRun& run, const TrainWatch& watch = {});

/// Goes on from a static QDQ model, as Quantize and TrainInt8 make it or another tool: what it holds takes the place of the
/// quantizer's result, epoch 0 is what it answers. Layers that it has in float stay so. The result has its form, but for biases, which
/// become FP32 on the grid of the integer sums (ReadStart).
/// Errors: as TrainInt8 and ReadStart; INVALID_ARGUMENT for an fp32 model that is quantized itself, and outputs of which one model has a Softmax
/// at the end alone.
absl::StatusOr<TrainResult> TrainFrom(const Graph& fp32, const Graph& qdq, const TrainSet& set,
                                      const TrainOptions& options, const CalibrationRun& run,
                                      const TrainWatch& watch = {});

/// TrainInt8, or TrainFrom the file `start` unless that is empty, from file to file; the result appears at `out` at once or not at all.
/// Errors: as ReadOnnxFile, TrainInt8 and WriteOnnxFile.
absl::StatusOr<TrainResult> TrainInt8File(const std::string& fp32, const std::string& start,
                                          const QuantizeRecipe& recipe, const TrainSet& set,
                                          const TrainOptions& options, const CalibrationRun& run,
                                          const TrainWatch& watch, const std::string& out);

}  // namespace octet
