#include "cli/load/load_driver.h"

#include <atomic>
#include <limits>
#include <memory>
#include <random>
#include <string_view>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "engine/tensor/status.h"
#include "proto/inference.pb.h"

namespace octet::cli {
namespace {

using Clock = std::chrono::steady_clock;
using google::protobuf::internal::WireFormatLite;

constexpr char kMethod[] = "/inference.GRPCInferenceService/ModelInfer";

Clock::duration Seconds(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

/// Of all threads of this process.
double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto of = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

using google::protobuf::io::CodedInputStream;

constexpr uint32_t TextTag(int field) {
  return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}

bool ReadText(CodedInputStream& wire, std::string& text) {
  uint32_t size = 0;
  return wire.ReadVarint32(&size) && wire.ReadString(&text, static_cast<int>(size));
}

/// The value of a serialized entry of map<string, InferParameter> if it is that of "precision"; else empty.
std::string PrecisionIn(const std::string& entry) {
  CodedInputStream wire(reinterpret_cast<const uint8_t*>(entry.data()),
                        static_cast<int>(entry.size()));
  std::string key;
  std::string value;
  while (const uint32_t tag = wire.ReadTag()) {
    const bool read = tag == TextTag(1)   ? ReadText(wire, key)
                      : tag == TextTag(2) ? ReadText(wire, value)
                                          : WireFormatLite::SkipField(&wire, tag);
    if (!read) return {};
  }
  inference::InferParameter parameter;
  if (key != "precision" || !parameter.ParseFromString(value)) return {};
  return parameter.string_param();
}

/// The parameter "precision" of a serialized ModelInferResponse; empty when it has none. Reads up to it: the tensors, which
/// come behind the parameters, are not looked at.
std::string PrecisionOf(grpc::ByteBuffer& response) {
  grpc::ProtoBufferReader bytes(&response);
  CodedInputStream wire(&bytes);
  std::string entry;
  while (const uint32_t tag = wire.ReadTag()) {
    if (tag != TextTag(inference::ModelInferResponse::kParametersFieldNumber)) {
      if (!WireFormatLite::SkipField(&wire, tag)) return {};
      continue;
    }
    if (!ReadText(wire, entry)) return {};
    if (std::string precision = PrecisionIn(entry); !precision.empty()) return precision;
  }
  return {};
}

/// One request under way after another.
struct Slot {
  size_t stream = 0;
  size_t connection = 0;
  Clock::time_point intended;
  std::optional<grpc::ClientContext> context;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> call;
  grpc::ByteBuffer response;
  grpc::Status status;
};

/// The slots that have no request. Thread-safe.
class FreeSlots {
 public:
  void Give(Slot* slot) {
    const absl::MutexLock lock(&mutex_);
    slots_.push_back(slot);
  }
  Slot* TryTake() {
    const absl::MutexLock lock(&mutex_);
    return Pop();
  }
  Slot* Take() {
    const absl::MutexLock lock(&mutex_);
    mutex_.Await(
        absl::Condition(+[](std::vector<Slot*>* slots) { return !slots->empty(); }, &slots_));
    return Pop();
  }

 private:
  Slot* Pop() {
    if (slots_.empty()) return nullptr;
    Slot* slot = slots_.back();
    slots_.pop_back();
    return slot;
  }

  absl::Mutex mutex_;
  std::vector<Slot*> slots_;
};

class LoadDriver {
 public:
  LoadDriver(const std::vector<LoadStream>& streams, const LoadSettings& settings)
      : streams_(streams),
        settings_(settings),
        random_(ChooserSeed(settings.seed)),
        next_request_(streams.size()),
        slots_(static_cast<size_t>(settings.in_flight)) {
    std::vector<double> weights;
    for (const LoadStream& stream : streams) weights.push_back(stream.target.weight);
    choose_ = std::discrete_distribution<size_t>(weights.begin(), weights.end());
    tally_.answered.resize(streams.size());
    tally_.by_connection.resize(static_cast<size_t>(settings.connections));
    for (size_t i = 0; i < slots_.size(); ++i) {
      slots_[i].connection = i % tally_.by_connection.size();
      free_.Give(&slots_[i]);
    }
  }

  absl::Status Connect() {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(std::numeric_limits<int>::max());
    arguments.SetMaxSendMessageSize(std::numeric_limits<int>::max());
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // Else channels share a connection.
    std::vector<std::shared_ptr<grpc::Channel>> channels;
    for (int i = 0; i < settings_.connections; ++i) {
      channels.push_back(
          grpc::CreateCustomChannel(settings_.target, settings_.credentials, arguments));
      channels.back()->GetState(/*try_to_connect=*/true);
    }
    const auto until = std::chrono::system_clock::now() + std::chrono::seconds(10);
    for (const auto& channel : channels) {
      if (!channel->WaitForConnected(until))
        return MakeError(absl::StatusCode::kUnavailable, "no connection to {}", settings_.target);
      stubs_.push_back(std::make_unique<grpc::GenericStub>(channel));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<LoadTally> Run(const std::function<void(const LoadProgress&)>& look,
                                const std::function<bool()>& keep_going) {
    const double cpu = CpuSeconds();
    started_ = Clock::now();
    until_ = started_ + Seconds(settings_.plan ? settings_.plan->seconds : settings_.seconds);
    if (!settings_.plan) {
      for (size_t i = 0; i < slots_.size(); ++i) (void)Send(*free_.Take(), Clock::now());
    }
    std::thread reader([this] { ReadAnswers(); });
    std::thread sender([this] {
      if (settings_.plan) SendByPlan();
      for (size_t i = 0; i < slots_.size(); ++i) free_.Take();  // Until nothing is under way.
      queue_.Shutdown();
      finished_.Notify();
    });
    while (!finished_.WaitForNotificationWithTimeout(absl::Milliseconds(200))) {
      if (look) look(Look());
      if (keep_going && !keep_going()) Stop();
    }
    sender.join();
    reader.join();
    if (stopped()) return absl::CancelledError("the load was stopped");
    const Clock::time_point end = settings_.plan ? std::max(last_answer_, until_) : last_answer_;
    tally_.seconds = std::chrono::duration<double>(end - started_).count();
    tally_.cpu_seconds = CpuSeconds() - cpu;
    return std::move(tally_);
  }

 private:
  /// One thread at a time: the caller's, then the reader's in a closed loop, the sender's in an open one. False, and nothing is
  /// sent, when the run was stopped.
  bool Send(Slot& slot, Clock::time_point intended) {
    const absl::MutexLock lock(&sending_);
    if (stopped()) return false;
    slot.stream = streams_.size() == 1 ? 0 : choose_(random_);
    slot.intended = intended;
    slot.call.reset();
    slot.context.emplace();
    slot.context->set_deadline(std::chrono::system_clock::now() + settings_.timeout);
    slot.response.Clear();
    const std::vector<grpc::ByteBuffer>& requests = streams_[slot.stream].requests;
    const grpc::ByteBuffer& request = requests[next_request_[slot.stream]++ % requests.size()];
    sent_.fetch_add(1, std::memory_order_relaxed);
    slot.call =
        stubs_[slot.connection]->PrepareUnaryCall(&*slot.context, kMethod, request, &queue_);
    slot.call->StartCall();
    // From here on the slot is the reader's.
    slot.call->Finish(&slot.response, &slot.status, &slot);
    return true;
  }

  /// Nothing more is sent, and nobody waits for what is under way.
  void Stop() {
    const absl::MutexLock lock(&sending_);
    if (stopped_.exchange(true, std::memory_order_relaxed)) return;
    for (Slot& slot : slots_)
      if (slot.context) slot.context->TryCancel();
  }

  bool stopped() const { return stopped_.load(std::memory_order_relaxed); }

  /// Or until the run is stopped, which is looked at now and then on a long way.
  void SleepUntil(Clock::time_point due) const {
    constexpr auto kLook = std::chrono::milliseconds(200);
    while (due - Clock::now() > kLook && !stopped()) std::this_thread::sleep_for(kLook / 2);
    if (!stopped()) std::this_thread::sleep_until(due);
  }

  void SendByPlan() {
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);  // ns; 50 us otherwise
    Arrivals arrivals(*settings_.plan, settings_.arrivals, settings_.seed);
    size_t connection = 0;
    while (const std::optional<double> time = arrivals.Next()) {
      const Clock::time_point due = started_ + Seconds(*time);
      SleepUntil(due);
      if (stopped()) return;
      Slot* slot = free_.TryTake();
      if (slot == nullptr) {
        ++tally_.held_back;
        slot = free_.Take();
      }
      slot->connection = connection++ % stubs_.size();
      tally_.late.Add(Clock::now() - due);
      if (!Send(*slot, due)) return free_.Give(slot);
    }
  }

  void ReadAnswers() {
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
      Slot& slot = *static_cast<Slot*>(tag);
      last_answer_ = Clock::now();
      Record(slot, last_answer_ - slot.intended);
      if (!settings_.plan && last_answer_ < until_ && Send(slot, Clock::now())) continue;
      free_.Give(&slot);
    }
  }

  void Record(Slot& slot, Clock::duration latency) {
    const absl::MutexLock lock(&mutex_);
    ++tally_.by_connection[slot.connection];
    ++progress_.finished;
    if (slot.status.ok()) {
      tally_.answered[slot.stream][PrecisionOf(slot.response)].Add(latency);
      progress_.recent.Add(latency);
      return;
    }
    ++progress_.failed;
    tally_.errors.Add(
        Format("{}: {}", static_cast<int>(slot.status.error_code()), slot.status.error_message()));
  }

  LoadProgress Look() {
    const absl::MutexLock lock(&mutex_);
    LoadProgress progress = progress_;
    progress_.recent = Latencies();
    progress.sent = sent_.load(std::memory_order_relaxed);
    progress.seconds = std::chrono::duration<double>(Clock::now() - started_).count();
    return progress;
  }

  const std::vector<LoadStream>& streams_;
  const LoadSettings& settings_;
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
  std::mt19937_64 random_;
  std::discrete_distribution<size_t> choose_;
  std::vector<size_t> next_request_;  // By stream.
  Clock::time_point started_;
  Clock::time_point until_;
  Clock::time_point last_answer_;
  std::atomic<int64_t> sent_{0};
  std::atomic<bool> stopped_{false};
  absl::Mutex sending_;  // Of the contexts of slots.
  absl::Notification finished_;
  absl::Mutex mutex_;
  LoadProgress progress_;  // By mutex_; sent and seconds are not kept.
  LoadTally tally_;        // Answers, errors and connections by mutex_, the rest the sender's.
  grpc::CompletionQueue queue_;
  std::vector<Slot> slots_;
  FreeSlots free_;
};

}  // namespace

Latencies LoadTally::All() const {
  Latencies all;
  for (const auto& stream : answered)
    for (const auto& [unused, latencies] : stream) all.Merge(latencies);
  return all;
}

absl::StatusOr<LoadTally> RunLoad(const std::vector<LoadStream>& streams,
                                  const LoadSettings& settings,
                                  const std::function<void(const LoadProgress&)>& look,
                                  const std::function<bool()>& keep_going) {
  LoadDriver driver(streams, settings);
  OCTET_RETURN_IF_ERROR(driver.Connect());
  return driver.Run(look, keep_going);
}

}  // namespace octet::cli
