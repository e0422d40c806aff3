// What a request to a model with state says of its sequence, and what it must not say.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "proto/inference.pb.h"
#include "server/repository/model_version.h"
#include "server/sequence/sequence_store.h"

namespace octet {

/// Reads the parameters "sequence_id" (a whole number above 0, or a text of 1 to 128 bytes), "sequence_start" and
/// "sequence_end" (truth values). INVALID_ARGUMENT naming the parameter, expected and got, and without an id.
absl::StatusOr<SequenceCall> ReadSequenceCall(const inference::ModelInferRequest& request);

/// True for a request that names a sequence and does not start it; what it says may be wrong all the same.
bool GoesOnInSequence(const inference::ModelInferRequest& request);

/// Checks what a sequence's later request asks for against where it lives: INVALID_ARGUMENT for another `precision` (empty = not
/// asked for) or another version by its number.
absl::Status CheckSameHome(const inference::ModelInferRequest& request, std::string_view precision,
                           const SequenceHome& home);

/// INVALID_ARGUMENT naming a state that the request sends or asks for.
absl::Status CheckNoStates(const inference::ModelInferRequest& request, const StateLayout& layout);

}  // namespace octet
