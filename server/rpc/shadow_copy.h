// Runs an answered request once more, in another precision, and counts how far the answers are apart.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/graph/precision.h"
#include "server/repository/model_version.h"
#include "server/rpc/input_decoder.h"
#include "server/rpc/response_writer.h"
#include "server/scheduling/dispatcher.h"

namespace octet {

/// What a request leaves behind when it has been answered. Its tensors stay where they are.
struct AnsweredRequest {
  Precision precision = Precision::kFp32;  ///< That answered.
  TimePoint received;
  DecodedInputs inputs;
  std::vector<std::optional<AnsweredOutput>> outputs;  ///< In the signature's order.
  std::shared_ptr<const void> messages;  ///< Keeps what inputs and outputs point into.
  size_t message_bytes = 0;              ///< Memory of these.
};

/// Submits a copy of the request to the shadow's queue and returns; when the copy has run it is
/// compared, output by output, on the worker that ran it. Whatever becomes of it is counted, and
/// nothing else: no error reaches anybody. Of outputs that were not asked for nothing is compared.
/// Requires: shadow.pairs has the precision that answered. Thread-safety: safe.
void SubmitShadow(std::shared_ptr<ServedShadow> shadow, AnsweredRequest request,
                  Dispatcher& dispatcher);

}  // namespace octet
