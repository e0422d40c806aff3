#include "engine/train/exam.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

#include "engine/tensor/status.h"
#include "engine/train/loss.h"
#include "engine/train/network.h"

namespace octet::train {

bool IsOutOfPatience(std::span<const TrainEpoch> epochs, int patience) {
  const auto least = std::ranges::min_element(epochs, {}, &TrainEpoch::held_back_loss);
  return epochs.end() - least > patience;
}

absl::StatusOr<Exam> Exam::Make(const ModelSamples& samples,
                                std::span<const std::vector<ChannelGrid>> grids,
                                std::span<const int64_t> held_back, std::span<const int64_t> labels,
                                const TrainOptions& options, bool shares, Runner& teacher,
                                std::mt19937_64& random) {
  Exam exam(samples);
  exam.loss_ = options.loss;
  exam.shares_ = shares;
  exam.batch_ = teacher.output().shape()[0];
  exam.per_sample_ = RowsOf(teacher.output().shape()) / exam.batch_;
  exam.grids_.assign(grids.begin(), grids.end());
  exam.held_back_.assign(held_back.begin(), held_back.end());
  if (options.loss != TrainLoss::kLabels && options.blend > 0) {
    while (exam.rows() < kFewestRows) exam.blends_.push_back(DrawBlend(held_back, random));
  }
  if (options.loss == TrainLoss::kLabels) {
    for (const int64_t index : held_back)
      exam.labels_.push_back(labels[static_cast<size_t>(index)]);
    return exam;
  }
  OCTET_ASSIGN_OR_RETURN(exam.answers_,
                         teacher.RunAll(exam.rows(), std::bind_front(&Exam::Fill, &exam)));
  return exam;
}

absl::Status Exam::Fill(int64_t first, int64_t count, std::vector<Tensor>& batch) const {
  const auto own = std::ssize(held_back_);
  std::vector<int64_t> picked(static_cast<size_t>(count));
  for (int64_t row = 0; row < count; ++row)
    picked[static_cast<size_t>(row)] = held_back_[static_cast<size_t>((first + row) % own)];
  OCTET_RETURN_IF_ERROR(PickSamples(samples_, picked, batch));
  for (int64_t row = 0; row < batch[0].shape()[0]; ++row) {
    const int64_t blend = first + row % count - own;
    if (blend < 0) continue;
    OCTET_RETURN_IF_ERROR(BlendRow(samples_, grids_, blends_[static_cast<size_t>(blend)],
                                   static_cast<size_t>(row), batch));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> Exam::Answer(const Graph& int8,
                                                const CalibrationRun& run) const {
  Graph graph = int8;
  CutSoftmax(graph);
  OCTET_ASSIGN_OR_RETURN(Runner runner,
                         Runner::Make(graph, Precision::kInt8, run, samples_, batch_));
  return runner.RunAll(rows(), std::bind_front(&Exam::Fill, this));
}

std::vector<double> Exam::LossOfSamples(std::span<const float> z) const {
  const std::vector<double> losses =
      LossesOf(loss_, rows() * per_sample_, z, {answers_, labels_, shares_});
  std::vector<double> means(static_cast<size_t>(rows()));
  for (size_t i = 0; i < losses.size(); ++i)
    means[i / static_cast<size_t>(per_sample_)] += losses[i] / static_cast<double>(per_sample_);
  return means;
}

absl::StatusOr<size_t> Exam::Begin(std::span<const Graph> starts, const CalibrationRun& run) {
  size_t best = 0;
  double least = 0;
  for (size_t i = 0; i < starts.size(); ++i) {
    OCTET_ASSIGN_OR_RETURN(const std::vector<float> z, Answer(starts[i], run));
    std::vector<double> losses = LossOfSamples(z);
    const double sum = std::accumulate(losses.begin(), losses.end(), 0.0);
    if (i > 0 && !(sum < least)) continue;
    best = i;
    least = sum;
    first_losses_ = std::move(losses);
  }
  return best;
}

absl::Status Exam::Measure(const Graph& int8, const CalibrationRun& run, TrainEpoch& row) const {
  OCTET_ASSIGN_OR_RETURN(const std::vector<float> z, Answer(int8, run));
  const std::vector<double> losses = LossOfSamples(z);
  const auto samples = static_cast<double>(losses.size());
  double sum = 0;
  double gain = 0;
  for (size_t i = 0; i < losses.size(); ++i) {
    sum += losses[i];
    gain += (first_losses_[i] - losses[i]) / samples;
  }
  double squares = 0;
  for (size_t i = 0; i < losses.size(); ++i)
    squares += std::pow(first_losses_[i] - losses[i] - gain, 2);
  row.held_back_loss = sum / samples;
  // Of one sample there is no deviation; its gain is all that is known.
  const double error = std::sqrt(squares / samples / std::max(1.0, samples - 1));
  row.sureness = error > 0 ? gain / error : (gain > 0 ? kSure : 0);
  const int64_t own_rows = std::ssize(held_back_) * per_sample_;
  const size_t own = z.size() / losses.size() * held_back_.size();
  row.agreement = static_cast<double>(
                      Agreements(loss_, own_rows, {z.data(), own}, {answers_, labels_, shares_})) /
                  static_cast<double>(own_rows);
  return absl::OkStatus();
}

}  // namespace octet::train
