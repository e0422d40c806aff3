#include "engine/train/train.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <random>
#include <span>

#include "engine/engine.h"
#include "engine/ops/op.h"
#include "engine/quantize/content_mark.h"
#include "engine/quantize/float_model.h"
#include "engine/quantize/input_grids.h"
#include "engine/quantize/leave_out_defaults.h"
#include "engine/tensor/status.h"
#include "engine/train/checkpoint.h"
#include "engine/train/exam.h"
#include "engine/train/loss.h"
#include "engine/train/measure_gains.h"
#include "engine/train/model_samples.h"
#include "engine/train/network.h"
#include "engine/train/optimizer.h"
#include "engine/train/runner.h"
#include "engine/train/start.h"
#include "engine/train/varied_samples.h"

namespace octet {
namespace {

using train::Network;
using train::Optimizer;
using train::Runner;

constexpr std::array<std::string_view, 3> kLossNames = {"kl", "mse", "labels"};
constexpr std::array<std::string_view, 2> kComputeNames = {"f32", "bf16"};
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

absl::Status CheckOptions(const TrainOptions& options) {
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
  if (options.shift < 0)
    return InvalidArgument("samples are shifted by at least 0 elements, got {}", options.shift);
  const Target target = DetectTarget(1);
  if (options.compute == TrainCompute::kBf16 && !target.bf16) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        "training in bf16 takes a CPU with avx512_core_bf16, this one has {}; f32 runs everywhere",
        target.isa);
  }
  return absl::OkStatus();
}

// The number of samples, which are alike, checked against labels. What else may be wrong with the inputs, calibration says.
absl::StatusOr<int64_t> CountSamples(const TrainSet& set, const TrainOptions& options) {
  if (set.inputs.whole_inputs()) {
    return InvalidArgument(
        "training stacks samples along axis 0, which the model's inputs have not in common");
  }
  const int64_t count = set.inputs.count();
  if (count < kFewestSamples)
    return InvalidArgument("too few samples to train on: expected at least {}, got {}",
                           kFewestSamples, count);
  if (const int64_t alike = set.inputs.Alike(0, count); alike < count) {
    return InvalidArgument(
        "training takes samples of one shape: sample {} has another than sample 0", alike);
  }
  if (options.loss != TrainLoss::kLabels) return count;
  if (std::ssize(set.labels) != count)
    return InvalidArgument("training on labels: expected one for each of {} samples, got {}", count,
                           set.labels.size());
  return count;
}

// Random numbers for one purpose: of an epoch (its order), or of one of its batches.
std::mt19937_64 RandomOf(uint64_t seed, int epoch, int64_t batch) {
  std::seed_seq words{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                      static_cast<uint32_t>(epoch), static_cast<uint32_t>(batch)};
  return std::mt19937_64(words);
}
// In the place of a batch: what the numbers are for.
constexpr int64_t kOrder = -1;

class Trainer {
 public:
  Trainer(const TrainSet& set, const TrainOptions& options, const CalibrationRun& run,
          const TrainWatch& watch, int weight_bits, std::string_view start_words)
      : start_words_(start_words),
        weight_bits_(weight_bits),
        set_(set),
        options_(options),
        run_(run),
        watch_(watch) {}

  /// `starts`: forms of one model, of which training begins with the best one (Exam::Begin).
  absl::StatusOr<TrainResult> Run(const Graph& fp32, std::span<const Graph> starts,
                                  train::Origin origin) {
    origin_ = std::move(origin);
    OCTET_RETURN_IF_ERROR(Prepare(fp32, starts.front()));
    OCTET_ASSIGN_OR_RETURN(const size_t best, exam_->Begin(starts, run_));
    const Graph& start = starts[best];
    if (best > 0) OCTET_RETURN_IF_ERROR(BuildNetwork(start));
    parameters_ = network_->parameters();
    const double rate = options_.learning_rate.value_or(
        options_.method == TrainMethod::kAdam ? kAdamRate : kSgdRate);
    optimizer_.emplace(options_.method, rate, options_.epochs * BatchesPerEpoch(), parameters_);
    OCTET_RETURN_IF_ERROR(Resume());
    Graph graph = start;
    while (!Done()) OCTET_RETURN_IF_ERROR(RunEpoch(graph));
    TrainResult result{start, std::move(progress_.epochs), progress_.best_epoch, checkpoint_};
    if (result.best_epoch == 0) return result;
    for (size_t i = 0; i < parameters_.size(); ++i)
      parameters_[i]->values = std::move(progress_.best[i]);
    network_->WriteTo(result.graph);
    return result;
  }

