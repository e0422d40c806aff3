#include "cli/report/variant.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "cli/model_options.h"
#include "cli/report/layers_json.h"

#include "engine/tensor/status.h"
#include "server/http/certificate_json.h"

namespace octet::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kReferenceFile = "fp32.onnx";

// fp32 fp16 bf16 int8 int8-dynamic, then any other name.
size_t PlaceOf(const std::string& file) {
  const auto precision = ParsePrecision(fs::path(file).stem().string());
  return precision ? static_cast<size_t>(*precision) : kAllPrecisions.size();
}

absl::StatusOr<std::vector<std::string>> FilesOfFolder(const std::string& folder) {
  std::error_code error;
  if (!fs::is_regular_file(fs::path(folder) / kReferenceFile, error)) {
    return NotFound("the folder has no {} to compare with: '{}'", kReferenceFile, folder);
  }
  std::vector<std::string> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".onnx") files.push_back(entry.path().string());
  }
  if (error) return InvalidArgument("cannot read folder '{}': {}", folder, error.message());
  std::ranges::sort(files, {},
                    [](const std::string& file) { return std::pair(PlaceOf(file), file); });
  return files;
}

absl::Status CheckSameInputs(const Signature& got, const Signature& expected) {
  if (got.inputs.size() != expected.inputs.size()) {
    return InvalidArgument("other inputs than the fp32 model's: expected {}, got {}",
                           expected.inputs.size(), got.inputs.size());
  }
  for (size_t i = 0; i < got.inputs.size(); ++i) {
    const TensorInfo& a = expected.inputs[i];
    const TensorInfo& b = got.inputs[i];
    if (a.name == b.name && a.dtype == b.dtype && a.shape == b.shape) continue;
    return InvalidArgument(
        "another input than the fp32 model's: expected '{}' {} {}, got '{}' {} {}", a.name,
        DTypeName(a.dtype), a.shape.ToString(), b.name, DTypeName(b.dtype), b.shape.ToString());
  }
  return absl::OkStatus();
}

nlohmann::ordered_json AsJson(const Claim& claim) {
  nlohmann::ordered_json json{{"claim", claim.text}};
  json["needs"] = claim.needs ? nlohmann::ordered_json(*claim.needs) : nullptr;
  json["measured"] = claim.measured ? nlohmann::ordered_json(*claim.measured) : nullptr;
  json["unit"] = claim.unit;
  json["verdict"] = claim.verdict;
  json["reason"] = claim.reason;
  return json;
}

// `reference`: it was compared with the fp32 model's answers, as every file but that one is, also another one in fp32.
nlohmann::ordered_json AccuracyOf(const Variant& variant, bool labels, bool reference) {
  nlohmann::ordered_json json = ToJson(variant.tally, labels, reference);
  json.erase("items_per_second");  // Of the whole evaluation; the latency is measured by itself.
  json["max_abs_error"] = reference && variant.tally.reals
                              ? nlohmann::ordered_json(variant.tally.noise.max_abs)
                              : nlohmann::ordered_json();
  return json;
}

nlohmann::ordered_json AsJson(Variant& variant, const Variant& fp32,
                              const ReportSettings& settings) {
  const auto optional = [](const auto& x) {
    return x ? nlohmann::ordered_json(*x) : nlohmann::ordered_json();
  };
  const Model& model = variant.session.model();
  const auto recipe = model.metadata().find("octet.recipe");
  nlohmann::ordered_json json{
      {"name", variant.name},
      {"file", variant.file},
      {"precision", PrecisionName(model.precision())},
      {"technique", TechniqueName(variant.technique)},
      {"recipe", recipe == model.metadata().end() ? "" : recipe->second},
      {"bytes", variant.bytes},
      {"ratio", static_cast<double>(variant.bytes) / static_cast<double>(fp32.bytes)}};
  json["memory"] = {{"peak_resident_bytes", optional(variant.peak_resident_bytes)},
                    {"weights_bytes", variant.weights_bytes},
                    {"arena_bytes", variant.memory.arena_bytes}};
  json["accuracy"] = AccuracyOf(variant, settings.labels, &variant != &fp32);
  json["latency"] = {{"batch", variant.timed_batch},
                     {"runs", variant.latencies.count()},
                     {"p50_ms", variant.latencies.MicrosecondsAt(50) / 1e3},
                     {"p99_ms", variant.latencies.MicrosecondsAt(99) / 1e3},
                     {"speedup", variant.Speedup()}};
  json["isa"] = variant.certificate.isa;
  json["macs"] = variant.certificate.total_macs();
  json["mac_share"] = variant.certificate.MacShare();
  json["certificate"] = LayersAsJson(variant.certificate);
  json["layers"] = variant.layers ? LayersAsJson(*variant.layers) : nlohmann::ordered_json();
  return json;
}

