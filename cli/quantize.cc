// octet quantize: a model of reals in, its other precisions out.
#include <algorithm>
#include <array>
#include <filesystem>
#include <iostream>
#include <memory>
#include <set>

#include "cli/finite_range.h"
#include "cli/interrupt.h"
#include "cli/json_text.h"
#include "cli/mixed_options.h"
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

namespace fs = std::filesystem;

struct QuantizeOptions {
  std::string model;
  std::vector<std::string> to = {"fp16", "bf16", "int8", "int8-dynamic"};
  std::vector<std::string> calibration;
  std::vector<std::string> calibration_files;
  std::string save_calibration;
  std::string map;
  std::string out;
  std::string method = std::string(RangeMethodName(QuantizeRecipe{}.method));
  std::optional<double> percentile;
  QuantizeRecipe rounding;
  MixedOptions mixed;
  std::vector<std::string> disabled_passes;
  int threads = 1;
  bool json = false;
};

// What is of no use where --to leaves int8 out.
constexpr std::array kForInt8 = {
    "--calibration", "--calibration-file", "--save-calibration", "--activations",
    "--method",      "--percentile",       "--weight-bits",      "--equalize",
    "--smooth",      "--scale-concats",    "--compensate",       "--correct-bias",
    "--max-drop",    "--min-agreement",    "--min-sqnr-db",      "--all-int8",
    "--seed",        "--fewer-roundings"};

// A precision that is named twice is made once.
void DropRepeats(std::vector<std::string>& names) {
  std::set<std::string> seen;
  std::erase_if(names, [&](const std::string& name) { return !seen.insert(name).second; });
}

// What nobody would read is refused: a floor that was not held is worse than none.
absl::Status CheckGiven(const CLI::App& verb, const QuantizeOptions& options) {
  const bool to_int8 = std::ranges::contains(options.to, "int8");
  for (const char* option : kForInt8) {
    if (!to_int8 && verb.count(option) > 0)
      return InvalidArgument("{}: for int8 alone, which --to leaves out", option);
  }
  const bool to_integers = to_int8 || std::ranges::contains(options.to, "int8-dynamic");
  for (const char* option : {"--per-tensor", "--byte-constants"}) {
    if (!to_integers && verb.count(option) > 0)
      return InvalidArgument("{}: for int8 and int8-dynamic, which --to leaves out", option);
  }
  if (verb.count("--percentile") > 0 && options.method != "percentile")
    return InvalidArgument("--percentile: for --method percentile, not {}", options.method);
  if (!to_int8 || !options.calibration.empty() || options.calibration_files.empty())
    return absl::OkStatus();
  const AccuracyFloor::Kind floor = options.mixed.Floor().kind;
  if (floor != AccuracyFloor::Kind::kAuto && floor != AccuracyFloor::Kind::kAllInt8)
    return InvalidArgument(
        "a floor of accuracy takes samples, --calibration, beside --calibration-file");
  if (*ParseRangeMethod(options.method) == RangeMethod::kAuto)
    return InvalidArgument(
        "--method auto takes samples, --calibration, beside --calibration-file: give some, or "
        "another method");
  return absl::OkStatus();
}

QuantizeRecipe RecipeFor(const QuantizeOptions& options, Precision to) {
  QuantizeRecipe recipe = options.rounding;
  recipe.to = to;
  recipe.method = *ParseRangeMethod(options.method);
  recipe.percentile = options.percentile.value_or(recipe.percentile);
  recipe.floor = options.mixed.Floor();
  recipe.seed = options.mixed.seed;
  return recipe;
}

absl::StatusOr<Samples> LoadCalibration(const QuantizeOptions& options) {
  if (options.calibration.empty() && !options.calibration_files.empty()) return Samples();
  if (options.calibration.empty())
    return InvalidArgument(
        "int8 needs --calibration, sample inputs, or --calibration-file, their statistics");
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model,
                         LoadFp32(options.model, options.disabled_passes, options.threads));
  OCTET_ASSIGN_OR_RETURN(
      Samples samples,
      Samples::Open(model->signature(),
                    {.paths = options.calibration, .map = options.map, .one_shape = false}));
  if (options.mixed.max_drop && !samples.has_labels())
    return InvalidArgument("--max-drop: {} has no array 'labels'", options.calibration.front());
  return samples;
}

