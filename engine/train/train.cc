#include "engine/train/train.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "engine/engine.h"
#include "engine/ops/op.h"
#include "engine/quantize/leave_out_defaults.h"
#include "engine/tensor/status.h"
#include "engine/train/exam.h"
#include "engine/train/loss.h"
#include "engine/train/network.h"
#include "engine/train/optimizer.h"
#include "engine/train/runner.h"

namespace octet {
namespace {

using train::Network;
using train::Optimizer;
using train::Runner;

constexpr std::array<std::string_view, 3> kLossNames = {"kl", "mse", "labels"};
constexpr std::array<std::string_view, 2> kMethodNames = {"adam", "sgd"};
// Fewer leave nothing to learn from beside what is held back.
constexpr int64_t kFewestSamples = 8;

template <typename Enum, size_t kCount>
std::optional<Enum> ParseName(const std::array<std::string_view, kCount>& names,
                              std::string_view name) {
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) return std::nullopt;
  return static_cast<Enum>(found - names.begin());
}

absl::Status CheckOptions(const QuantizeRecipe& recipe, const TrainOptions& options) {
  if (recipe.to != Precision::kInt8)
    return InvalidArgument("training makes int8, not {}", PrecisionName(recipe.to));
  const double rate = options.learning_rate.value_or(1);
  if (options.epochs < 1 || options.batch < 1 || options.patience < 1)
    return InvalidArgument("epochs, batch and patience are at least 1, got {}, {} and {}",
                           options.epochs, options.batch, options.patience);
  if (!(rate > 0) || !std::isfinite(rate))
    return InvalidArgument("the learning rate is a positive number, got {}", rate);
  if (!(options.held_back > 0 && options.held_back < 1))
    return InvalidArgument("the share held back lies between 0 and 1, got {}", options.held_back);
  if (!(options.blend >= 0 && options.blend <= 1))
    return InvalidArgument("the share of blended batches lies between 0 and 1, got {}",
                           options.blend);
  return absl::OkStatus();
}

// The number of samples, checked against labels. What else may be wrong with the inputs, calibration says.
absl::StatusOr<int64_t> CountSamples(const TrainSet& set, const TrainOptions& options) {
  int64_t count = 0;
  for (const auto& [name, tensor] : set.inputs) {
    if (tensor.shape().rank() > 0) count = tensor.shape()[0];
  }
  if (count < kFewestSamples)
    return InvalidArgument("too few samples to train on: expected at least {}, got {}",
                           kFewestSamples, count);
  if (options.loss != TrainLoss::kLabels) return count;
  if (std::ssize(set.labels) != count)
    return InvalidArgument("training on labels: expected one for each of {} samples, got {}", count,
                           set.labels.size());
  return count;
}

class Trainer {
 public:
  Trainer(const TrainSet& set, const TrainOptions& options, const CalibrationRun& run,
          const TrainWatch& watch)
      : set_(set), options_(options), run_(run), watch_(watch), random_(options.seed) {}

  absl::StatusOr<TrainResult> Run(const Graph& fp32, Graph start) {
    OCTET_RETURN_IF_ERROR(Prepare(fp32, start));
    TrainResult result{start, {}, 0};
    double least = std::numeric_limits<double>::infinity();
    const double rate = options_.learning_rate.value_or(
        options_.method == TrainMethod::kAdam ? kAdamRate : kSgdRate);
    Optimizer optimizer(options_.method, rate, options_.epochs * BatchesPerEpoch(),
                        network_->parameters());
    for (int epoch = 0; epoch <= options_.epochs; ++epoch) {
      const auto started = std::chrono::steady_clock::now();
      TrainEpoch row{.epoch = epoch};
      if (epoch > 0) {
        OCTET_ASSIGN_OR_RETURN(row.train_loss, RunEpoch(epoch, optimizer));
        network_->WriteTo(start);
      }
      OCTET_RETURN_IF_ERROR(exam_->Measure(start, run_, row));
      row.seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
      row.best = row.held_back_loss < least;
      if (row.best) {
        least = row.held_back_loss;
        result.best_epoch = epoch;
        result.graph = start;
      }
      result.epochs.push_back(row);
      if (watch_.on_epoch) watch_.on_epoch(row);
      if (epoch - result.best_epoch >= options_.patience) break;
    }
    return result;
  }

