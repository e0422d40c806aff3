// What other verbs printed as JSON about how the files were made, and the report passes on.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

namespace octet::cli {

/// What `octet quantize --json` printed: a list of files made, each with its records. Null for an empty name.
/// Errors: NOT_FOUND for a file that cannot be read, INVALID_ARGUMENT for one that holds something else, either naming it.
absl::StatusOr<nlohmann::ordered_json> ReadQuantizeRecord(const std::string& file);

/// What `octet qat --json` printed: the best epoch, and a row for each. As ReadQuantizeRecord.
absl::StatusOr<nlohmann::ordered_json> ReadTrainingRecord(const std::string& file);

}  // namespace octet::cli
