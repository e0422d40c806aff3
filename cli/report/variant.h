// The files that a report is about, and what is measured of each.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/evaluation.h"
#include "cli/latencies.h"
#include "cli/report/claims.h"
#include "cli/session.h"
#include <nlohmann/json.hpp>

#include "engine/engine.h"

namespace octet::cli {

/// The fp32 file, then the others: for a folder its other .onnx files, the precisions' own names first in their usual order,
/// then `more`. Errors: NOT_FOUND for a folder without fp32.onnx and for files that are not there, INVALID_ARGUMENT where
/// nothing is to be compared.
absl::StatusOr<std::vector<std::string>> ReportFiles(const std::string& model,
                                                     const std::vector<std::string>& more);

/// One row of the report.
struct Variant {
  std::string name;  ///< The file's, without its ending.
  std::string file;
  uint64_t bytes = 0;  ///< OnnxFileBytes.
  Technique technique = Technique::kNone;
  Session session;
  Certificate certificate;   ///< For one sample, or the model's own batch.
  PlanMemory memory;         ///< Likewise.
  size_t weights_bytes = 0;  ///< Likewise: packed for one more batch, they may take more.
  int64_t timed_batch = 1;

  Tally tally;
  Latencies latencies;
  std::vector<double> speedups;  ///< The fp32 model's p50 over the own, of each round.
  std::optional<int64_t> peak_resident_bytes;
  std::optional<LayerComparison> layers;

  double Speedup() const;  ///< The median round's.
};

/// What the whole report shares.
struct ReportSettings {
  int threads = 1;
  int64_t batch = 8;
  int rounds = 5;
  double seconds = 0.2;
  bool labels = false;
};

/// Loads a file and checks that it takes the fp32 model's inputs; `fp32` is null for that itself, which must not be quantized
/// (LoadReference).
absl::StatusOr<Variant> LoadVariant(const std::string& file, int threads, const Model* fp32);

/// The rows as JSON, with the claims' verdicts and the Pareto front. Requires: measured, the fp32 row first.
nlohmann::ordered_json VariantsAsJson(std::vector<Variant>& variants,
                                      const ReportSettings& settings);

}  // namespace octet::cli
