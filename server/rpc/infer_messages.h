// The messages of one inference, whatever the protocol, and the tensors that lie beside them.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "proto/inference.pb.h"
#include "server/rpc/input_decoder.h"

namespace octet {

/// Of one request: its inputs, and the outputs that it asks for. Each takes a hundred times the two bytes that it needs in a
/// message, and nothing else bounds them before they are made.
inline constexpr int kMaxTensors = 1024;
/// Of one request, and of each of its inputs and outputs.
inline constexpr int kMaxParameters = 256;

/// Elements that stay where the worker wrote them.
struct KeptElements {
  std::shared_ptr<const std::byte[]> owner;
  std::string_view bytes;
};

/// A request and its answer, until gRPC and everybody else have let go of them: a copy of a request needs the tensors of
/// both, and should not copy those. Stays where it is.
struct InferMessages {
  InferMessages() = default;
  virtual ~InferMessages() = default;
  InferMessages(const InferMessages&) = delete;
  InferMessages& operator=(const InferMessages&) = delete;

  inference::ModelInferRequest request;
  size_t bytes = 0;      ///< Of tensors and whatever else is kept beside the request's message.
  DecodedInputs inputs;  ///< Of the request.
  inference::ModelInferResponse response;
  /// By place in raw_output_contents, which has an empty one where there is an owner; shorter when none behind has.
  std::vector<KeptElements> kept;

  /// Memory that the request keeps while it waits: its message, what lies beside it, and what was made of both.
  size_t HeldBytes() const { return bytes + request.SpaceUsedLong() + inputs.OwnBytes(); }

  /// The raw contents of the answer's output `place`, wherever they are.
  std::string_view RawOutput(int place) const {
    const auto index = static_cast<size_t>(place);
    if (index < kept.size() && kept[index].owner != nullptr) return kept[index].bytes;
    return response.raw_output_contents(place);
  }

  /// Whether the protocol can say the answer: asked once it is complete, before a sequence's step counts and before anybody is
  /// told that all went well.
  virtual absl::Status CheckAnswer() const { return absl::OkStatus(); }
};

}  // namespace octet
