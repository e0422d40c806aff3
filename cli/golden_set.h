// Answers that a model is held to, in ONNX's test_data_set form, and how far its own are from them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/session.h"

#include "engine/engine.h"

namespace octet::cli {

/// Inputs of a model and the outputs expected of them, in the order of its signature.
struct GoldenSet {
  std::string name;
  std::vector<Tensor> inputs;
  std::vector<Tensor> outputs;
};

/// The test_data_set_* folders of `folder`, in order, or `folder` itself where it holds input_0.pb; NOT_FOUND without any.
absl::StatusOr<std::vector<std::string>> GoldenFolders(const std::string& folder);

/// Reads input_<i>.pb and output_<i>.pb. Errors: as ReadTensorFile; INVALID_ARGUMENT naming the input, expected and got.
absl::StatusOr<GoldenSet> ReadGoldenSet(const std::string& folder, const Signature& signature);

struct Tolerance {
  double rtol = 1e-3;  ///< Of reals; integers and booleans have none.
  double atol = 1e-4;
  double steps = 0;  ///< Above 0: quantization steps, instead of rtol and atol.
};

/// How far one output is from what was expected.
struct Comparison {
  std::string set;
  std::string output;
  int64_t elements = 0;
  int64_t mismatches = 0;
  double max_abs = 0;
  std::optional<double> max_steps;
  bool ok = true;
};

/// Runs the session's model on the set's inputs.
absl::Status Feed(Session& session, const GoldenSet& set);

/// Feeds the session and compares its outputs, which `outputs` describes. Mismatch:
/// |got - expected| > atol + rtol * |expected|, of integers > atol, or only one of the two is NaN or the same infinity; strings that are not equal.
/// Errors: as the run; INVALID_ARGUMENT naming the output for another type or shape, or when it has no steps.
absl::StatusOr<std::vector<Comparison>> CompareWith(Session& session, const GoldenSet& set,
                                                    std::span<const TensorInfo> outputs,
                                                    const Tolerance& tolerance);

}  // namespace octet::cli
