// octet qat: an fp32 model in, an int8 variant out that was trained with its rounding.
#include <filesystem>
#include <iostream>
#include <memory>

#include "cli/finite_range.h"
#include "cli/interrupt.h"
#include "cli/json_text.h"
#include "cli/model_options.h"
#include "cli/output_file.h"
#include "cli/progress.h"
#include "cli/rounding_options.h"
#include "cli/samples.h"
#include "cli/verb.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

struct QatOptions {
  std::string model;
  std::string start;
  std::string data;
  bool labels = false;
  std::string map;
  std::string out;
  std::string checkpoint;
  std::string loss = std::string(TrainLossName(TrainOptions{}.loss));
  std::string compute = std::string(TrainComputeName(TrainOptions{}.compute));
  std::string optimizer = std::string(TrainMethodName(TrainOptions{}.method));
  QuantizeRecipe recipe;
  TrainOptions train;
  std::vector<std::string> disabled_passes;
  int threads = 1;
  bool json = false;
};

absl::StatusOr<TrainSet> LoadTrainSet(const QatOptions& options) {
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model,
                         LoadFp32(options.model, options.disabled_passes, options.threads));
  OCTET_ASSIGN_OR_RETURN(const Samples samples,
                         Samples::Open(model->signature(), {{options.data}, options.map}));
  if (options.labels && !samples.has_labels())
    return InvalidArgument("--labels: {} has no array 'labels'", options.data);
  return TrainSet{samples.data(), samples.labels()};
}

nlohmann::ordered_json RowAsJson(const TrainEpoch& row) {
  return {{"epoch", row.epoch},
          {"train_loss", row.train_loss ? nlohmann::json(*row.train_loss) : nlohmann::json()},
          {"held_back_loss", row.held_back_loss},
          {"agreement", 100 * row.agreement},
          {"sureness", row.sureness},
          {"seconds", row.seconds},
          {"best", row.best}};
}

void PrintRow(const TrainEpoch& row, const char* begins) {
  if (row.epoch == 0) std::cout << "epoch   train loss   held-back loss   agreement   seconds\n";
  const std::string train_loss = row.train_loss ? Format("{:.4g}", *row.train_loss) : "";
  std::cout << Format("{:>5} {:>12} {:>16.4g} {:>9.2f} % {:>9.2f}{}{}\n", row.epoch, train_loss,
                      row.held_back_loss, 100 * row.agreement, row.seconds,
                      row.epoch == 0 ? begins
                      : row.best     ? "  best"
                                     : "",
                      row.restored ? "  (checkpoint)" : "")
            << std::flush;
}

absl::Status MakeFolderOf(const std::string& file) {
  const std::filesystem::path folder = std::filesystem::path(file).parent_path();
  std::error_code error;
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error)
    return InvalidArgument("cannot create folder {}: {}", folder.string(), error.message());
  return absl::OkStatus();
}

// Before hours of training, not after them.
absl::Status CheckOutputs(const QatOptions& options) {
  std::vector<std::string> others = {options.model, options.start, options.data, options.map};
  OCTET_RETURN_IF_ERROR(MakeFolderOf(options.out));
  OCTET_RETURN_IF_ERROR(CheckOutputFile(options.out, others));
  if (options.checkpoint.empty()) return absl::OkStatus();
  others.push_back(options.out);
  OCTET_RETURN_IF_ERROR(MakeFolderOf(options.checkpoint));
  return CheckOutputFile(options.checkpoint, others);
}

// What labels teach instead, and what the file to start from decides.
absl::Status CheckGiven(const CLI::App& verb, const QatOptions& options) {
  for (const char* option : kRoundingOptions) {
    if (!options.start.empty() && verb.count(option) > 0)
      return InvalidArgument("{}: of how the fp32 model is quantized; --start says it has been",
                             option);
  }
  for (const char* option : {"--loss", "--blend"}) {
    if (options.labels && verb.count(option) > 0)
      return InvalidArgument("{}: of what the fp32 model teaches; with --labels, these do", option);
  }
  return absl::OkStatus();
}

