// octet report: what quantization did to a model, as one page and as JSON.
#include <ctime>
#include <iostream>
#include <memory>

#include "cli/model_options.h"
#include "cli/output_file.h"
#include "cli/progress.h"
#include "cli/report/page.h"
#include "cli/report/records.h"
#include "cli/report/resident_memory.h"
#include "cli/report/variant.h"
#include "cli/samples.h"
#include "cli/timed_runs.h"
#include "cli/verb.h"
#include "cli/version.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/pending_file.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

struct ReportOptions {
  std::string model;
  std::vector<std::string> variants;
  std::string data;
  std::string map;
  std::string out = "report.html";
  std::string json;
  std::string quantize_record;
  std::string training_record;
  ReportSettings settings;
};

class Report {
 public:
  explicit Report(const ReportOptions& options) : options_(options), settings_(options.settings) {}

  absl::Status Make() {
    OCTET_ASSIGN_OR_RETURN(const std::vector<std::string> files,
                           ReportFiles(options_.model, options_.variants));
    std::vector<std::string> others = files;
    others.insert(others.end(), {options_.data, options_.map, options_.quantize_record,
                                 options_.training_record});
    OCTET_RETURN_IF_ERROR(CheckOutputFile(options_.out, others));
    others.push_back(options_.out);
    if (!options_.json.empty()) OCTET_RETURN_IF_ERROR(CheckOutputFile(options_.json, others));
    OCTET_ASSIGN_OR_RETURN(quantize_record_, ReadQuantizeRecord(options_.quantize_record));
    OCTET_ASSIGN_OR_RETURN(training_record_, ReadTrainingRecord(options_.training_record));
    OCTET_RETURN_IF_ERROR(Load(files));
    for (Variant& variant : variants_) {
      Session* reference = &variant == &fp32() ? nullptr : &fp32().session;
      auto tally = Evaluate(variant.session, reference, *samples_, settings_.batch);
      if (!tally.ok()) return Annotate(tally.status(), variant.file);
      variant.tally = *tally;
    }
    OCTET_RETURN_IF_ERROR(CompareAllLayers());
    OCTET_RETURN_IF_ERROR(MeasureLatencies());
    for (Variant& variant : variants_) {
      const auto peak = PeakResidentBytes(variant.file, settings_.threads);
      if (!peak.ok()) {
        Fail(peak.status());  // The rest of the report holds without it.
        continue;
      }
      variant.peak_resident_bytes = *peak;
    }
    return Write();
  }

 private:
  Variant& fp32() { return variants_[0]; }

  absl::Status Load(const std::vector<std::string>& files) {
    ConfigureWorkerThread(settings_.threads);
    for (const std::string& file : files) {
      OCTET_ASSIGN_OR_RETURN(Variant variant,
                             LoadVariant(file, settings_.threads,
                                         variants_.empty() ? nullptr : &fp32().session.model()));
      variants_.push_back(std::move(variant));
    }
    OCTET_ASSIGN_OR_RETURN(
        samples_, Samples::Load(fp32().session.model().signature(), options_.data, options_.map));
    settings_.labels = samples_->has_labels();
    for (Variant& variant : variants_) {
      OCTET_RETURN_IF_ERROR(PrepareFirst(variant));
      variant.certificate = variant.session.plan().certificate();
      variant.memory = variant.session.plan().memory();
      variant.weights_bytes = variant.session.model().resident_weight_bytes();
    }
    return absl::OkStatus();
  }

  absl::Status CompareAllLayers() {
    const CalibrationSet set = samples_->AsModelInputs();
    OCTET_ASSIGN_OR_RETURN(const Graph graph, ReadOnnxFile(fp32().file));
    ProgressBar progress("comparing layers", std::ssize(variants_) - 1);
    for (size_t i = 1; i < variants_.size(); ++i) {
      OCTET_ASSIGN_OR_RETURN(Graph variant, ReadOnnxFile(variants_[i].file));
      auto layers = CompareLayers(graph, std::move(variant), set, {.threads = settings_.threads});
      if (!layers.ok()) return Annotate(layers.status(), variants_[i].file);
      variants_[i].layers = *std::move(layers);
      progress.Update(static_cast<int64_t>(i));
    }
    return absl::OkStatus();
  }

  // The first sample, or as many as a model with a batch of its own takes.
  absl::Status PrepareFirst(Variant& variant) {
    const Shape& shape = variant.session.model().signature().inputs[0].shape;
    const int64_t rows = shape[0] == kUnknownDim ? 1 : shape[0];
    if (rows > samples_->count()) {
      return InvalidArgument("too few samples: the model's own batch is {}, got {}: '{}'", rows,
                             samples_->count(), variant.file);
    }
    OCTET_RETURN_IF_ERROR(variant.session.Prepare(samples_->BatchShapes(rows)));
    for (size_t i = 0; i < samples_->inputs().size(); ++i)
      samples_->Fill(i, 0, rows, variant.session.input(i));
    variant.timed_batch = rows;
    return absl::OkStatus();
  }

