#include "engine/train/exam.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/tensor/status.h"
#include "engine/train/loss.h"
#include "engine/train/network.h"

namespace octet::train {
namespace {

std::vector<int64_t> FirstRows(int64_t count) {
  std::vector<int64_t> rows(static_cast<size_t>(count));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

}  // namespace

bool IsOutOfPatience(std::span<const TrainEpoch> epochs, int patience) {
  const auto least = std::ranges::min_element(epochs, {}, &TrainEpoch::held_back_loss);
  return epochs.end() - least > patience;
}

absl::StatusOr<Exam> Exam::Make(std::span<const Tensor> samples,
                                std::span<const std::vector<ChannelGrid>> grids,
                                std::span<const int64_t> held_back, std::span<const int64_t> labels,
                                const TrainOptions& options, bool shares, Runner& teacher,
                                std::mt19937_64& random) {
  Exam exam;
  exam.loss_ = options.loss;
  exam.shares_ = shares;
  exam.batch_ = teacher.output().shape()[0];
  exam.per_sample_ = RowsOf(teacher.output().shape()) / exam.batch_;
  exam.own_ = std::ssize(held_back);
  const bool blends = options.loss != TrainLoss::kLabels && options.blend > 0;
  for (const Tensor& tensor : samples) {
    Shape shape = tensor.shape();
    shape[0] = blends ? std::max(exam.own_, kFewestRows) : exam.own_;
    exam.rows_.emplace_back(DType::kF32, shape);
  }
  PickSamples(samples, held_back, exam.rows_);
  BlendSamples(samples, grids, held_back, static_cast<size_t>(exam.own_), random, exam.rows_);
  if (options.loss == TrainLoss::kLabels) {
    for (const int64_t index : held_back)
      exam.labels_.push_back(labels[static_cast<size_t>(index)]);
    return exam;
  }
  OCTET_ASSIGN_OR_RETURN(exam.answers_,
                         teacher.RunAll(exam.rows_, FirstRows(exam.rows_[0].shape()[0])));
  return exam;
}

absl::StatusOr<std::vector<float>> Exam::Answer(const Graph& int8,
                                                const CalibrationRun& run) const {
  Graph graph = int8;
  CutSoftmax(graph);
  OCTET_ASSIGN_OR_RETURN(Runner runner, Runner::Make(graph, Precision::kInt8, run, rows_, batch_));
  return runner.RunAll(rows_, FirstRows(rows_[0].shape()[0]));
}

std::vector<double> Exam::LossOfSamples(std::span<const float> z) const {
  const int64_t samples = rows_[0].shape()[0];
  const std::vector<double> rows =
      LossesOf(loss_, samples * per_sample_, z, {answers_, labels_, shares_});
  std::vector<double> means(static_cast<size_t>(samples));
  for (size_t i = 0; i < rows.size(); ++i)
    means[i / static_cast<size_t>(per_sample_)] += rows[i] / static_cast<double>(per_sample_);
  return means;
}

absl::Status Exam::Begin(const Graph& int8, const CalibrationRun& run) {
  OCTET_ASSIGN_OR_RETURN(const std::vector<float> z, Answer(int8, run));
  first_losses_ = LossOfSamples(z);
  return absl::OkStatus();
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
  const int64_t own_rows = own_ * per_sample_;
  const size_t own = z.size() / losses.size() * static_cast<size_t>(own_);
  row.agreement = static_cast<double>(
                      Agreements(loss_, own_rows, {z.data(), own}, {answers_, labels_, shares_})) /
                  static_cast<double>(own_rows);
  return absl::OkStatus();
}

}  // namespace octet::train
