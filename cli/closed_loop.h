// Requests under way in slots: the answer to one sends the slot's next one.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <grpcpp/grpcpp.h>

#include "proto/inference.grpc.pb.h"

namespace octet::cli {

using InferStub = inference::GRPCInferenceService::Stub;

/// A client of host:port, without a limit of its own to the size of messages. Connects with the first call.
std::unique_ptr<InferStub> Connect(const std::string& target,
                                   const std::shared_ptr<grpc::ChannelCredentials>& credentials);

/// What one slot sends, and what becomes of the answers. Only one thread is in a slot at any moment.
class LoopSlot {
 public:
  virtual ~LoopSlot() = default;

  struct Call {
    InferStub* stub = nullptr;                              ///< Null ends the slot.
    const inference::ModelInferRequest* request = nullptr;  ///< Lives until it was answered.
  };
  virtual Call Next() = 0;
  /// The answer to the last one; `response` may be moved from.
  virtual void Answered(const grpc::Status& status, inference::ModelInferResponse& response,
                        std::chrono::nanoseconds latency) = 0;
};

/// Runs all slots until each has ended. `timeout`: of each call; none when absent.
void RunClosedLoop(std::span<LoopSlot* const> slots,
                   std::optional<std::chrono::milliseconds> timeout = std::nullopt);

}  // namespace octet::cli
