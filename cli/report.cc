// octet report: what quantization did to a model, as one page and as JSON.
#include <iostream>
#include <memory>

#include "cli/finite_range.h"
#include "cli/model_options.h"
#include "cli/output_file.h"
#include "cli/report/measured_report.h"
#include "cli/report/page.h"
#include "cli/verb.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/pending_file.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

struct ReportOptions {
  std::string model;
  std::vector<std::string> variants;
  std::string out = "report.html";
  std::string json;
  ReportRequest request;
};

void Print(const nlohmann::ordered_json& row, bool labels) {
  const nlohmann::ordered_json& quality = row["accuracy"][labels ? "top1" : "agreement"];
  std::cout << Format("{:<14} {:.3f} of the bytes  p50 {:.3f} ms  {:.2f}x  {} {}\n",
                      row["name"].get<std::string>(), row["ratio"].get<double>(),
                      row["latency"]["p50_ms"].get<double>(),
                      row["latency"]["speedup"].get<double>(), labels ? "top-1" : "agreement",
                      quality.is_null() ? "-" : Format("{:.2f} %", quality.get<double>()));
  for (const auto& claim : row["claims"]) {
    const std::string reason = claim["reason"].get<std::string>();
    std::cout << Format("  {}: {}{}\n", claim["claim"].get<std::string>(),
                        claim["verdict"].get<std::string>(),
                        reason.empty() ? "" : " (" + reason + ")");
  }
}

absl::Status WriteReport(ReportOptions& options) {
  ReportRequest& request = options.request;
  OCTET_ASSIGN_OR_RETURN(request.files, ReportFiles(options.model, options.variants));
  std::vector<std::string> others = request.files;
  others.insert(others.end(),
                {request.data, request.map, request.quantize_record, request.training_record});
  OCTET_RETURN_IF_ERROR(CheckOutputFile(options.out, others));
  others.push_back(options.out);
  if (!options.json.empty()) OCTET_RETURN_IF_ERROR(CheckOutputFile(options.json, others));
  OCTET_ASSIGN_OR_RETURN(const nlohmann::ordered_json report, MeasureReport(request));
  if (!options.json.empty()) {
    OCTET_RETURN_IF_ERROR(WriteWholeFile(options.json, ReportText(report)));
  }
  OCTET_RETURN_IF_ERROR(WriteWholeFile(options.out, ReportPage(report)));
  for (const auto& row : report["variants"]) Print(row, report["labels"].get<bool>());
  std::cout << "report: " << options.out << '\n';
  return absl::OkStatus();
}

}  // namespace

void AddReport(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App* verb = app.add_subcommand(
      "report", "Measure what quantization did to a model: one HTML page, and JSON");
  verb->add_option("MODEL", options->model,
                   "Folder with fp32.onnx and its variants, or the original ONNX file")
      ->required();
  verb->add_option("--variants", options->variants, "More variants of the model: ONNX files");
  verb->add_option("--data", options->request.data,
                   "Samples, and labels: an .npz or .npy file, or a folder of them")
      ->required();
  verb->add_option("--map", options->request.map,
                   "model.yaml that says how the samples' element type maps to the model's");
  verb->add_option("--out", options->out, "Page to write")->capture_default_str();
  verb->add_option("--json", options->json, "Also write the report as JSON, to this file");
  verb->add_option("--quantize-record", options->request.quantize_record,
                   "What octet quantize --json printed, to be shown");
  verb->add_option("--training-record", options->request.training_record,
                   "What octet qat --json printed, to be shown as a curve");
  verb->add_option("--threads", options->request.settings.threads, "OpenMP threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  verb->add_option("--batch", options->request.settings.batch, "Samples per run, for accuracy")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--rounds", options->request.settings.rounds,
                   "Rounds in which the variants take turns, for latency")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  verb->add_option("--seconds", options->request.settings.seconds, "Length of each variant's turn")
      ->check(FiniteRange(0.01, 3600.0))
      ->capture_default_str();
  verb->callback([options, &outcome] {
    if (const absl::Status status = WriteReport(*options); !status.ok())
      outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli
