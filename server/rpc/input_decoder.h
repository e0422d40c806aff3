// From the message of a request to views onto its tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/engine.h"
#include "proto/inference.pb.h"
#include "server/rpc/shared_memory.h"
#include "server/scheduling/input_recipe.h"

namespace octet {

/// Of an input's shape.
inline constexpr int kMaxExtents = 64;

/// The inputs of a request, which must outlive them.
struct DecodedInputs {
  std::vector<WireTensor> views;  ///< In the signature's order.
  int64_t rows = 1;
  /// The typed contents of 8- and 16-bit integers, which come in 32-bit fields. Stays where it is.
  std::list<std::vector<std::byte>> narrowed;
  /// What was read from shared memory, what came in pieces and has to lie in one, and BOOL of other bytes than 0 and 1. Stays
  /// where it is.
  std::list<std::string> copied;
  /// The elements of BYTES inputs, whose characters stay in the request, or in `copied`.
  std::list<std::vector<std::string_view>> strings;

  /// Memory of what the views see and the message does not have.
  size_t OwnBytes() const {
    size_t bytes = 0;
    for (const auto& elements : narrowed) bytes += elements.capacity();
    for (const std::string& text : copied) bytes += text.capacity();
    for (const auto& views_of : strings) bytes += views_of.capacity() * sizeof(std::string_view);
    return bytes;
  }
};

/// The raw bytes of every input of a request, in its order, wherever they are; nullopt for one whose
/// elements are the message's typed contents.
using RawInputs = absl::InlinedVector<std::optional<WireBytes>, 4>;

/// Of the message's raw_input_contents: one for every input that is not in shared memory, or none.
/// INVALID_ARGUMENT for another number of them.
absl::StatusOr<RawInputs> RawInputsOf(const inference::ModelInferRequest& request,
                                      std::span<const WireBytes> raw_contents);

/// Reads the inputs whose parameters say that they lie in shared memory. INVALID_ARGUMENT naming the input for one that
/// has contents, too, and for more than SharedMemory::max_request_bytes; else as FindSharedSlice (`memory` may
/// be null) and SharedRegion::Read.
absl::Status ReadSharedInputs(const inference::ModelInferRequest& request,
                              const SharedMemory* memory, RawInputs& raw_inputs,
                              DecodedInputs& decoded);

/// Describes the only input of a request that is nothing but its bytes, `body`, from what the model takes: its own datatype, one
/// row where it batches, and at most one open extent behind, which follows from the number of bytes. Of BYTES the body is the one
/// element, without its length in front, and moves into the message; elsewhere it is seen where it is.
/// INVALID_ARGUMENT saying why the shape does not follow.
/// Source: raw binary requests of the binary tensor data extension.
absl::Status DescribeOnlyInput(const Signature& signature, std::string& body,
                               inference::ModelInferRequest& request, RawInputs& raw_inputs);

/// Finds and checks every input. Raw contents are seen where they are, as are typed ones of the
/// element's own width; copied are only BYTES that come in pieces, and raw BOOL that has other bytes than 0 and 1: any byte but
/// 0 is true, and is 1 in the views.
/// INVALID_ARGUMENT naming the tensor, expected and got: an unknown, missing or doubled input, both
/// raw and typed contents, contents in a field of another type or outside the element's range, BYTES
/// that end before their lengths do, more than kMaxExtents extents, and as CheckInput and CheckRows.
absl::Status DecodeInputs(const inference::ModelInferRequest& request, const RawInputs& raw_inputs,
                          const Signature& signature, std::span<const InputRecipe> recipes,
                          int64_t max_batch, DecodedInputs& decoded);

/// `"a", "b"`: the names of tensors, for messages.
std::string QuotedNames(std::span<const TensorInfo> tensors);

}  // namespace octet
