// The measurements of a report: what quantization did to a model.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/report/variant.h"
#include <nlohmann/json.hpp>

namespace octet::cli {

struct ReportRequest {
  std::vector<std::string> files;  ///< The fp32 file, then its variants.
  std::string data;                ///< File or folder with the inputs, and labels.
  std::string map;                 ///< As SampleSet has it.
  std::string quantize_record;     ///< As ReadQuantizeRecord.
  std::string training_record;     ///< As ReadTrainingRecord.
  ReportSettings settings;
};

/// Loads the files, evaluates them over the data, compares their layers, times them in turns and weighs each in a process of
/// its own: what ReportPage shows and ReportText writes. Takes minutes for a large model. Errors: as LoadVariant, Samples::Open,
/// Evaluate, CompareLayers and the records; INVALID_ARGUMENT for fewer samples than a model's own batch. What cannot be weighed
/// is said on stderr and left out.
absl::StatusOr<nlohmann::ordered_json> MeasureReport(const ReportRequest& request);

}  // namespace octet::cli
