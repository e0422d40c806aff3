// ModelStreamInfer: many inferences over one call, answered in the order in which they came.
#pragma once

#include <deque>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include <grpcpp/support/server_callback.h>

#include "server/rpc/grpc_inference.h"
#include "server/rpc/grpc_server.h"
#include "server/rpc/inference.h"
#include "server/rpc/live_set.h"
#include "server/scheduling/retry_after.h"

namespace octet {

/// One stream. Its requests start one behind the other, in the order in which they came; up to kWindow of them are
/// under way together, as long as they and their answers have at most kMostHeld bytes, and the next is read when one has
/// been answered. Clients that write on and on before they read are held up by that. A request that fails is answered with error_message, and the stream goes on.
///
///     reading --client is done, or End()--> closing (answers what it holds) --empty--> finished
///        +----client gone--> cancelled (drops what has not run) ------empty--------------^
class InferStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  static constexpr size_t kWindow = 16;
  static constexpr size_t kMostHeld = size_t{128} << 20;

  /// Adds itself to `streams`, or ends with the reason why that takes no more; it lives until gRPC is done with it and it has
  /// left the set.
  static InferStream* Start(const ServingParts& parts, const GrpcServerOptions& options,
                            grpc::CallbackServerContext& context, LiveSet<InferStream>& streams);

  /// Reads no more; finishes with UNAVAILABLE when what was read has been answered.
  void End();

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  struct Item {
    Item(const ServingParts& parts, bool access_log) : inference(parts, access_log, call) {}
    const std::shared_ptr<GrpcInference> call = std::make_shared<GrpcInference>();
    grpc::ByteBuffer request;
    grpc::ByteBuffer response;
    Inference inference;
    bool answered = false;
    size_t bytes =
        0;  ///< Of the request, and of the answer once there is one: until the client has read it.
  };

  /// What to do next, decided under the lock and done without it.
  struct Next {
    grpc::ByteBuffer* read = nullptr;
    const grpc::ByteBuffer* write = nullptr;
    std::optional<grpc::Status> finish;
    bool starts() const { return read != nullptr || write != nullptr; }
  };

  InferStream(const ServingParts& parts, const GrpcServerOptions& options,
              grpc::CallbackServerContext& context, LiveSet<InferStream>& streams)
      : parts_(parts), options_(options), context_(context), streams_(streams) {}

  void Answered(Item& item, absl::Status status);
  /// Makes a change under the lock, and then whatever it made possible without it. Other threads
  /// may finish the call at once, so Finish waits until nobody is about to start something on it.
  template <typename Change>
  void Advance(Change change);
  Next Decide() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Hold(Item& item, size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PopFront() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ServingParts& parts_;
  const GrpcServerOptions& options_;
  grpc::CallbackServerContext& context_;
  LiveSet<InferStream>& streams_;
  std::shared_ptr<InferStream> self_;  ///< Until OnDone.

  absl::Mutex mutex_;
  std::deque<std::unique_ptr<Item>> items_ ABSL_GUARDED_BY(mutex_);  ///< In order of arrival.
  std::unique_ptr<Item> incoming_ ABSL_GUARDED_BY(mutex_);           ///< What a read fills.
  size_t held_ ABSL_GUARDED_BY(mutex_) = 0;                          ///< Sum over items_.
  /// From a read's start until what it brought has been started: requests start in order of arrival.
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  int starting_ ABSL_GUARDED_BY(mutex_) = 0;  ///< Threads in Advance.
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;  ///< The client sends no more.
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;       ///< End was called, or it was refused.
  absl::Status end_ ABSL_GUARDED_BY(mutex_) = ShuttingDown();  ///< What it finishes with then.
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;                ///< Cancelled, or a write failed.
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace octet