 private:
  static constexpr double kAdamRate = 0.01;
  static constexpr double kSgdRate = 0.001;

  int64_t BatchesPerEpoch() const { return std::ssize(trained_) / batch_; }

  bool Done() const {
    return std::ssize(progress_.epochs) > options_.epochs ||
           train::IsOutOfPatience(progress_.epochs, options_.patience);
  }

  absl::Status Resume() {
    std::error_code unreadable;  // Then to read it will say why.
    if (watch_.checkpoint.empty() || !std::filesystem::exists(watch_.checkpoint, unreadable))
      return absl::OkStatus();
    OCTET_RETURN_IF_ERROR(train::ReadCheckpoint(watch_.checkpoint, origin_, options_.epochs,
                                                BatchesPerEpoch(), progress_, parameters_,
                                                optimizer_->state()));
    for (const TrainEpoch& row : progress_.epochs) {
      if (watch_.on_epoch) watch_.on_epoch(row);
    }
    return absl::OkStatus();
  }

  absl::Status Keep() {
    if (watch_.checkpoint.empty()) return absl::OkStatus();
    return train::WriteCheckpoint(origin_, progress_, parameters_, optimizer_->state(),
                                  watch_.checkpoint);
  }

  // The next epoch with its exam; `graph` is where what was learned goes.
  absl::Status RunEpoch(Graph& graph) {
    const auto started = std::chrono::steady_clock::now();
    TrainEpoch row{.epoch = static_cast<int>(progress_.epochs.size())};
    if (row.epoch > 0) {
      OCTET_RETURN_IF_ERROR(RunBatches(row.epoch));
      row.train_loss = progress_.loss_sum / static_cast<double>(BatchesPerEpoch());
      optimizer_->SwapAverages();
      network_->WriteTo(graph);
    }
    OCTET_RETURN_IF_ERROR(exam_->Measure(graph, run_, row));
    if (!std::isfinite(row.held_back_loss)) {
      return InvalidArgument("training diverged: the held-back loss of epoch {} is {}", row.epoch,
                             row.held_back_loss);
    }
    row.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    row.best = row.epoch == 0 ||
               (row.sureness >= train::kSure &&
                row.held_back_loss <
                    progress_.epochs[static_cast<size_t>(progress_.best_epoch)].held_back_loss);
    if (row.best) {
      progress_.best_epoch = row.epoch;
      progress_.best.clear();
      for (const train::Parameter* parameter : parameters_)
        progress_.best.push_back(parameter->values);
    }
    if (row.epoch > 0) optimizer_->SwapAverages();
    progress_.epochs.push_back(row);
    progress_.batch = 0;
    progress_.loss_sum = 0;
    checkpoint_ = Keep();
    // What is trained to the end is not lost with its last checkpoint.
    if (!checkpoint_.ok() && !Done()) return checkpoint_;
    if (watch_.on_epoch) watch_.on_epoch(row);
    return absl::OkStatus();
  }

  absl::Status Prepare(const Graph& fp32, const Graph& start) {
    Graph teacher = fp32;
    OCTET_RETURN_IF_ERROR(train::ReadForTraining(teacher, run_.disabled_passes));
    OCTET_RETURN_IF_ERROR(InferShapes(teacher));
    shares_ = train::CutSoftmax(teacher);
    Graph cut = start;
    if (train::CutSoftmax(cut) != shares_) {
      return InvalidArgument("a Softmax ends {} alone",
                             shares_ ? std::string_view("the fp32 model") : start_words_);
    }
    samples_.emplace(set_.inputs, teacher);
    OCTET_ASSIGN_OR_RETURN(grids_, samples_->Grids());
    OCTET_RETURN_IF_ERROR(CheckMoves());
    auto random = RandomOf(options_.seed, 0, kOrder);
    OCTET_RETURN_IF_ERROR(Split(teacher, start, random));
    OCTET_RETURN_IF_ERROR(BuildNetwork(start));
    if (network_->output().shape().rank() > 3)
      return Unimplemented("training knows outputs of up to three axes, this one is {}",
                           network_->output().shape().ToString());
    OCTET_ASSIGN_OR_RETURN(Runner runner,
                           Runner::Make(teacher, Precision::kFp32, run_, *samples_, batch_));
    teacher_.emplace(std::move(runner));
    if (network_->output().shape() != teacher_->output().shape()) {
      return InvalidArgument("the outputs disagree: the fp32 model has {}, the one trained {}",
                             teacher_->output().shape().ToString(),
                             network_->output().shape().ToString());
    }
    OCTET_RETURN_IF_ERROR(CheckLabels());
    OCTET_ASSIGN_OR_RETURN(exam_, train::Exam::Make(*samples_, grids_, held_back_, set_.labels,
                                                    options_, shares_, *teacher_, random));
    return absl::OkStatus();
  }

