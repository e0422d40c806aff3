// Answers that a version's files are held to before they serve.
#pragma once

#include <string>

#include "absl/status/status.h"

#include "config/model_config.h"
#include "engine/engine.h"

namespace octet {

/// Runs a model on the inputs of an archive and holds its answers against those beside them: whatever this CPU and this
/// precision make of the model, it is not served when it is further away than `floor` allows.
///
/// The archive, VERSION/golden.npz, has an array per input and output of the model, by name and in its element type, samples
/// along axis 0 when the model batches, else the one sample itself; `octet golden` writes it from what fp32 answers. Samples
/// run one by one. The SQNR is that of all floating-point outputs and samples together; outputs that are integers, truth values
/// or strings must be equal.
/// Errors: as ReadNpz and the runs; INVALID_ARGUMENT naming the array, expected and got, for one that is missing or does not
/// fit; FAILED_PRECONDITION when the answers are too far away, saying how far.
absl::Status CheckGolden(const std::string& file, const Model& model,
                         const ModelConfig::Golden& floor);

}  // namespace octet
