// Does a request fit the model? Everything that a client can get wrong about its tensors, said in
// words.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/engine.h"
#include "server/scheduling/input_recipe.h"

namespace octet {

/// Checks one input as it came: `dims` may hold anything, `bytes` is how many came (of BYTES: SizeOf
/// for each element).
/// INVALID_ARGUMENT naming the tensor, expected and got: a type that the recipe does not accept,
/// the rank, an extent, or a number of bytes that is not that of the shape. Of an input without a declared rank any extents >= 0
/// will do.
absl::Status CheckInput(const TensorInfo& expected, const InputRecipe& recipe, DType dtype,
                        std::span<const int64_t> dims, size_t bytes);

/// Returns the rows of a request whose inputs have passed CheckInput: the common extent 0 when the
/// model batches, else 1. INVALID_ARGUMENT when the inputs disagree, or hold no row or more than
/// `max_batch`.
absl::StatusOr<int64_t> CheckRows(const Signature& signature, std::span<const WireTensor> inputs,
                                  int64_t max_batch);

}  // namespace octet