  absl::Status BuildNetwork(const Graph& start) {
    OCTET_ASSIGN_OR_RETURN(network_, Network::Build(start, batch_, options_.learn_ranges,
                                                    weight_bits_, options_.compute));
    return absl::OkStatus();
  }

  train::Moves Moving() const { return {.flip = options_.flip, .shift = options_.shift}; }

  absl::Status CheckMoves() const {
    if (!Moving().any()) return absl::OkStatus();
    for (size_t i = 0; i < samples_->inputs(); ++i) {
      if (samples_->Spec(i, 1).shape.rank() > 2) return absl::OkStatus();
    }
    return InvalidArgument(
        "only inputs [N, C, spatial...] are flipped or shifted, the samples are {}",
        samples_->Spec(0, samples_->count()).shape.ToString());
  }

  // Which samples are trained on, and how many at once.
  absl::Status Split(const Graph& teacher, const Graph& start, std::mt19937_64& random) {
    const int64_t count = samples_->count();
    std::vector<int64_t> order(static_cast<size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    std::ranges::shuffle(order, random);
    const auto held = std::clamp<int64_t>(
        std::llround(options_.held_back * static_cast<double>(count)), 1, count - 1);
    held_back_.assign(order.begin(), order.begin() + held);
    trained_.assign(order.begin() + held, order.end());
    int64_t own = kUnknownDim;
    for (const Graph* graph : {&teacher, &start}) {
      const std::optional<Shape>& shape = graph->value(graph->inputs[0]).shape;
      if (own == kUnknownDim && shape && shape->rank() > 0) own = (*shape)[0];
    }
    batch_ = own != kUnknownDim ? own : std::min(options_.batch, std::ssize(trained_));
    if (batch_ > std::ssize(trained_))
      return InvalidArgument("too few samples: the model's own batch is {}, {} are trained on",
                             batch_, trained_.size());
    return absl::OkStatus();
  }

  absl::Status CheckLabels() const {
    if (options_.loss != TrainLoss::kLabels) return absl::OkStatus();
    const Shape& output = teacher_->output().shape();
    if (train::RowsOf(output) != batch_)
      return InvalidArgument(
          "training on labels: expected one row of classes for each sample, got {}",
          output.ToString());
    const auto classes = output.elements() / batch_;
    for (size_t i = 0; i < set_.labels.size(); ++i) {
      if (set_.labels[i] < 0 || set_.labels[i] >= classes)
        return InvalidArgument("label of sample {}: expected 0 to {}, got {}", i, classes - 1,
                               set_.labels[i]);
    }
    return absl::OkStatus();
  }

  // Those of the epoch that are not done.
  absl::Status RunBatches(int epoch) {
    std::vector<int64_t> order = trained_;
    auto shuffling = RandomOf(options_.seed, epoch, kOrder);
    std::ranges::shuffle(order, shuffling);
    for (int64_t& batch = progress_.batch; batch < BatchesPerEpoch(); ++batch) {
      if (watch_.keep_going && !watch_.keep_going()) return Stop(epoch);
      const std::span<const int64_t> picked(order.data() + batch * batch_,
                                            static_cast<size_t>(batch_));
      auto random = RandomOf(options_.seed, epoch, batch);
      OCTET_ASSIGN_OR_RETURN(const double loss, RunBatch(picked, random));
      if (!std::isfinite(loss)) {
        return InvalidArgument(
            "training diverged: the loss of batch {} in epoch {} is {}; a lower learning rate may "
            "help",
            batch, epoch, loss);
      }
      optimizer_->Step();
      progress_.loss_sum += loss;
    }
    return absl::OkStatus();
  }

  absl::Status Stop(int epoch) {
    if (watch_.checkpoint.empty()) return absl::CancelledError("training was stopped");
    OCTET_RETURN_IF_ERROR(Keep());
    return MakeError(absl::StatusCode::kCancelled,
                     "training was stopped behind {} of {} batches of epoch {}, which {} keeps",
                     progress_.batch, BatchesPerEpoch(), epoch, watch_.checkpoint);
  }

  absl::StatusOr<double> RunBatch(std::span<const int64_t> picked, std::mt19937_64& random) {
    OCTET_RETURN_IF_ERROR(FillBatch(picked, random));
    OCTET_RETURN_IF_ERROR(network_->Forward());
    train::Activation& output = network_->output();
    const auto size = static_cast<size_t>(output.size());
    const double loss =
        train::LossOf(options_.loss, train::RowsOf(output.shape()), {output.values(), size},
                      {batch_answers_, batch_labels_, shares_}, {output.gradient(), size});
    OCTET_RETURN_IF_ERROR(network_->Backward());
    return loss;
  }

  absl::Status FillBatch(std::span<const int64_t> picked, std::mt19937_64& random) {
    std::vector<Tensor>& inputs = teacher_->inputs();
    OCTET_RETURN_IF_ERROR(train::PickSamples(*samples_, picked, inputs));
    const bool blended = options_.loss != TrainLoss::kLabels &&
                         std::uniform_real_distribution<double>(0, 1)(random) < options_.blend;
    train::MoveSamples(Moving(), random, inputs);
    for (size_t row = 0; blended && row < picked.size(); ++row) {
      const train::Blend blend = train::DrawBlend(trained_, random);
      OCTET_RETURN_IF_ERROR(train::BlendRow(*samples_, grids_, blend, row, inputs));
    }
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

  std::string_view start_words_;  ///< What messages call the graph that training starts on.
  int weight_bits_;
  const TrainSet& set_;
  const TrainOptions& options_;
  const CalibrationRun& run_;
  const TrainWatch& watch_;
  train::Origin origin_;
  std::optional<train::ModelSamples> samples_;
  std::vector<std::vector<ChannelGrid>> grids_;  ///< Of each input's channels, or none.
  std::vector<int64_t> trained_;
  std::vector<int64_t> held_back_;
  int64_t batch_ = 0;
  std::unique_ptr<Network> network_;
  std::vector<train::Parameter*> parameters_;  ///< The network's.
  std::optional<Optimizer> optimizer_;
  train::Progress progress_;
  absl::Status checkpoint_;  ///< Of writing the last one.
  std::optional<Runner> teacher_;
  std::optional<train::Exam> exam_;
  bool shares_ = false;  ///< A Softmax makes shares of the outputs.
  std::vector<float> batch_answers_;
  std::vector<int64_t> batch_labels_;
};

// Labels as one more input of the samples.
CalibrationData WithLabels(const TrainSet& set) {
  CalibrationData data;
  std::span<const int64_t> left = set.labels;
  for (const CalibrationData::Sources* part : set.inputs.sources()) {
    const int64_t rows = part->begin()->second->spec().shape[0];
    const auto own = left.first(static_cast<size_t>(rows));
    left = left.subspan(own.size());
    const CalibrationData labels = {
        {"the samples' labels", Tensor::From<int64_t>(Shape{rows}, own)}};
    CalibrationData::Sources both = *part;
    both.insert(labels.sources()[0]->begin(), labels.sources()[0]->end());
    data.Add(std::move(both));
  }
  return data;
}

// What the result depends on, by the names of `octet qat`. `continued`: the start is the user's, the recipe says nothing.
absl::StatusOr<train::Origin> OriginOf(const Graph& fp32, bool continued,
                                       const QuantizeRecipe& recipe, const TrainSet& set,
                                       int64_t samples, const TrainOptions& options,
                                       const CalibrationRun& run, const Graph& start) {
  const bool labelled = options.loss == TrainLoss::kLabels;
  OCTET_ASSIGN_OR_RETURN(const uint64_t data, MarkOf(labelled ? WithLabels(set) : set.inputs));
  std::string passes;
  for (const std::string& pass : run.disabled_passes) passes += Format(" {}", pass);
  const auto rate =
      options.learning_rate ? Format("{}", *options.learning_rate) : std::string("default");
  return train::Origin{
      .model = MarkOf(fp32),
      .data = data,
      .start = MarkOf(start),
      .samples = samples,
      .options = {{"instruction set", DetectTarget(run.threads).isa},
                  {"oneDNN", OneDnnVersion()},
                  {"--loss", std::string(TrainLossName(options.loss))},
                  {"--optimizer", std::string(TrainMethodName(options.method))},
                  {"--compute", std::string(TrainComputeName(options.compute))},
                  {"--epochs", Format("{}", options.epochs)},
                  {"--batch", Format("{}", options.batch)},
                  {"--learning-rate", rate},
                  {"--learn-ranges", Format("{}", options.learn_ranges)},
                  {"--blend", Format("{}", options.blend)},
                  {"--flip", Format("{}", options.flip)},
                  {"--shift", Format("{}", options.shift)},
                  {"--held-back", Format("{}", options.held_back)},
                  {"--patience", Format("{}", options.patience)},
                  {"--seed", Format("{}", options.seed)},
                  {"--start", continued ? "given" : ""},
                  {"--activations", std::string(ActivationGridName(recipe.activation))},
                  {"--per-tensor", Format("{}", !recipe.per_channel)},
                  {"--weight-bits", Format("{}", recipe.weight_bits)},
                  {"--equalize", Format("{}", recipe.equalize)},
                  {"--smooth", Format("{}", recipe.smooth)},
                  {"--scale-concats", Format("{}", recipe.scale_concats)},
                  {"--compensate", Format("{}", recipe.compensate)},
                  {"--correct-bias", Format("{}", recipe.correct_bias)},
                  {"--fewer-roundings", Format("{}", recipe.fewer_roundings)},
                  {"--disable-pass", passes},
                  {"--threads", Format("{}", run.threads)}}};
}

// How the quantizer's recipe says that weights lie on a grid of 4 bits.
// Evened out, every channel fills its grid, and what the samples did not reach is cut: of 50 images vww-mobilenetv1 had 21 dB on others, not
// 30, also where those that were held back had less noise.
constexpr int64_t kFewestForGains = 100;
constexpr std::string_view kNibbleWords = " weight-bits=4";

// `model`: whose types the file declares.
absl::StatusOr<TrainResult> Finished(absl::StatusOr<TrainResult> result, const FloatModel& model,
                                     const TrainOptions& options) {
  if (!result.ok()) return result;
  model.RestoreTypes(result->graph);
  if (result->best_epoch == 0) return result;
  result->graph.metadata["octet.recipe"] +=
      Format(" trained={} epochs={}", TrainLossName(options.loss), result->best_epoch);
  return result;
}

}  // namespace

std::string_view TrainLossName(TrainLoss loss) { return kLossNames[static_cast<size_t>(loss)]; }
std::optional<TrainLoss> ParseTrainLoss(std::string_view name) {
  return ParseName<TrainLoss>(kLossNames, name);
}
std::string_view TrainComputeName(TrainCompute compute) {
  return kComputeNames[static_cast<size_t>(compute)];
}
std::optional<TrainCompute> ParseTrainCompute(std::string_view name) {
  return ParseName<TrainCompute>(kComputeNames, name);
}
std::string_view TrainMethodName(TrainMethod method) {
  return kMethodNames[static_cast<size_t>(method)];
}
std::optional<TrainMethod> ParseTrainMethod(std::string_view name) {
  return ParseName<TrainMethod>(kMethodNames, name);
}

absl::StatusOr<TrainResult> TrainInt8(const Graph& fp32, const QuantizeRecipe& recipe,
                                      const TrainSet& given, const TrainOptions& options,
                                      const CalibrationRun& run, const TrainWatch& watch) {
  if (recipe.to != Precision::kInt8)
    return InvalidArgument("training makes int8, not {}", PrecisionName(recipe.to));
  OCTET_RETURN_IF_ERROR(CheckOptions(options));
  OCTET_ASSIGN_OR_RETURN(const FloatModel model, InFloat(fp32));
  const TrainSet set{InFloat(given.inputs), given.labels};
  OCTET_ASSIGN_OR_RETURN(const int64_t samples, CountSamples(set, options));
  QuantizeRecipe all_int8 = recipe;  // What rounding breaks is what training is for.
  if (recipe.floor.kind == AccuracyFloor::Kind::kAuto)
    all_int8.floor.kind = AccuracyFloor::Kind::kAllInt8;
  all_int8.byte_constants = false;  // Training knows weights alone behind DequantizeLinear.
  OCTET_RETURN_IF_ERROR(CheckFinite(set.inputs));
  Graph gridded = model.graph;
  OCTET_RETURN_IF_ERROR(SeparateInputGrids(gridded, set.inputs).status());
  std::vector<Graph> starts;
  const auto quantize = [&](const OutputGains* gains) -> absl::Status {
    OCTET_ASSIGN_OR_RETURN(QuantizeResult start,
                           QuantizeForOutputs(gridded, all_int8, set.inputs, run, gains));
    starts.push_back(std::move(start.graph));
    return absl::OkStatus();
  };
  OCTET_RETURN_IF_ERROR(quantize(nullptr));
  // For weights per tensor, kws-dscnn had less noise so, and agreed no more; those of 4 bits have noise enough of their own.
  if (recipe.equalize && recipe.per_channel && recipe.weight_bits == 8 &&
      samples >= kFewestForGains) {
    OCTET_ASSIGN_OR_RETURN(const OutputGains gains,
                           train::MeasureGains(gridded, recipe, set.inputs, run, options.seed));
    OCTET_RETURN_IF_ERROR(quantize(&gains));
  }
  train::Origin origin;
  if (!watch.checkpoint.empty()) {
    OCTET_ASSIGN_OR_RETURN(
        origin, OriginOf(model.graph, false, recipe, set, samples, options, run, starts.back()));
  }
  return Finished(Trainer(set, options, run, watch, recipe.weight_bits, "its quantized form")
                      .Run(model.graph, starts, std::move(origin)),
                  model, options);
}

absl::StatusOr<TrainResult> TrainFrom(const Graph& fp32, const Graph& qdq, const TrainSet& given,
                                      const TrainOptions& options, const CalibrationRun& run,
                                      const TrainWatch& watch) {
  OCTET_RETURN_IF_ERROR(CheckOptions(options));
  OCTET_RETURN_IF_ERROR(CheckNotQuantized(fp32));
  OCTET_ASSIGN_OR_RETURN(const FloatModel teacher, InFloat(fp32));
  OCTET_ASSIGN_OR_RETURN(const FloatModel student, InFloat(qdq));
  const TrainSet set{InFloat(given.inputs), given.labels};
  OCTET_ASSIGN_OR_RETURN(const int64_t samples, CountSamples(set, options));
  OCTET_ASSIGN_OR_RETURN(Graph start,
                         train::ReadStart(student.graph, teacher.graph, run.disabled_passes));
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model,
                         Model::FromGraph(teacher.graph, {}));
  OCTET_RETURN_IF_ERROR(MatchInputs(model->signature(), set.inputs));
  OCTET_RETURN_IF_ERROR(CheckFinite(set.inputs));
  start.metadata["octet.precision"] = std::string(PrecisionName(Precision::kInt8));
  std::string& recipe = start.metadata["octet.recipe"];
  if (recipe.empty()) recipe = "static";
  const bool nibbles = recipe.find(kNibbleWords) != std::string::npos;
  train::Origin origin;
  if (!watch.checkpoint.empty()) {
    OCTET_ASSIGN_OR_RETURN(origin,
                           OriginOf(teacher.graph, true, {}, set, samples, options, run, start));
  }
  return Finished(
      Trainer(set, options, run, watch, nibbles ? 4 : 8, "the file that training goes on from")
          .Run(teacher.graph, {&start, 1}, std::move(origin)),
      student, options);
}

absl::StatusOr<TrainResult> TrainInt8File(const std::string& fp32, const std::string& start,
                                          const QuantizeRecipe& recipe, const TrainSet& set,
                                          const TrainOptions& options, const CalibrationRun& run,
                                          const TrainWatch& watch, const std::string& out) {
  OCTET_ASSIGN_OR_RETURN(const Graph graph, ReadOnnxFile(fp32));
  absl::StatusOr<TrainResult> result = absl::UnknownError("");
  if (start.empty()) {
    result = TrainInt8(graph, recipe, set, options, run, watch);
  } else {
    if (absl::Status status = CheckNotQuantized(graph); !status.ok()) return Annotate(status, fp32);
    OCTET_ASSIGN_OR_RETURN(const Graph qdq, ReadOnnxFile(start));
    result = TrainFrom(graph, qdq, set, options, run, watch);
  }
  if (!result.ok()) return Annotate(result.status(), start.empty() ? fp32 : start);
  LeaveOutDefaults(result->graph);
  OCTET_RETURN_IF_ERROR(WriteOnnxFile(result->graph, out));
  return result;
}

}  // namespace octet
