// What a model takes of the machine's memory.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace octet::cli {

/// The largest resident memory (VmHWM) of a process of its own that loads the file and answers one batch of 1, `octet bench
/// --rounds`: the executable and its libraries are in it. Errors: INTERNAL when the process cannot be started, FAILED_PRECONDITION
/// when it does not answer; it has said why on stderr.
absl::StatusOr<int64_t> PeakResidentBytes(const std::string& model, int threads);

}  // namespace octet::cli