absl::Status Train(const QatOptions& options) {
  TrainOptions train = options.train;
  train.loss = options.labels ? TrainLoss::kLabels : *ParseTrainLoss(options.loss);
  train.compute = *ParseTrainCompute(options.compute);
  train.method = *ParseTrainMethod(options.optimizer);
  OCTET_ASSIGN_OR_RETURN(const TrainSet set, LoadTrainSet(options));
  OCTET_RETURN_IF_ERROR(CheckOutputs(options));
  StopOnInterrupt();
  std::optional<ProgressBar> bar;
  int64_t bar_total = 0;
  CalibrationRun run{.threads = options.threads, .disabled_passes = options.disabled_passes};
  run.progress = [&](int64_t done, int64_t total) {
    if (!bar || total != bar_total) bar.emplace("calibrating", bar_total = total);
    bar->Update(done);
    return !Interrupted();
  };
  TrainWatch watch;
  watch.checkpoint = options.checkpoint;
  watch.keep_going = [] { return !Interrupted(); };
  watch.on_epoch = [&](const TrainEpoch& row) {
    bar.reset();
    if (!options.json) PrintRow(row, options.start.empty() ? "  calibrated" : "  started from");
  };
  OCTET_ASSIGN_OR_RETURN(const TrainResult result,
                         TrainInt8File(options.model, options.start, options.recipe, set, train,
                                       run, watch, options.out));
  if (!result.checkpoint.ok()) {
    std::cerr << Format("octet: warning: {} is written, its last checkpoint is not: {}\n",
                        options.out, Message(result.checkpoint));
  }
  if (options.json) {
    nlohmann::ordered_json epochs = nlohmann::json::array();
    for (const TrainEpoch& row : result.epochs) epochs.push_back(RowAsJson(row));
    std::cout << JsonText({{"file", options.out},
                           {"best_epoch", result.best_epoch},
                           {"epochs", std::move(epochs)}})
              << '\n';
  } else if (result.best_epoch == 0) {
    std::cout << (options.start.empty()
                      ? std::string(
                            "no epoch was better than calibration, whose result was written\n")
                      : Format("no epoch was better than {}, which was written\n", options.start));
  }
  return absl::OkStatus();
}

void AddTrainOptions(CLI::App& verb, QatOptions& options) {
  TrainOptions& train = options.train;
  verb.add_flag(
      "--labels", options.labels,
      "Learn the data's labels; without it the fp32 model teaches, as --loss and --blend say");
  verb.add_option("--loss", options.loss, "What is learned from the fp32 model")
      ->check(CLI::IsMember({"kl", "mse"}))
      ->capture_default_str();
  verb.add_option("--optimizer", options.optimizer, "How weights move")
      ->check(CLI::IsMember({"adam", "sgd"}))
      ->capture_default_str();
  verb.add_option("--compute", options.compute,
                  "What convolutions and products multiply in, forward and backward; sums, weights "
                  "and steps are f32 in both")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  verb.add_option("--epochs", train.epochs, "Passes over the data at most")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  verb.add_option("--batch", train.batch, "Samples per step")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  verb.add_option("--learning-rate", train.learning_rate,
                  "Of the first step; falls to 0 along a cosine [0.01 for adam, 0.001 for sgd]")
      ->check(FiniteRange(1e-30, 1e30));
  verb.add_flag("--learn-ranges,!--keep-ranges", train.learn_ranges,
                "Learn the activations' scales, too")
      ->capture_default_str();
  verb.add_option(
          "--blend", train.blend,
          "Share of batches whose samples are blended with others for the fp32 model to answer")
      ->check(FiniteRange(0.0, 1.0))
      ->capture_default_str();
  verb.add_flag("--flip", train.flip, "Mirror half of the samples, along their last axis");
  verb.add_option("--shift", train.shift,
                  "Elements by which samples are moved at most, along each axis behind their "
                  "channels; what the border holds is repeated")
      ->check(CLI::Range(0, 65536))
      ->capture_default_str();
  verb.add_option("--held-back", train.held_back,
                  "Share of the data that decides which epoch is the best")
      ->check(FiniteRange(0.01, 0.9))
      ->capture_default_str();
  verb.add_option("--patience", train.patience,
                  "Epochs without a lower held-back loss before it stops")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--seed", train.seed, "Of shuffling, splitting, blending, flipping and shifting")
      ->capture_default_str();
}

}  // namespace

void AddQat(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<QatOptions>();
  options->recipe.fewer_roundings = true;  // Who trains wants accuracy.
  CLI::App* verb = app.add_subcommand(
      "qat", "Train a model with its rounding, from its quantized form on, into an int8 variant");
  verb->add_option("MODEL", options->model, "ONNX file of an fp32, fp16, bf16 or fp64 model")
      ->required();
  verb->add_option("--start", options->start,
                   "QDQ file of the same model to go on from, by this or another tool, instead of "
                   "quantizing MODEL, which still teaches");
  verb->add_option("--data", options->data,
                   "Samples, and labels: an .npz or .npy file, or a folder of them")
      ->required();
  verb->add_option("--map", options->map,
                   "model.yaml that says how the samples' element type maps to the model's");
  verb->add_option("--out", options->out, "File to write")->required();
  verb->add_option("--checkpoint", options->checkpoint,
                   "File that keeps where training stands, after every epoch and when it is "
                   "interrupted; the same command goes on from it, to the same result");
  AddTrainOptions(*verb, *options);
  AddRoundingOptions(*verb, options->recipe);
  AddRunOptions(*verb, options->disabled_passes, options->threads);
  verb->add_flag("--json", options->json, "Print JSON");
  verb->callback([options, verb, &outcome] {
    absl::Status status = CheckGiven(*verb, *options);
    if (status.ok()) status = Train(*options);
    if (!status.ok()) outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli
