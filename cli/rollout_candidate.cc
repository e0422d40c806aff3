#include "cli/rollout_candidate.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "cli/evaluation.h"
#include "cli/model_options.h"
#include "cli/samples.h"
#include "cli/session.h"

#include "engine/engine.h"
#include "engine/tensor/status.h"
#include "server/http/certificate_json.h"

namespace octet::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBatch = 8;

absl::StatusOr<std::shared_ptr<const Model>> Load(const std::string& file, Precision precision,
                                                  int threads) {
  LoadOptions options;
  options.precision = precision;
  options.threads = threads;
  return Model::Load(file, options);
}

/// A finished file, and what lies beside it of its tensors, as one. What is no model is told when it is loaded.
absl::Status Take(const std::string& finished, const std::string& out) {
  std::error_code error;
  if (fs::equivalent(finished, out, error)) return absl::OkStatus();
  const uintmax_t own_bytes = fs::file_size(finished, error);
  if (error) return NotFound("cannot read {}: {}", finished, error.message());
  if (const auto bytes = OnnxFileBytes(finished); bytes.ok() && *bytes > own_bytes) {
    OCTET_ASSIGN_OR_RETURN(const Graph graph, ReadOnnxFile(finished));
    return WriteOnnxFile(graph, out);
  }
  fs::copy_file(finished, out, fs::copy_options::overwrite_existing, error);
  return error ? NotFound("cannot read {}: {}", finished, error.message()) : absl::OkStatus();
}

absl::Status Make(const CandidateRequest& request) {
  if (!request.finished.empty()) return Take(request.finished, request.out);
  QuantizeRecipe recipe;
  recipe.to = request.plan.candidate;
  CalibrationData calibration;
  if (recipe.to == Precision::kInt8) {
    OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model,
                           Load(request.fp32, Precision::kFp32, request.threads));
    OCTET_ASSIGN_OR_RETURN(
        const Samples samples,
        Samples::Open(model->signature(),
                      {.paths = {request.calibration}, .map = request.map, .one_shape = false}));
    calibration = samples.data();
  }
  return QuantizeFile(request.fp32, recipe, calibration, {.threads = request.threads}, request.out)
      .status();
}

/// Compares with the baseline over the data.
absl::Status Compare(const CandidateRequest& request, std::shared_ptr<const Model> candidate,
                     CandidateProof& proof) {
  OCTET_ASSIGN_OR_RETURN(
      const Samples samples,
      Samples::Open(candidate->signature(), {{request.calibration}, request.map}));
  OCTET_ASSIGN_OR_RETURN(std::shared_ptr<const Model> baseline,
                         Load(request.baseline, request.plan.baseline, request.threads));
  Session session(std::move(candidate));
  Session reference(std::move(baseline));
  OCTET_ASSIGN_OR_RETURN(const Tally tally, Evaluate(session, &reference, samples, kBatch));
  std::optional<double> agreement;  // None of answers without classes.
  if (tally.class_rows > 0)
    agreement = 100 * static_cast<double>(tally.agree) / static_cast<double>(tally.class_rows);
  proof.json.update(ToJson(tally, samples.has_labels(), true));
  if (tally.reals) {
    proof.summary += Format(", {}SQNR {:.1f} dB over {} samples",
                            agreement ? Format("agreement {:.2f} % and ", *agreement) : "",
                            tally.noise.SqnrDb(), tally.count);
  } else {
    proof.summary += Format(", {:.2f} % of '{}' equal over {} samples",
                            AgreementPercent(tally).value_or(100), tally.output, tally.count);
  }
  const auto refuse = [&](std::string_view what, double value, const std::optional<double>& floor) {
    if (!floor || value >= *floor || !proof.refused.empty()) return;
    proof.refused =
        Format("{} over the calibration data: {:.2f}, expected at least {}", what, value, *floor);
  };
  if (agreement) {
    refuse("agreement, %,", *agreement, request.plan.guard.agreement_percent);
  } else if (request.plan.guard.agreement_percent.value_or(0) > 0 && proof.refused.empty()) {
    proof.refused =
        "agreement on classes is asked for, and no output has class scores: ask for an SQNR "
        "instead";
  }
  if (request.plan.guard.sqnr_db && !tally.reals && proof.refused.empty())
    proof.refused = "an SQNR is asked for, and no output holds reals";
  if (request.plan.guard.sqnr_db && tally.noise.lost > 0 && proof.refused.empty()) {
    proof.refused = Format(
        "SQNR, dB, over the calibration data: none, {} elements are a NaN or infinite where the "
        "baseline's are finite, expected at least {}",
        tally.noise.lost, *request.plan.guard.sqnr_db);
  }
  refuse("SQNR, dB,", tally.noise.SqnrDb(), request.plan.guard.sqnr_db);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CandidateProof> MakeCandidate(const CandidateRequest& request) {
  OCTET_RETURN_IF_ERROR(Make(request));
  CandidateProof proof;
  const uintmax_t bytes = fs::file_size(request.out);
  proof.json = {{"precision", PrecisionName(request.plan.candidate)}, {"bytes", bytes}};
  proof.summary = Format("candidate: {} bytes", bytes);
  ConfigureWorkerThread(request.threads);
  auto candidate = Load(request.out, request.plan.candidate, request.threads);
  if (!candidate.ok()) {
    proof.refused = std::string(Message(candidate.status()));
    return proof;
  }
  const Signature& signature = (*candidate)->signature();
  if (const auto shapes = ShapesForBatch(signature, 1); shapes.ok()) {
    OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, (*candidate)->PlanFor(*shapes));
    const std::map<std::string, double> share = plan->certificate().MacShare();
    proof.json["mac_share"] = share;
    proof.json["layers"] = LayersAsJson(plan->certificate());
    const auto int8 = share.find("int8");
    const double percent = int8 == share.end() ? 0 : 100 * int8->second;
    proof.summary += Format(", {:.1f} % of the multiply-adds in int8", percent);
    if (percent < request.min_int8_percent) {
      proof.refused =
          Format("{:.1f} % of the multiply-adds run in int8 on this CPU, expected at least {}",
                 percent, request.min_int8_percent);
    }
  }
  if (request.min_int8_percent > 0 && !proof.json.contains("mac_share")) {
    proof.refused = "the model's shapes are open: which share of it runs in int8 cannot be told";
  }
  if (!request.calibration.empty()) {
    OCTET_RETURN_IF_ERROR(Compare(request, *std::move(candidate), proof));
  }
  return proof;
}

}  // namespace octet::cli
