#include "server/rpc/health_service.h"

#include <pthread.h>

#include <optional>
#include <utility>

#include "engine/tensor/status.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/received_message.h"

namespace octet {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

namespace {

grpc::ByteBuffer Answer(HealthService::Status status) {
  HealthCheckResponse response;
  response.set_status(status);
  return WriteMessage(response);
}

/// A watch whose request cannot be read.
class RefusedWatch final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit RefusedWatch(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

/// One watch: writes a status whenever it differs from the one written before.
class HealthWatch final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  static HealthWatch* Start(std::string service, HealthService::Status status,
                            LiveSet<HealthWatch>& watches) {
    const auto watch = std::make_shared<HealthWatch>(std::move(service), status, watches);
    watch->self_ = watch;
    const absl::Status open = watches.Add(watch);
    // Once it is in the set, Update and End may come first.
    watch->Advance([&] {
      watch->ending_ |= !open.ok();
      if (absl::IsResourceExhausted(open)) watch->end_ = open;
    });
    return watch.get();
  }

  HealthWatch(std::string service, HealthService::Status status, LiveSet<HealthWatch>& watches)
      : service_(std::move(service)), watches_(watches), wanted_(status) {}

  const std::string& service() const { return service_; }
  void Update(HealthService::Status status) {
    Advance([&] { wanted_ = status; });
  }
  void End() {
    Advance([&] {
      if (wanted_ != HealthCheckResponse::SERVICE_UNKNOWN)
        wanted_ = HealthCheckResponse::NOT_SERVING;
      ending_ = true;
    });
  }

  void OnWriteDone(bool ok) override {
    Advance([&] {
      writing_ = false;
      broken_ = broken_ || !ok;
    });
  }
  void OnCancel() override {
    Advance([&] { broken_ = true; });
  }
  void OnDone() override {
    const std::shared_ptr<HealthWatch> self = std::move(self_);
    watches_.Remove(self);
  }

 private:
  enum class Next : uint8_t { kNothing, kWrite, kFinish };

  // As InferStream::Advance.
  template <typename Change>
  void Advance(Change change) {
    Next next;
    {
      absl::MutexLock lock(&mutex_);
      change();
      next = Decide();
    }
    while (next == Next::kWrite) {
      StartWrite(&response_);
      absl::MutexLock lock(&mutex_);
      starting_ = false;
      next = Decide();
    }
    if (next == Next::kFinish) Finish(ToGrpc(end_));
  }

  Next Decide() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_ || writing_ || starting_) return Next::kNothing;
    // One that is refused says nothing: its client would take it for the beginning of a watch, and come again at once.
    if (!broken_ && !absl::IsResourceExhausted(end_) && wanted_ != written_) {
      written_ = wanted_;
      response_ = Answer(wanted_);
      writing_ = starting_ = true;
      return Next::kWrite;
    }
    finished_ = broken_ || ending_;
    return finished_ ? Next::kFinish : Next::kNothing;
  }

  const std::string service_;
  LiveSet<HealthWatch>& watches_;
  std::shared_ptr<HealthWatch> self_;  ///< Until OnDone.
  grpc::ByteBuffer response_;          ///< Not touched while it is written.
  /// Set before it can finish, and not touched afterwards.
  absl::Status end_ = absl::UnavailableError("the server is shutting down, or the client has gone");

  absl::Mutex mutex_;
  HealthService::Status wanted_ ABSL_GUARDED_BY(mutex_);
  std::optional<HealthService::Status> written_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool starting_ ABSL_GUARDED_BY(mutex_) = false;  ///< A thread is in StartWrite.
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

HealthService::HealthService(const GrpcServerOptions& options, const ServingParts& parts)
    : parts_(parts), watches_(options.max_long_calls), thread_([this] { Run(); }) {
  pthread_setname_np(thread_.native_handle(), "health");
}

HealthService::~HealthService() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
  changed_.SignalAll();
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context,
                                               const grpc::ByteBuffer* request,
                                               grpc::ByteBuffer* response) {
  auto* reactor = context->DefaultReactor();
  HealthCheckRequest ask;
  absl::Status read = ReadMessage(*request, ask);
  const Status status = StatusOf(ask.service());
  if (read.ok() && status == HealthCheckResponse::SERVICE_UNKNOWN) {
    read = NotFound("unknown service \"{}\"", ask.service());
  }
  if (read.ok()) *response = Answer(status);
  reactor->Finish(ToGrpc(read));
  return reactor;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* HealthService::Watch(grpc::CallbackServerContext*,
                                                                 const grpc::ByteBuffer* request) {
  HealthCheckRequest ask;
  const absl::Status read = ReadMessage(*request, ask);
  if (!read.ok()) return new RefusedWatch(ToGrpc(read));
  return HealthWatch::Start(ask.service(), StatusOf(ask.service()), watches_);
}

void HealthService::EndWatches() {
  for (const auto& watch : watches_.Close()) watch->End();
}

HealthService::Status HealthService::StatusOf(const std::string& service) const {
  const auto serving = [this](bool yes) {
    return yes && !parts_.gate.announced() ? HealthCheckResponse::SERVING
                                           : HealthCheckResponse::NOT_SERVING;
  };
  if (service.empty()) return serving(true);
  if (service == "inference.GRPCInferenceService") return serving(parts_.repository.Ready());
  const absl::Status found = parts_.repository.Find(service, "").status();
  if (absl::IsNotFound(found)) return HealthCheckResponse::SERVICE_UNKNOWN;
  return serving(found.ok());
}

void HealthService::Run() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) return;
      parts_.clock.WaitUntil(changed_, mutex_, parts_.clock.Now() + kPeriod);
      if (stopping_) return;
    }
    for (const auto& watch : watches_.Members()) watch->Update(StatusOf(watch->service()));
  }
}

}  // namespace octet