std::string FileFor(const QuantizeOptions& options, std::string_view precision) {
  return (fs::path(options.out) / (std::string(precision) + ".onnx")).string();
}

absl::StatusOr<nlohmann::ordered_json> MakeVariant(const QuantizeOptions& options, Precision to,
                                                   const Samples& calibration) {
  const std::string out = FileFor(options, PrecisionName(to));
  std::optional<ProgressBar> bar;
  int64_t bar_total = 0;
  CalibrationRun run{.threads = options.threads,
                     .disabled_passes = options.disabled_passes,
                     .statistics_from = options.calibration_files,
                     .statistics_to = options.save_calibration,
                     .labels = calibration.labels()};
  run.progress = [&](int64_t done, int64_t total) {
    if (total != bar_total) bar.emplace("calibrating", bar_total = total);
    bar->Update(done);
    return !Interrupted();
  };
  OCTET_ASSIGN_OR_RETURN(
      const QuantizeSummary made,
      QuantizeFile(options.model, RecipeFor(options, to), calibration.data(), run, out));
  bar.reset();
  OCTET_ASSIGN_OR_RETURN(const uint64_t model_bytes, OnnxFileBytes(options.model));
  OCTET_ASSIGN_OR_RETURN(const uint64_t bytes, OnnxFileBytes(out));
  nlohmann::ordered_json layers = nlohmann::json::array();
  for (const QuantizeRecord& record : made.records) {
    layers.push_back({{"name", record.name}, {"what", record.what}, {"detail", record.detail}});
  }
  nlohmann::ordered_json json{
      {"precision", PrecisionName(to)},
      {"file", out},
      {"bytes", bytes},
      {"ratio", static_cast<double>(bytes) / static_cast<double>(model_bytes)},
      {"records", std::move(layers)}};
  if (made.mixed) json["mixed"] = MixedAsJson(*made.mixed);
  return json;
}

// What was tried of ranges, where others than the best ones for all values were kept, and what makes the figures, or the file, doubtful.
void PrintTried(const nlohmann::ordered_json& records) {
  for (const nlohmann::ordered_json& record : records) {
    const auto what = record["what"].get<std::string>();
    constexpr std::array<std::string_view, 5> kPrinted = {"tried", "ranges", "seen", "noisy",
                                                          "slower"};
    if (!std::ranges::contains(kPrinted, what)) continue;
    std::cout << Format("  {} {}: {}\n", what, record["name"].get<std::string>(),
                        record["detail"].get<std::string>());
  }
}

// Before minutes of calibration, not after them.
absl::Status CheckOutputs(const QuantizeOptions& options) {
  std::vector<std::string> others = options.calibration_files;
  others.insert(others.end(), options.calibration.begin(), options.calibration.end());
  others.insert(others.end(), {options.model, options.map});
  for (const std::string& name : options.to)
    OCTET_RETURN_IF_ERROR(CheckOutputFile(FileFor(options, name), others));
  if (options.save_calibration.empty()) return absl::OkStatus();
  // It may be one of the calibration files, which are merged into it.
  std::vector<std::string> kept(others.begin() + std::ssize(options.calibration_files),
                                others.end());
  for (const std::string& name : options.to) kept.push_back(FileFor(options, name));
  return CheckOutputFile(options.save_calibration, kept);
}

