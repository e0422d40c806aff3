// Calibration samples, left in their files until they are needed.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/engine.h"

namespace octet::cli {

struct CalibrationSamples {
  CalibrationData inputs;
  std::vector<int64_t> labels;  ///< Empty without any.
};

/// Opens .npz files, .npy files for a model with one input, and folders of both, in this order; arrays match the model's inputs as
/// MatchArray says, and "labels" are in all files or none. Files may differ in extents that the model leaves open. Elements stay in
/// their files, in their own type; those that are compressed, and those of folders, are copied to a Spool.
/// `map_file`: a model.yaml whose inputs.<name>.wire says how a narrower element type stands for the model's, or empty.
/// Errors: as OpenNpz, OpenNpy, SampleFiles and LoadModelConfig; INVALID_ARGUMENT naming the file and the array, expected and got,
/// and for no samples at all.
absl::StatusOr<CalibrationSamples> OpenCalibration(const Signature& signature,
                                                   const std::vector<std::string>& paths,
                                                   const std::string& map_file);

}  // namespace octet::cli
