// What gRPC itself costs: a server of the protocol that answers every ModelInfer with as many bytes as a model would.
// The floor under `./dev bench serving`.
//
// usage: empty_server NAME:DATATYPE:DIMS:BYTES[:MICROSECONDS]...
//
// Each argument is a model: its input "input" of DATATYPE and of DIMS (3x224x224) without the batch, the size of its
// answer, and the processor time of one request. Without it, or with 0, a request is answered at once. With it one of as many
// threads as there are cores spends it first: what gRPC's threads cost a request depends on how often requests come and
// on who else wants the cores. Prints "port=PORT" when it listens, and ends when its standard input does.
#include <malloc.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <ctime>
#include <deque>
#include <iostream>
#include <limits>
#include <map>
#include <mutex>
#include <ranges>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "proto/inference.grpc.pb.h"

namespace {

struct EmptyModel {
  std::string datatype;
  std::vector<int64_t> dims = {-1};
  std::string answer;
  std::chrono::microseconds work{0};
};

/// Threads that spend processor time and then finish a request, in order of arrival.
class Workers {
 public:
  Workers() {
    for (unsigned i = 0; i < std::max(1U, std::thread::hardware_concurrency()); ++i)
      threads_.emplace_back([this](const std::stop_token& stop) { Run(stop); });
  }

  void Finish(grpc::ServerUnaryReactor* reactor, std::chrono::microseconds work) {
    {
      const std::scoped_lock lock(mutex_);
      waiting_.push_back({reactor, work});
    }
    arrived_.notify_one();
  }

 private:
  struct Request {
    grpc::ServerUnaryReactor* reactor;
    std::chrono::microseconds work;
  };

  void Run(const std::stop_token& stop) {
    while (true) {
      std::unique_lock lock(mutex_);
      if (!arrived_.wait(lock, stop, [this] { return !waiting_.empty(); })) return;
      const Request request = waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      const std::chrono::nanoseconds end = Used() + request.work;
      while (Used() < end) {
      }
      request.reactor->Finish(grpc::Status::OK);
    }
  }

  /// Processor time of the calling thread.
  static std::chrono::nanoseconds Used() {
    timespec used{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
  }

  std::mutex mutex_;
  std::condition_variable_any arrived_;
  std::deque<Request> waiting_;
  std::vector<std::jthread> threads_;
};

class EmptyService final : public inference::GRPCInferenceService::CallbackService {
 public:
  explicit EmptyService(std::map<std::string, EmptyModel> models) : models_(std::move(models)) {}

  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* context,
                                          const inference::ModelMetadataRequest* request,
                                          inference::ModelMetadataResponse* response) override {
    const auto found = models_.find(request->name());
    if (found != models_.end()) {
      auto* input = response->add_inputs();
      input->set_name("input");
      input->set_datatype(found->second.datatype);
      for (const int64_t dim : found->second.dims) input->add_shape(dim);
    }
    return Answer(*context, found != models_.end());
  }

  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override {
    const auto found = models_.find(request->model_name());
    if (found != models_.end()) {
      response->set_model_name(request->model_name());
      auto* output = response->add_outputs();
      output->set_name("output");
      output->set_datatype("UINT8");
      output->add_shape(static_cast<int64_t>(found->second.answer.size()));
      response->add_raw_output_contents(found->second.answer);
      if (found->second.work.count() > 0) {
        grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
        workers_.Finish(reactor, found->second.work);
        return reactor;
      }
    }
    return Answer(*context, found != models_.end());
  }

 private:
  static grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext& context, bool found) {
    grpc::ServerUnaryReactor* reactor = context.DefaultReactor();
    reactor->Finish(found ? grpc::Status::OK
                          : grpc::Status(grpc::StatusCode::NOT_FOUND, "no such model"));
    return reactor;
  }

  const std::map<std::string, EmptyModel> models_;
  Workers workers_;
};

/// The parts of `text` between separators, empty ones included.
std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (const auto part : std::views::split(text, separator)) parts.emplace_back(part);
  return parts;
}

/// False unless all of `text` is a number that `value` can hold.
template <typename T>
bool ParseNumber(std::string_view text, T& value) {
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  const auto [stopped, error] = std::from_chars(begin, end, value);
  return error == std::errc() && stopped == end;
}

/// False when the words are no model.
bool AddModel(std::string_view words, std::map<std::string, EmptyModel>& models) {
  const std::vector<std::string_view> fields = Split(words, ':');
  if (fields.size() < 4 || fields.size() > 5) return false;
  EmptyModel model;
  model.datatype = fields[1];
  for (const std::string_view dim : Split(fields[2], 'x')) {
    if (!ParseNumber(dim, model.dims.emplace_back())) return false;
  }
  uint64_t bytes = 0;
  if (!ParseNumber(fields[3], bytes) || bytes > (uint64_t{1} << 30)) return false;
  model.answer.resize(bytes);
  if (uint32_t microseconds = 0; fields.size() == 5) {
    if (!ParseNumber(fields[4], microseconds)) return false;
    model.work = std::chrono::microseconds(microseconds);
  }
  models[std::string(fields[0])] = std::move(model);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, EmptyModel> models;
  for (int i = 1; i < argc; ++i) {
    if (!AddModel(argv[i], models)) {
      std::cerr << "expected NAME:DATATYPE:DIMS:BYTES[:MICROSECONDS], got \"" << argv[i] << "\"\n";
      return 2;
    }
  }
  // As Octet does (server/run_server.cc): glibc's own thresholds would be measured otherwise.
  mallopt(M_ARENA_MAX, 2);
  mallopt(M_MMAP_THRESHOLD, 16 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  EmptyService service(std::move(models));
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(std::numeric_limits<int>::max());
  builder.SetMaxSendMessageSize(std::numeric_limits<int>::max());
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    std::cerr << "cannot listen on a loopback port\n";
    return 1;
  }
  std::cout << "port=" << port << std::endl;
  std::string ignored;
  while (std::getline(std::cin, ignored)) {
  }
  server->Shutdown();
  return 0;
}