Measured MeasuredOf(const Variant& variant, const Variant& fp32, bool labels) {
  Measured row{.technique = variant.technique};
  row.smaller = static_cast<double>(fp32.bytes) / static_cast<double>(variant.bytes);
  row.faster = variant.Speedup();
  row.certificate = &variant.certificate;
  if (labels && variant.tally.class_rows > 0) {
    row.top1 = 100.0 * static_cast<double>(variant.tally.correct) /
               static_cast<double>(variant.tally.class_rows);
  }
  const double sqnr = variant.tally.noise.SqnrDb();
  if (variant.technique != Technique::kNone && std::isfinite(sqnr)) row.sqnr_db = sqnr;
  return row;
}

// Top-1 in per cent, or agreement with fp32 where there are no labels or no classes; the same of all where there is none.
double QualityOf(const Variant& variant, const Variant& fp32, bool labels) {
  const Tally& tally = variant.tally;
  if (labels && tally.class_rows > 0) {
    return 100.0 * static_cast<double>(tally.correct) / static_cast<double>(tally.class_rows);
  }
  return &variant == &fp32 ? 100 : AgreementPercent(tally).value_or(100);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ReportFiles(const std::string& model,
                                                     const std::vector<std::string>& more) {
  std::error_code error;
  std::vector<std::string> files = {model};
  if (fs::is_directory(model, error)) {
    OCTET_ASSIGN_OR_RETURN(files, FilesOfFolder(model));
  }
  for (const std::string& file : more) {
    if (std::ranges::find(files, file) == files.end()) files.push_back(file);
  }
  for (const std::string& file : files) {
    if (!fs::is_regular_file(file, error)) return NotFound("no such model file: '{}'", file);
  }
  if (files.size() < 2)
    return InvalidArgument("no variant to compare with the fp32 model: '{}'", model);
  return files;
}

double Variant::Speedup() const {
  std::vector<double> sorted = speedups;
  std::ranges::sort(sorted);
  const size_t n = sorted.size();
  return n == 0 ? 1 : (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

absl::StatusOr<Variant> LoadVariant(const std::string& file, int threads, const Model* fp32) {
  LoadOptions options;
  options.threads = threads;
  auto loaded = fp32 == nullptr ? LoadReference(file, threads) : Model::Load(file, options);
  if (!loaded.ok()) return Annotate(loaded.status(), file);
  const Model& model = **loaded;
  if (fp32 == nullptr && model.precision() != Precision::kFp32) {
    return InvalidArgument("expected an fp32 model to compare with, got {}: '{}'",
                           PrecisionName(model.precision()), file);
  }
  if (fp32 != nullptr) {
    const absl::Status same = CheckSameInputs(model.signature(), fp32->signature());
    if (!same.ok()) return Annotate(same, file);
  }
  OCTET_ASSIGN_OR_RETURN(const uint64_t bytes, OnnxFileBytes(file));
  return Variant{.name = fs::path(file).stem().string(),
                 .file = file,
                 .bytes = bytes,
                 .technique = TechniqueOf(model),
                 .session = Session(*std::move(loaded))};
}

nlohmann::ordered_json VariantsAsJson(std::vector<Variant>& variants,
                                      const ReportSettings& settings) {
  std::vector<Measured> measured;
  std::vector<std::pair<double, double>> points;
  for (Variant& variant : variants) {
    measured.push_back(MeasuredOf(variant, variants[0], settings.labels));
    points.emplace_back(variant.latencies.MicrosecondsAt(50),
                        QualityOf(variant, variants[0], settings.labels));
  }
  const auto calibrated =
      std::ranges::find(measured, Technique::kFullInteger, &Measured::technique);
  const Target target = DetectTarget(settings.threads);
  const std::vector<bool> front = ParetoFront(points);
  nlohmann::ordered_json rows = nlohmann::json::array();
  for (size_t i = 0; i < variants.size(); ++i) {
    nlohmann::ordered_json row = AsJson(variants[i], variants[0], settings);
    row["pareto"] = static_cast<bool>(front[i]);
    row["claims"] = nlohmann::json::array();
    for (const Claim& claim :
         ClaimsOf(measured[i], measured[0], calibrated == measured.end() ? nullptr : &*calibrated,
                  target))
      row["claims"].push_back(AsJson(claim));
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace octet::cli
