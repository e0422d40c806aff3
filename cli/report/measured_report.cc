#include "cli/report/measured_report.h"

#include <ctime>
#include <optional>

#include "cli/model_options.h"
#include "cli/progress.h"
#include "cli/report/claims.h"
#include "cli/report/records.h"
#include "cli/report/resident_memory.h"
#include "cli/samples.h"
#include "cli/timed_runs.h"
#include "cli/version.h"

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

class ReportMaker {
 public:
  explicit ReportMaker(const ReportRequest& request)
      : request_(request), settings_(request.settings) {}

  absl::StatusOr<nlohmann::ordered_json> Make() {
    OCTET_ASSIGN_OR_RETURN(quantize_record_, ReadQuantizeRecord(request_.quantize_record));
    OCTET_ASSIGN_OR_RETURN(training_record_, ReadTrainingRecord(request_.training_record));
    OCTET_RETURN_IF_ERROR(Load(request_.files));
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
    return ToJson();
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
    OCTET_ASSIGN_OR_RETURN(samples_, Samples::Open(fp32().session.model().signature(),
                                                   {{request_.data}, request_.map}));
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
    OCTET_ASSIGN_OR_RETURN(const Graph graph, ReadOnnxFile(fp32().file));
    ProgressBar progress("comparing layers", std::ssize(variants_) - 1);
    for (size_t i = 1; i < variants_.size(); ++i) {
      OCTET_ASSIGN_OR_RETURN(Graph variant, ReadOnnxFile(variants_[i].file));
      auto layers = CompareLayers(graph, std::move(variant), samples_->data(),
                                  {.threads = settings_.threads});
      if (!layers.ok()) return Annotate(layers.status(), variants_[i].file);
      variants_[i].layers = *std::move(layers);
      progress.Update(static_cast<int64_t>(i));
    }
    return absl::OkStatus();
  }

  // The first sample, or as many as a model with a batch of its own takes.
  absl::Status PrepareFirst(Variant& variant) {
    const int64_t own = samples_->OwnBatch(variant.session.model().signature());
    const int64_t rows = own == kUnknownDim ? 1 : own;
    if (rows > samples_->count()) {
      return InvalidArgument("too few samples: the model's own batch is {}, got {}: '{}'", rows,
                             samples_->count(), variant.file);
    }
    OCTET_RETURN_IF_ERROR(variant.session.Prepare(samples_->BatchShapes(0, rows)));
    OCTET_RETURN_IF_ERROR(FillInputs(*samples_, 0, rows, variant.session));
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
            {"data", request_.data},
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

  const ReportRequest& request_;
  ReportSettings settings_;
  std::vector<Variant> variants_;
  std::optional<Samples> samples_;
  nlohmann::ordered_json quantize_record_;  // Null when there is none.
  nlohmann::ordered_json training_record_;
};

}  // namespace

absl::StatusOr<nlohmann::ordered_json> MeasureReport(const ReportRequest& request) {
  return ReportMaker(request).Make();
}

}  // namespace octet::cli