absl::Status QuantizeAll(const QuantizeOptions& options) {
  std::error_code error;
  fs::create_directories(options.out, error);
  if (error) return InvalidArgument("cannot create folder {}: {}", options.out, error.message());
  OCTET_RETURN_IF_ERROR(CheckOutputs(options));
  OCTET_RETURN_IF_ERROR(CheckFp32File(options.model));  // Before data are held against it.
  StopOnInterrupt();
  std::vector<nlohmann::ordered_json> results(options.to.size());
  // What data may break comes first: new variants are not to lie beside an int8 file of an older model.
  std::vector<std::string> to = options.to;
  std::ranges::stable_partition(to, [](const std::string& name) { return name == "int8"; });
  Samples calibration;
  if (std::ranges::contains(to, "int8")) {
    OCTET_ASSIGN_OR_RETURN(calibration, LoadCalibration(options));
  }
  for (const std::string& name : to) {
    const Precision precision = *ParsePrecision(name);
    // What is made without a pass over data asks nobody.
    if (Interrupted()) return absl::CancelledError("quantize was stopped");
    OCTET_ASSIGN_OR_RETURN(nlohmann::ordered_json made,
                           MakeVariant(options, precision, calibration));
    if (!options.json) {
      std::cout << Format("{:<13} {:>10} bytes  {:.3f} of MODEL  {}\n", name,
                          made["bytes"].get<int64_t>(), made["ratio"].get<double>(),
                          made["file"].get<std::string>());
      PrintTried(made["records"]);
      if (made.contains("mixed")) PrintMixed(made["mixed"]);
    }
    results[static_cast<size_t>(std::ranges::find(options.to, name) - options.to.begin())] =
        std::move(made);
  }
  if (options.json) std::cout << JsonText(results) << '\n';
  return absl::OkStatus();
}

}  // namespace

void AddQuantize(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<QuantizeOptions>();
  CLI::App* verb = app.add_subcommand("quantize", "Make a model's variants in other precisions");
  verb->add_option("MODEL", options->model, "ONNX file of an fp32, fp16, bf16 or fp64 model")
      ->required();
  verb->add_option("--to", options->to, "Precisions to make")
      ->delimiter(',')
      ->check(CLI::IsMember({"fp16", "bf16", "int8", "int8-dynamic"}))
      ->capture_default_str();
  verb->add_option("--calibration", options->calibration,
                   "Sample inputs (int8): an .npz or .npy file, or a folder of them, such "
                   "as the requests that a server captured; may be given several times. Files may "
                   "differ in extents that the model leaves open")
      ->allow_extra_args(false);
  verb->add_option(
          "--calibration-file", options->calibration_files,
          "Statistics that --save-calibration kept, of this model; several are merged. They "
          "take the place of a pass over --calibration, which then may be left out, but "
          "for --method auto and floors of accuracy")
      ->delimiter(',');
  verb->add_option("--save-calibration", options->save_calibration,
                   "File (.npz) for the statistics of --calibration, or of the merged "
                   "--calibration-file; a run that was stopped goes on from it");
  verb->add_option("--map", options->map,
                   "model.yaml that says how the samples' element type maps to the model's");
  verb->add_option("--out", options->out, "Folder for <precision>.onnx")->required();
  verb->add_option("--method", options->method, "How calibrated values become ranges")
      ->check(CLI::IsMember({"auto", "min-max", "moving-average", "percentile", "mse", "entropy"}))
      ->capture_default_str();
  verb->add_option("--percentile", options->percentile,
                   Format("Per cent of values inside the range (--method percentile) [{}]",
                          QuantizeRecipe{}.percentile))
      ->check(FiniteRange(50.0, 100.0));
  AddRoundingOptions(*verb, options->rounding);
  verb->add_flag("--byte-constants,!--no-byte-constants", options->rounding.byte_constants,
                 "Hold constants that stay real (embeddings, weights of recurrent layers and of "
                 "layers in float) in 8 bits where the outputs do not mind (int8 without a floor "
                 "of yours, int8-dynamic)")
      ->capture_default_str();
  options->mixed.AddTo(*verb);
  AddRunOptions(*verb, options->disabled_passes, options->threads);
  verb->add_flag("--json", options->json, "Print JSON");
  verb->callback([options, verb, &outcome] {
    DropRepeats(options->to);
    absl::Status status = CheckGiven(*verb, *options);
    if (status.ok()) status = QuantizeAll(*options);
    if (!status.ok()) outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli
