// The peer of `octet bench --rounds`: ONNX Runtime's C library behind the same lines of standard input and output.
//
// usage: peer LIBRARY MODEL THREADS NAME:BYTES_FILE:ELEMENT_TYPE:SHAPE ...     SHAPE as 1x3x224x224, ELEMENT_TYPE as
// ONNX numbers them. Not part of Octet: run.py compiles it, and the library is loaded when it runs.
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include <nlohmann/json.hpp>

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWarmUpRuns = 3;  // as octet bench

// Loads the library; its version, "1.30.0".
std::string LoadLibrary(const char* path) {
  void* library = dlopen(path, RTLD_NOW);
  if (library == nullptr) throw std::runtime_error(dlerror());
  const auto base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  if (base == nullptr) throw std::runtime_error(dlerror());
  const OrtApi* api = base()->GetApi(ORT_API_VERSION);
  if (api == nullptr) throw std::runtime_error("the library is older than the header");
  Ort::InitApi(api);
  return base()->GetVersionString();
}

// Everything that the library offers and that leaves the answer as it is: all optimizations, no profiling, denormals
// as zero, buffers made once.
class Peer {
 public:
  Peer(const char* model, int threads) : session_(nullptr) {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(threads);
    options.SetInterOpNumThreads(1);
    options.SetExecutionMode(ORT_SEQUENTIAL);
    options.SetGraphOptimizationLevel(ORT_ENABLE_ALL);
    options.AddConfigEntry("session.set_denormal_as_zero", "1");
    session_ = Ort::Session(environment_, model, options);
    Ort::AllocatorWithDefaultOptions allocator;
    for (size_t i = 0; i < session_.GetOutputCount(); ++i) {
      names_.emplace_back(session_.GetOutputNameAllocated(i, allocator).get());
      output_names_.push_back(names_.back().c_str());
      outputs_.emplace_back(nullptr);
    }
  }

  // Adds an input from its description on the command line.
  void AddInput(const std::string& description) {
    std::istringstream parts(description);
    std::string name, file, type, extents;
    std::getline(parts, name, ':') && std::getline(parts, file, ':') &&
        std::getline(parts, type, ':') && std::getline(parts, extents);
    std::vector<int64_t> shape;
    std::istringstream numbers(extents);
    for (std::string extent; std::getline(numbers, extent, 'x');)
      shape.push_back(std::stoll(extent));
    std::ifstream stream(file, std::ios::binary);
    if (!stream) throw std::runtime_error("cannot read " + file);
    bytes_.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
    const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    inputs_.push_back(Ort::Value::CreateTensor(memory, bytes_.back().data(), bytes_.back().size(),
                                               shape.data(), shape.size(),
                                               ONNXTensorElementDataType(std::stoi(type))));
    names_.push_back(name);
    input_names_.push_back(names_.back().c_str());
  }

  // The first run makes the outputs' buffers, later ones write into them.
  void Run() {
    session_.Run(Ort::RunOptions(nullptr), input_names_.data(), inputs_.data(), inputs_.size(),
                 output_names_.data(), outputs_.data(), outputs_.size());
  }

  // Elements of every output by name.
  nlohmann::ordered_json Answers() const {
    nlohmann::ordered_json answers;
    for (size_t i = 0; i < outputs_.size(); ++i) {
      const auto info = outputs_[i].GetTensorTypeAndShapeInfo();
      const size_t count = info.GetElementCount();
      auto& elements = answers[output_names_[i]];
      elements = nlohmann::json::array();
      const auto take = [&](const auto* values) {
        for (size_t e = 0; e < count; ++e) elements.push_back(values[e]);
      };
      switch (info.GetElementType()) {
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
          take(outputs_[i].GetTensorData<float>());
          break;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
          take(outputs_[i].GetTensorData<int64_t>());
          break;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
          take(outputs_[i].GetTensorData<int8_t>());
          break;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
          take(outputs_[i].GetTensorData<uint8_t>());
          break;
        default:
          throw std::runtime_error("output of an element type that is not compared");
      }
    }
    return answers;
  }

 private:
  Ort::Env environment_;
  Ort::Session session_;
  std::vector<std::vector<char>> bytes_;
  std::deque<std::string> names_;  // which stay where they are when another is added
  std::vector<const char*> input_names_, output_names_;
  std::vector<Ort::Value> inputs_, outputs_;
};

// Runs for `seconds` after a warm-up that is not counted: the shortest and the median time.
nlohmann::ordered_json Measure(Peer& peer, double seconds) {
  for (int i = 0; i < kWarmUpRuns; ++i) peer.Run();
  std::vector<double> milliseconds;
  const auto until = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                        std::chrono::duration<double>(seconds));
  Clock::time_point before = Clock::now();
  do {
    peer.Run();
    const auto after = Clock::now();
    milliseconds.push_back(std::chrono::duration<double, std::milli>(after - before).count());
    before = after;
  } while (before < until);
  std::ranges::sort(milliseconds);
  const size_t middle = (milliseconds.size() + 1) / 2 - 1;  // nearest rank, as octet bench
  return {{"latency_ms", {{"min", milliseconds.front()}, {"p50", milliseconds[middle]}}}};
}

void Serve(int argc, char** argv) {
  const std::string version = LoadLibrary(argv[1]);
  Peer peer(argv[2], std::stoi(argv[3]));
  for (int i = 4; i < argc; ++i) peer.AddInput(argv[i]);
  peer.Run();
  std::cout << nlohmann::ordered_json{{"version", version}, {"outputs", peer.Answers()}}.dump()
            << std::endl;
  for (std::string line; std::getline(std::cin, line);)
    std::cout << Measure(peer, std::stod(line)).dump() << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: peer LIBRARY MODEL THREADS INPUT...\n";
    return 2;
  }
  try {
    Serve(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "peer: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