  // The variants take turns in short rounds, so that what else the machine does meets all of them.
  absl::Status MeasureLatencies() {
    for (Variant& variant : variants_) OCTET_RETURN_IF_ERROR(PrepareFirst(variant));
    ProgressBar progress("measuring", settings_.rounds);
    for (int round = 0; round < settings_.rounds; ++round) {
      std::vector<double> medians(variants_.size());
      for (size_t turn = 0; turn < variants_.size(); ++turn) {
        const size_t i = round % 2 == 0 ? turn : variants_.size() - 1 - turn;
        OCTET_ASSIGN_OR_RETURN(TimedRuns runs, TimeRuns(variants_[i].session, settings_.seconds));
        medians[i] = runs.latencies.MicrosecondsAt(50);
        variants_[i].latencies.Merge(runs.latencies);
      }
      for (size_t i = 0; i < variants_.size(); ++i)
        variants_[i].speedups.push_back(medians[0] / medians[i]);
      progress.Update(round + 1);
    }
    return absl::OkStatus();
  }

  nlohmann::ordered_json ToJson() {
    const Target target = DetectTarget(settings_.threads);
    const std::time_t now = std::time(nullptr);
    std::tm utc{};
    gmtime_r(&now, &utc);
    char made_at[sizeof "2000-01-01T00:00:00Z"];
    std::strftime(made_at, sizeof made_at, "%FT%TZ", &utc);
    return {{"made_at", made_at},
            {"made_by", VersionText()},
            {"model", fp32().file},
            {"data", options_.data},
            {"samples", samples_->count()},
            {"labels", settings_.labels},
            {"machine",
             {{"isa", target.isa},
              {"bf16_arithmetic", target.bf16},
              {"float16_arithmetic", target.f16},
              {"threads", settings_.threads}}},
            {"settings",
             {{"batch", settings_.batch},
              {"rounds", settings_.rounds},
              {"seconds", settings_.seconds},
              {"claim_tolerance", kClaimTolerance}}},
            {"variants", VariantsAsJson(variants_, settings_)},
            {"quantize_record", quantize_record_},
            {"training_record", training_record_}};
  }

  absl::Status Write() {
    const nlohmann::ordered_json report = ToJson();
    if (!options_.json.empty())
      OCTET_RETURN_IF_ERROR(WriteWholeFile(options_.json, ReportText(report)));
    OCTET_RETURN_IF_ERROR(WriteWholeFile(options_.out, ReportPage(report)));
    for (const auto& row : report["variants"]) Print(row);
    std::cout << "report: " << options_.out << '\n';
    return absl::OkStatus();
  }

  void Print(const nlohmann::ordered_json& row) const {
    const nlohmann::ordered_json& quality =
        row["accuracy"][settings_.labels ? "top1" : "agreement"];
    std::cout << Format("{:<14} {:.3f} of the bytes  p50 {:.3f} ms  {:.2f}x  {} {}\n",
                        row["name"].get<std::string>(), row["ratio"].get<double>(),
                        row["latency"]["p50_ms"].get<double>(),
                        row["latency"]["speedup"].get<double>(),
                        settings_.labels ? "top-1" : "agreement",
                        quality.is_null() ? "-" : Format("{:.2f} %", quality.get<double>()));
    for (const auto& claim : row["claims"]) {
      const std::string reason = claim["reason"].get<std::string>();
      std::cout << Format("  {}: {}{}\n", claim["claim"].get<std::string>(),
                          claim["verdict"].get<std::string>(),
                          reason.empty() ? "" : " (" + reason + ")");
    }
  }

  const ReportOptions& options_;
  ReportSettings settings_;
  std::vector<Variant> variants_;
  std::optional<Samples> samples_;
  nlohmann::ordered_json quantize_record_;  // Null when there is none.
  nlohmann::ordered_json training_record_;
};

}  // namespace

void AddReport(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App* verb = app.add_subcommand(
      "report", "Measure what quantization did to a model: one HTML page, and JSON");
  verb->add_option("MODEL", options->model,
                   "Folder with fp32.onnx and its variants, or the fp32 ONNX file")
      ->required();
  verb->add_option("--variants", options->variants, "More variants of the model: ONNX files");
  verb->add_option("--data", options->data, ".npz with the inputs, and labels")->required();
  verb->add_option("--map", options->map,
                   "model.yaml that says how the samples' element type maps to the model's");
  verb->add_option("--out", options->out, "Page to write")->capture_default_str();
  verb->add_option("--json", options->json, "Also write the report as JSON, to this file");
  verb->add_option("--quantize-record", options->quantize_record,
                   "What octet quantize --json printed, to be shown");
  verb->add_option("--training-record", options->training_record,
                   "What octet qat --json printed, to be shown as a curve");
  verb->add_option("--threads", options->settings.threads, "OpenMP threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  verb->add_option("--batch", options->settings.batch, "Samples per run, for accuracy")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--rounds", options->settings.rounds,
                   "Rounds in which the variants take turns, for latency")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  verb->add_option("--seconds", options->settings.seconds, "Length of each variant's turn")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  verb->callback([options, &outcome] {
    if (const absl::Status status = Report(*options).Make(); !status.ok())
      outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli
