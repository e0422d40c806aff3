// What gRPC itself costs: a server of the protocol that answers every ModelInfer at once, with as many bytes as a model
// would, and computes nothing. The floor under `./dev bench serving`.
//
// usage: empty_server NAME:DATATYPE:DIMS:BYTES...
//
// Each argument is a model: its input "input" of DATATYPE and of DIMS (3x224x224) without the batch, and the size of its
// answer. Prints "port=PORT" when it listens, and ends when its standard input does.
#include <malloc.h>

#include <cstdint>
#include <iostream>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "proto/inference.grpc.pb.h"

namespace {

struct EmptyModel {
  std::string datatype;
  std::vector<int64_t> dims = {-1};
  std::string answer;
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
};

/// False when the words are no model.
bool AddModel(const std::string& words, std::map<std::string, EmptyModel>& models) {
  std::istringstream fields(words);
  std::string name;
  std::string dims;
  uint64_t bytes = 0;
  EmptyModel model;
  if (!std::getline(fields, name, ':') || !std::getline(fields, model.datatype, ':') ||
      !std::getline(fields, dims, ':') || !(fields >> bytes) || bytes > (uint64_t{1} << 30))
    return false;
  std::istringstream extents(dims);
  int64_t extent = 0;
  while (extents >> extent) {
    model.dims.push_back(extent);
    extents.ignore(1, 'x');
  }
  model.answer.resize(bytes);
  models[name] = std::move(model);
  return extents.eof();
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, EmptyModel> models;
  for (int i = 1; i < argc; ++i) {
    if (!AddModel(argv[i], models)) {
      std::cerr << "expected NAME:DATATYPE:DIMS:BYTES, got \"" << argv[i] << "\"\n";
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
