#include "engine/train/loss.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace octet::train {
namespace {

// log softmax of one row.
void LogShares(std::span<const float> z, std::vector<double>& log_shares) {
  const double largest = *std::ranges::max_element(z);
  double sum = 0;
  for (const float x : z) sum += std::exp(x - largest);
  const double log_sum = largest + std::log(sum);
  log_shares.clear();
  for (const float x : z) log_shares.push_back(x - log_sum);
}

double Mean(std::span<const float> row) {
  double sum = 0;
  for (const float x : row) sum += x;
  return sum / static_cast<double>(row.size());
}

// Noise of each row, over the signal of all of them.
std::vector<double> NoiseOf(size_t rows, std::span<const float> z, const Targets& targets,
                            std::span<float> gradient) {
  const size_t classes = z.size() / rows;
  std::vector<double> noise(rows);
  double signal = 0;
  for (size_t row = 0; row < rows; ++row) {
    const auto own = z.subspan(row * classes, classes);
    const auto wanted = targets.teacher.subspan(row * classes, classes);
    const double offset = targets.shares ? Mean(wanted) : 0;
    const double shift = targets.shares ? Mean(own) - offset : 0;
    for (size_t c = 0; c < classes; ++c) {
      const double difference = static_cast<double>(own[c]) - wanted[c] - shift;
      noise[row] += difference * difference;
      signal += (wanted[c] - offset) * (wanted[c] - offset);
      if (!gradient.empty()) gradient[row * classes + c] = static_cast<float>(2 * difference);
    }
  }
  if (signal == 0) signal = 1;
  for (double& x : noise) x /= signal;
  for (float& g : gradient) g /= static_cast<float>(signal);
  return noise;
}

double NoiseLoss(size_t rows, std::span<const float> z, const Targets& targets,
                 std::span<float> gradient) {
  const std::vector<double> noise = NoiseOf(rows, z, targets, gradient);
  return std::accumulate(noise.begin(), noise.end(), 0.0);
}

size_t Largest(std::span<const float> row) {
  return static_cast<size_t>(std::ranges::max_element(row) - row.begin());
}

}  // namespace

int64_t RowsOf(const Shape& outputs) {
  const bool sequence = outputs.rank() == 3 && outputs[2] > 1;
  return sequence ? outputs[0] * outputs[1] : outputs[0];
}

double LossOf(TrainLoss loss, int64_t rows, std::span<const float> z, const Targets& targets,
              std::span<float> gradient) {
  if (loss == TrainLoss::kNoise) return NoiseLoss(static_cast<size_t>(rows), z, targets, gradient);
  const size_t classes = z.size() / static_cast<size_t>(rows);
  std::vector<double> own;
  std::vector<double> wanted;
  double sum = 0;
  for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
    LogShares(z.subspan(row * classes, classes), own);
    if (loss == TrainLoss::kDivergence)
      LogShares(targets.teacher.subspan(row * classes, classes), wanted);
    for (size_t c = 0; c < classes; ++c) {
      double share = 0;
      if (loss == TrainLoss::kDivergence) {
        share = std::exp(wanted[c]);
        sum += share * (wanted[c] - own[c]);
      } else if (static_cast<int64_t>(c) == targets.labels[row]) {
        share = 1;
        sum -= own[c];
      }
      if (!gradient.empty()) {
        gradient[row * classes + c] =
            static_cast<float>((std::exp(own[c]) - share) / static_cast<double>(rows));
      }
    }
  }
  return sum / static_cast<double>(rows);
}

std::vector<double> LossesOf(TrainLoss loss, int64_t rows, std::span<const float> z,
                             const Targets& targets) {
  std::vector<double> losses;
  if (loss == TrainLoss::kNoise) {
    losses = NoiseOf(static_cast<size_t>(rows), z, targets, {});
    for (double& x : losses) x *= static_cast<double>(rows);
    return losses;
  }
  const size_t classes = z.size() / static_cast<size_t>(rows);
  for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
    Targets own = targets;
    if (!own.teacher.empty()) own.teacher = own.teacher.subspan(row * classes, classes);
    if (!own.labels.empty()) own.labels = own.labels.subspan(row, 1);
    losses.push_back(LossOf(loss, 1, z.subspan(row * classes, classes), own));
  }
  return losses;
}

int64_t Agreements(TrainLoss loss, int64_t rows, std::span<const float> z, const Targets& targets) {
  const size_t classes = z.size() / static_cast<size_t>(rows);
  int64_t agreements = 0;
  for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
    const size_t top = Largest(z.subspan(row * classes, classes));
    agreements += loss == TrainLoss::kLabels
                      ? static_cast<int64_t>(top) == targets.labels[row]
                      : top == Largest(targets.teacher.subspan(row * classes, classes));
  }
  return agreements;
}

}  // namespace octet::train
