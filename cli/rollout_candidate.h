// The file that a rollout brings to the traffic, and what is known of it beforehand.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

#include "server/routing/rollout.h"

namespace octet::cli {

struct CandidateRequest {
  std::string baseline;  ///< The file that answers now.
  std::string fp32;      ///< What the candidate is made from.
  std::string
      finished;  ///< Taken as it is, external data into the file; empty: quantized from `fp32`.
  std::string
      calibration;  ///< Samples, a file or a folder: int8 is calibrated with them, and everything is compared on them. May be empty.
  std::string map;
  const RolloutPlan& plan;
  double min_int8_percent = 0;
  int threads = 1;
  std::string out;
};

struct CandidateProof {
  /// "bytes", "mac_share", "layers" (the certificate, of one row), and with data "agreement", "sqnr_db", ...
  nlohmann::ordered_json json;
  std::string summary;  ///< A line.
  std::string refused;  ///< Why it must not go near the traffic; empty: it may.
};

/// Makes, or takes, the candidate's file, loads it as a server on this CPU would, and compares it with the baseline on the
/// calibration data: agreement and SQNR below the guard's are a refusal, as are an agreement asked for of answers without classes,
/// a NaN or an infinity where the baseline has none (with a floor for the SQNR), fewer multiply-adds in int8 than asked for and
/// a file that does not load. Errors: as ReadOnnxFile, QuantizeFile, Samples::Open and Evaluate.
/// Requires: a finished file, or data, for int8.
absl::StatusOr<CandidateProof> MakeCandidate(const CandidateRequest& request);

}  // namespace octet::cli
