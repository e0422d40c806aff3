// What /v2/experiments answers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

#include "server/repository/model_repository.h"

namespace octet {

/// What is the process's, and no model's.
struct ProcessFacts {
  int64_t started_ms =
      0;  ///< Since the epoch. Another process has forgotten what this one counted.
  std::string capture_path;  ///< Where it writes captures; empty = nowhere.
};

/// The experiments of every version of a model that answers, of all models when `model` is empty; one of a pipeline has no
/// precisions, but all of its requests under "pipeline", as those of a precision:
///
///     {"experiments": [{"model": "net", "version": "1", "started_ms": 1700000000000, "baseline": "fp32",
///       "precisions": [{"precision": "int8", "ready": true, "reason": "", "weight": 10, "share_percent": 10.0, "drawn": 100, "sticky": 0,
///         "asked": 0, "errors": 0, "refused": {"queue_full": 0, "expired": 0, "deadline": 0, "p99_target": 0}, "rows": 100, "batches": 40, "waiting": 0, "int8_mac_ratio": 0.99,
///         "histogram_us": {"bounds": [10.0, ...], "counts": [0, ...]}, "latency_us": {"count": 100, "mean": 900.1, "p50": 880.0, "p99": 1900.5},
///         "over_baseline_us": {"mean": -300.2, "low": -310.5, "high": -289.9},
///         "guard": {"fallen_back": false, "share": 1.0, "kept_windows": 3, "broken_windows": 0, "undecided_windows": 0, "refusing_windows": 0,
///                   "last_broken": ""}}],
///       "pipeline": null,
///       "sample_ratio": {"chi_square": 0.1, "p_value": 0.75, "alarm": false},
///       "shadow": [{"precision": "int8", "against": "fp32", "compared": 100, "dropped": 0, "failed": 0,
///         "class_rows": 100, "top1_agreed": 99, "agreement_percent": 99.0, "mean_sqnr_db": 31.2}],
///       "ramp": {"ramped": "int8", "share_percent": 5.0, "step": 1, "steps": [1.0, 5.0, 100.0],
///                "began_ms": 1700000000000, "stopped": false},
///       "events": [{"time_ms": 1700000000000, "who": "net/1/int8", "action": "guard fall_back",
///                   "reason": "agreement 90.00 % < 95 %"}]}],
///      "version_splits": [{"model": "net", "started_ms": 1700000000000, "baseline": "1",
///       "versions": [{"version": "2", "weight": 10, "drawn": 50, "sticky": 0, "latency_us": {"count": 50, "mean": 900.1},
///                     "over_baseline_us": {"mean": -300.2, "low": -310.5, "high": -289.9}}],
///       "sample_ratio": {"chi_square": 0.1, "p_value": 0.75, "alarm": false}}],
///      "index": [{"model": "other", "version": "1", "state": "UNAVAILABLE", "reason": "fp32: not an ONNX model"}],
///      "server": {"started_ms": 1700000000000, "captures": {"path": "/captures", "mark": "9f86..."}}}
///
/// "share_percent" is what the requests that ask for no precision are given out by now: weights, the ramp, and what guards leave.
/// "refused" are those that did not run, of a pipeline those of which a step did not. "version_splits" are those of
/// routing.versions; the baseline is the version of the largest weight. "index": the rows of the repository's index that are not READY or say something.
/// "captures" is the folder of ProcessFacts, null without one; by its CaptureMark it is known wherever else it is mounted, null when it has none.
/// p50 and p99 are interpolated within the buckets of histogram_us: off by up to 1.8 times. A guard's p99_us is counted exactly.
/// "events" are the model's last 50, the oldest first. over_baseline_us, pipeline, sample_ratio, guard, ramp, int8_mac_ratio (of open shapes, and of a pipeline), agreement_percent and mean_sqnr_db are null where there is nothing to say.
/// Errors: as ModelRepository::List.
absl::StatusOr<nlohmann::ordered_json> DescribeExperiments(const ModelRepository& repository,
                                                           const ProcessFacts& process,
                                                           std::string_view model);

/// {"certificates": [{"precision": "int8", "layers": [...]}]}: of each precision of a version that answers, as
/// LayersAsJson; without layers when the model's shapes vary. Errors: as ModelRepository::Find.
absl::StatusOr<nlohmann::ordered_json> DescribeCertificates(const ModelRepository& repository,
                                                            std::string_view model,
                                                            std::string_view version);

}  // namespace octet