 private:
  static constexpr double kAdamRate = 0.01;
  static constexpr double kSgdRate = 0.001;

  int64_t BatchesPerEpoch() const { return std::ssize(trained_) / batch_; }

  absl::Status Prepare(const Graph& fp32, const Graph& start) {
    Graph teacher = fp32;
    OCTET_RETURN_IF_ERROR(InferShapes(teacher));
    shares_ = train::CutSoftmax(teacher);
    for (const ValueId input : teacher.inputs)
      samples_.push_back(set_.inputs.at(teacher.value(input).name));
    OCTET_RETURN_IF_ERROR(Split(teacher));
    OCTET_ASSIGN_OR_RETURN(network_, Network::Build(start, batch_, options_.learn_ranges));
    if (network_->output().shape().rank() > 3)
      return Unimplemented("training knows outputs of up to three axes, this one is {}",
                           network_->output().shape().ToString());
    OCTET_ASSIGN_OR_RETURN(Runner runner,
                           Runner::Make(teacher, Precision::kFp32, run_, samples_, batch_));
    teacher_.emplace(std::move(runner));
    OCTET_RETURN_IF_ERROR(CheckLabels());
    OCTET_ASSIGN_OR_RETURN(exam_, train::Exam::Make(samples_, held_back_, set_.labels, options_,
                                                    shares_, *teacher_, random_));
    return absl::OkStatus();
  }

