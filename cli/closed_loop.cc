#include "cli/closed_loop.h"

#include <latch>
#include <limits>
#include <vector>

namespace octet::cli {
namespace {

// Sends a slot's requests, one at a time.
class LoopCaller {
 public:
  LoopCaller(LoopSlot& slot, std::optional<std::chrono::milliseconds> timeout, std::latch& done)
      : slot_(slot), timeout_(timeout), done_(done) {}

  void Send() {
    const LoopSlot::Call call = slot_.Next();
    if (call.stub == nullptr) return done_.count_down();
    context_ = std::make_unique<grpc::ClientContext>();
    if (timeout_) context_->set_deadline(std::chrono::system_clock::now() + *timeout_);
    response_.Clear();
    sent_ = std::chrono::steady_clock::now();
    call.stub->async()->ModelInfer(context_.get(), call.request, &response_,
                                   [this](const grpc::Status& status) {
                                     const auto now = std::chrono::steady_clock::now();
                                     slot_.Answered(status, response_, now - sent_);
                                     Send();
                                   });
  }

 private:
  LoopSlot& slot_;
  const std::optional<std::chrono::milliseconds> timeout_;
  std::latch& done_;
  std::unique_ptr<grpc::ClientContext> context_;
  inference::ModelInferResponse response_;
  std::chrono::steady_clock::time_point sent_;
};

}  // namespace

std::unique_ptr<InferStub> Connect(const std::string& target,
                                   const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(std::numeric_limits<int>::max());
  arguments.SetMaxSendMessageSize(std::numeric_limits<int>::max());
  return inference::GRPCInferenceService::NewStub(
      grpc::CreateCustomChannel(target, credentials, arguments));
}

void RunClosedLoop(std::span<LoopSlot* const> slots,
                   std::optional<std::chrono::milliseconds> timeout) {
  std::latch done(std::ssize(slots));
  std::vector<std::unique_ptr<LoopCaller>> callers;
  for (LoopSlot* slot : slots) {
    callers.push_back(std::make_unique<LoopCaller>(*slot, timeout, done));
  }
  for (const auto& caller : callers) caller->Send();
  done.wait();
}

}  // namespace octet::cli
