// One case of ONNX's backend tests: a model with the inputs and outputs of its test_data_set_* folders.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace octet::conformance {

/// Where the suites are: $OCTET_ONNX_TESTDATA, else where Debian's libonnx-testdata has them.
std::filesystem::path DataFolder();

/// The cases of a suite: "node/test_abs", ...
std::vector<std::string> CaseNames(const std::string& suite);

/// Runs a case through engine.h, twice: with every pass, and with constant folding alone, where every node
/// runs as the file has it. Floats must agree within 1e-5 + 1e-3 |expected|, everything else exactly.
///
/// Errors: what the engine answers; FAILED_PRECONDITION naming pass list, output, expected and got for a wrong answer.
absl::Status RunCase(const std::string& name);

}  // namespace octet::conformance