  // Which samples are trained on, and how many at once.
  absl::Status Split(const Graph& teacher) {
    const int64_t count = samples_[0].shape()[0];
    std::vector<int64_t> order(static_cast<size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    std::ranges::shuffle(order, random_);
    const auto held = std::clamp<int64_t>(
        std::llround(options_.held_back * static_cast<double>(count)), 1, count - 1);
    held_back_.assign(order.begin(), order.begin() + held);
    trained_.assign(order.begin() + held, order.end());
    const std::optional<Shape>& shape = teacher.value(teacher.inputs[0]).shape;
    const int64_t own = shape && shape->rank() > 0 ? (*shape)[0] : kUnknownDim;
    batch_ = own != kUnknownDim ? own : std::min(options_.batch, std::ssize(trained_));
    if (batch_ > std::ssize(trained_))
      return InvalidArgument("too few samples: the model's own batch is {}, {} are trained on",
                             batch_, trained_.size());
    return absl::OkStatus();
  }

  absl::Status CheckLabels() const {
    if (options_.loss != TrainLoss::kLabels) return absl::OkStatus();
    const auto classes = teacher_->output().elements() / batch_;
    for (size_t i = 0; i < set_.labels.size(); ++i) {
      if (set_.labels[i] < 0 || set_.labels[i] >= classes)
        return InvalidArgument("label of sample {}: expected 0 to {}, got {}", i, classes - 1,
                               set_.labels[i]);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<double> RunEpoch(int epoch, Optimizer& optimizer) {
    std::ranges::shuffle(trained_, random_);
    double sum = 0;
    for (int64_t batch = 0; batch < BatchesPerEpoch(); ++batch) {
      if (watch_.keep_going && !watch_.keep_going())
        return absl::CancelledError("training was stopped");
      const std::span<const int64_t> picked(trained_.data() + batch * batch_,
                                            static_cast<size_t>(batch_));
      OCTET_ASSIGN_OR_RETURN(const double loss, RunBatch(picked));
      if (!std::isfinite(loss)) {
        return InvalidArgument(
            "training diverged: the loss of batch {} in epoch {} is {}; a lower learning rate may "
            "help",
            batch, epoch, loss);
      }
      optimizer.Step();
      sum += loss;
    }
    return sum / static_cast<double>(BatchesPerEpoch());
  }

  absl::StatusOr<double> RunBatch(std::span<const int64_t> picked) {
    OCTET_RETURN_IF_ERROR(FillBatch(picked));
    OCTET_RETURN_IF_ERROR(network_->Forward());
    train::Activation& output = network_->output();
    const auto size = static_cast<size_t>(output.size());
    const double loss =
        train::LossOf(options_.loss, batch_, {output.values(), size},
                      {batch_answers_, batch_labels_, shares_}, {output.gradient(), size});
    OCTET_RETURN_IF_ERROR(network_->Backward());
    return loss;
  }

  absl::Status FillBatch(std::span<const int64_t> picked) {
    std::vector<Tensor>& inputs = teacher_->inputs();
    train::PickSamples(samples_, picked, inputs);
    const bool blended = options_.loss != TrainLoss::kLabels &&
                         std::uniform_real_distribution<double>(0, 1)(random_) < options_.blend;
    if (blended) train::BlendSamples(samples_, trained_, 0, random_, inputs);
    for (size_t i = 0; i < inputs.size(); ++i) {
      train::Activation& to = *network_->inputs()[i];
      train::CopyToPhysical(inputs[i].span<float>().data(), to.shape(), to.values());
    }
    if (options_.loss == TrainLoss::kLabels) {
      batch_labels_.clear();
      for (const int64_t index : picked)
        batch_labels_.push_back(set_.labels[static_cast<size_t>(index)]);
      return absl::OkStatus();
    }
    OCTET_RETURN_IF_ERROR(teacher_->Run());
    const auto answers = teacher_->output().span<float>();
    batch_answers_.assign(answers.begin(), answers.end());
    return absl::OkStatus();
  }

  const TrainSet& set_;
  const TrainOptions& options_;
  const CalibrationRun& run_;
  const TrainWatch& watch_;
  std::mt19937_64 random_;
  std::vector<Tensor> samples_;  ///< In the order of the model's inputs.
  std::vector<int64_t> trained_;
  std::vector<int64_t> held_back_;
  int64_t batch_ = 0;
  std::unique_ptr<Network> network_;
  std::optional<Runner> teacher_;
  std::optional<train::Exam> exam_;
  bool shares_ = false;  ///< A Softmax makes shares of the outputs.
  std::vector<float> batch_answers_;
  std::vector<int64_t> batch_labels_;
};

}  // namespace

std::string_view TrainLossName(TrainLoss loss) { return kLossNames[static_cast<size_t>(loss)]; }
std::optional<TrainLoss> ParseTrainLoss(std::string_view name) {
  return ParseName<TrainLoss>(kLossNames, name);
}
std::string_view TrainMethodName(TrainMethod method) {
  return kMethodNames[static_cast<size_t>(method)];
}
std::optional<TrainMethod> ParseTrainMethod(std::string_view name) {
  return ParseName<TrainMethod>(kMethodNames, name);
}

absl::StatusOr<TrainResult> TrainInt8(const Graph& fp32, const QuantizeRecipe& recipe,
                                      const TrainSet& set, const TrainOptions& options,
                                      const CalibrationRun& run, const TrainWatch& watch) {
  OCTET_RETURN_IF_ERROR(CheckOptions(recipe, options));
  OCTET_RETURN_IF_ERROR(CountSamples(set, options).status());
  QuantizeRecipe all_int8 = recipe;  // What rounding breaks is what training is for.
  if (recipe.floor.kind == AccuracyFloor::Kind::kAuto)
    all_int8.floor.kind = AccuracyFloor::Kind::kAllInt8;
  OCTET_ASSIGN_OR_RETURN(QuantizeResult start, Quantize(fp32, all_int8, set.inputs, run));
  OCTET_ASSIGN_OR_RETURN(TrainResult result,
                         Trainer(set, options, run, watch).Run(fp32, std::move(start.graph)));
  if (result.best_epoch > 0) {
    result.graph.metadata["octet.recipe"] +=
        Format(" trained={} epochs={}", TrainLossName(options.loss), result.best_epoch);
  }
  return result;
}

absl::StatusOr<TrainResult> TrainInt8File(const std::string& fp32, const QuantizeRecipe& recipe,
                                          const TrainSet& set, const TrainOptions& options,
                                          const CalibrationRun& run, const TrainWatch& watch,
                                          const std::string& out) {
  OCTET_ASSIGN_OR_RETURN(const Graph graph, ReadOnnxFile(fp32));
  auto result = TrainInt8(graph, recipe, set, options, run, watch);
  if (!result.ok()) return Annotate(result.status(), fp32);
  LeaveOutDefaults(result->graph);
  OCTET_RETURN_IF_ERROR(WriteOnnxFile(result->graph, out));
  return result;
}

}  // namespace octet
