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

/// The large networks of ONNX's suite, whose weights the file makes itself: "light/light_resnet50", ...
std::vector<std::string> LightNames();
/// Runs one on the input that ONNX's own runner gives it, element i of n being i / n, with every pass. Errors: as RunCase.
absl::Status RunLight(const std::string& name);

/// Runs a case through engine.h, twice: with every pass, and with constant folding alone, where every node
/// runs as the file has it. Floats must agree within 1e-5 + 1e-3 |expected|, everything else exactly.
///
/// Errors: what the engine answers; FAILED_PRECONDITION naming pass list, output, expected and got for a wrong answer.
absl::Status RunCase(const std::string& name);

}  // namespace octet::conformance
