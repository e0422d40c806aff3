// The messages of a ModelInfer, which can be kept when the call is over.
#pragma once

#include <memory>

#include <grpcpp/server_context.h>
#include <grpcpp/support/message_allocator.h>

#include "proto/inference.pb.h"

namespace octet {

/// Allocates requests and answers so that they live until gRPC and everybody else has let go of them:
/// a copy of a request needs the tensors of both, and should not copy those. Thread-safety: safe.
class InferMessageAllocator final
    : public grpc::MessageAllocator<inference::ModelInferRequest, inference::ModelInferResponse> {
 public:
  grpc::MessageHolder<inference::ModelInferRequest, inference::ModelInferResponse>*
  AllocateMessages() override {
    return new Holder;  // until gRPC calls its Release
  }

  /// Keeps the messages of a call. Requires: this allocator made them, and the call is not over.
  static std::shared_ptr<const void> Keep(grpc::CallbackServerContext& context) {
    return static_cast<Holder*>(context.GetRpcAllocatorState())->messages;
  }

 private:
  struct Messages {
    inference::ModelInferRequest request;
    inference::ModelInferResponse response;
  };
  struct Holder final
      : grpc::MessageHolder<inference::ModelInferRequest, inference::ModelInferResponse> {
    Holder() {
      set_request(&messages->request);
      set_response(&messages->response);
    }
    void Release() override { delete this; }
    const std::shared_ptr<Messages> messages = std::make_shared<Messages>();
  };
};

}  // namespace octet
