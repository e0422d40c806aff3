// Damaged ONNX models through everything that a model goes through: reader, passes, compiler, a run. Those with control flow,
// sequences, strings or shapes that follow from data are programs, as in a server. External data lie in FOLDER/weights.bin.
//
//   onnx_fuzz CORPUS [--models COUNT] [--seconds S] [--seed N] [--findings FOLDER]
//   onnx_fuzz FILE
//
// CORPUS is a folder of sound models; COUNT damaged ones are made of them, or as many as S seconds allow. A seed makes the same
// models on every machine. Models that get farther than others did before are changed further. Every outcome is fine
// but a crash, a sanitizer's report, an INTERNAL error, and an answer after more than kMostSeconds; the model that was at work is
// in FOLDER/current.onnx then, and `onnx_fuzz FILE` repeats it. Exit code: 0 without a finding.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <limits>
#include <new>
#include <set>
#include <stdexcept>

#include "engine/onednn/runtime.h"
#include "engine/onnx/onnx_file.h"
#include "engine/passes/pass.h"
#include "engine/plan/compiler.h"
#include "engine/plan/cut.h"
#include "engine/plan/program_plan.h"
#include "engine/plan/segment.h"
#include "engine/tensor/status.h"
#include "tests/fuzz/model_mutator.h"

namespace octet::fuzz {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kModelBytes = uint64_t{1} << 20;
constexpr uint64_t kPlanBytes = uint64_t{1} << 18;
constexpr size_t kLargestCorpus = 4000;
constexpr size_t kExternalBytes = 4096;
constexpr int64_t kMostIterations = 1000;
constexpr unsigned kMostSeconds = 20;

struct Options {
  std::string corpus;
  std::string findings = ".";
  int64_t models = std::numeric_limits<int64_t>::max();
  int seconds = 600;
  uint32_t seed = 1;
};

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void BindOpenExtents(Graph& graph) {
  for (const ValueId id : graph.inputs) {
    Value& value = graph.mutable_value(id);
    if (!value.shape) value.shape = Shape{2};
    for (int i = 0; i < value.shape->rank(); ++i) {
      if ((*value.shape)[i] == kUnknownDim) (*value.shape)[i] = 2;
    }
  }
}

Tensor MadeUp(DType dtype, const Shape& shape) {
  if (dtype == DType::kString) {
    const std::vector<std::string_view> texts(static_cast<size_t>(shape.elements()), "text");
    return Tensor::Strings(shape, texts);
  }
  Tensor tensor(dtype, shape);
  std::memset(tensor.mutable_data(), dtype == DType::kF32 ? 0x3E : 1, tensor.bytes());
  return tensor;
}

// A sequence is two tensors, what is optional is absent.
absl::StatusOr<Datum> MadeUp(const Value& value) {
  const Shape shape = value.shape.value_or(Shape{2});
  if (!shape.is_static() || shape.elements() > static_cast<int64_t>(kPlanBytes))
    return MakeError(absl::StatusCode::kResourceExhausted, "an input of {}", shape.ToString());
  if (value.is_tensor()) return Datum::Of(MadeUp(value.dtype, shape));
  if (value.kind != ValueKind::kSequence) return Datum{};
  return Datum::Sequence(std::vector<Tensor>(2, MadeUp(value.dtype, shape)));
}

// A model that no static plan can have.
absl::Status RunProgram(const Graph& graph, const Target& target, std::string& trace) {
  auto context = std::make_shared<ProgramContext>();
  context->target = target;
  context->weights = std::make_shared<onednn::WeightCache>();
  context->max_loop_iterations = kMostIterations;
  context->max_bytes = kPlanBytes;
  std::vector<Datum> inputs;
  for (const ValueId id : graph.inputs) {
    OCTET_ASSIGN_OR_RETURN(Datum input, MadeUp(graph.value(id)));
    inputs.push_back(std::move(input));
  }
  OCTET_ASSIGN_OR_RETURN(const auto plan, ProgramPlan::Make(graph, context, {}));
  trace += ",program";
  for (const LayerRecord& layer : plan->certificate().layers) trace += "," + layer.op + layer.runs;
  Workspace workspace;
  OCTET_RETURN_IF_ERROR(plan->RunDynamic(workspace, inputs, {}).status());
  trace += ",ran";
  return absl::OkStatus();
}

absl::Status Run(const Plan& plan) {
  std::vector<Tensor> tensors;
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
  for (const TensorSpec& spec : plan.inputs()) {
    inputs.push_back(tensors.emplace_back(MadeUp(spec.dtype, spec.shape)).data());
  }
  for (const TensorSpec& spec : plan.outputs())
    outputs.push_back(tensors.emplace_back(spec.dtype, spec.shape).mutable_data());
  Workspace workspace;
  return plan.Run(workspace, inputs, outputs);
}

// What happened to a model on its way: the trace tells two models apart that took different ways.
absl::Status Serve(const fs::path& file, std::string& trace) {
  OCTET_ASSIGN_OR_RETURN(Graph graph,
                         ReadOnnxFile(file.string(), {.max_tensor_bytes = kModelBytes}));
  trace = "read";
  const onednn::TeamSizeScope team(1);
  PassContext context;
  context.target = DetectTarget(1);
  Graph examined = graph;
  OCTET_RETURN_IF_ERROR(InferShapes(examined));
  OCTET_ASSIGN_OR_RETURN(const bool staged, NeedsStages(examined));
  if (staged) {
    BindOpenExtents(graph);
    return RunProgram(graph, context.target, trace);
  }
  for (const bool bound : {false, true}) {
    if (bound) BindOpenExtents(graph);
    OCTET_ASSIGN_OR_RETURN(const std::vector<PassTrace> passes, RunPasses(graph, context));
    for (const PassTrace& pass : passes)
      trace += Format(",{}", pass.rewrites == 0 ? 0 : 1 + std::min(pass.rewrites / 2, 2));
  }
  onednn::WeightCache weights;
  OCTET_ASSIGN_OR_RETURN(
      const auto plan, CompilePlan(graph, {Precision::kFp32, context.target, weights, kPlanBytes}));
  trace += ",compiled";
  // Not what computes it: that is another thing on another CPU, and a seed shall make the same models everywhere.
  for (const LayerRecord& layer : plan->certificate().layers) trace += "," + layer.op + layer.runs;
  OCTET_RETURN_IF_ERROR(Run(*plan));
  trace += ",ran";
  return absl::OkStatus();
}

// As the engine's interface does: what no memory holds is an error of the model.
absl::Status ServeWithinMemory(const fs::path& file, std::string& trace) {
  try {
    return Serve(file, trace);
  } catch (const std::bad_alloc&) {
    return MakeError(absl::StatusCode::kResourceExhausted, "out of memory");
  } catch (const std::length_error& e) {
    return InvalidArgument("impossible size: {}", e.what());
  }
}

bool IsFair(const absl::Status& status) {
  return status.ok() || absl::IsInvalidArgument(status) || absl::IsUnimplemented(status) ||
         absl::IsResourceExhausted(status) || absl::IsNotFound(status);  // Of external data.
}

// Errors with the numbers and names taken out, so that one refusal is not a thousand new ways.
std::string Kind(const absl::Status& status) {
  std::string text;
  bool quoted = false;
  for (const char c : Message(status)) {
    if (c == '\'') quoted = !quoted;
    if (!quoted && std::isdigit(static_cast<unsigned char>(c)) == 0) text += c;
  }
  return text;
}

class Fuzzer {
 public:
  explicit Fuzzer(Options options)
      : options_(std::move(options)), mutator_(options_.seed), random_(options_.seed) {
    const fs::path folder(options_.findings);
    current_ = folder / "current.onnx";
    std::string weights(kExternalBytes, '\0');
    for (size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<char>(i % 61);
    std::ofstream(folder / "weights.bin", std::ios::binary | std::ios::trunc) << weights;
  }

  int Run() {
    std::set<fs::path> files;  // In one order everywhere.
    for (const auto& entry : fs::directory_iterator(options_.corpus)) files.insert(entry.path());
    for (const fs::path& path : files) {
      onnx::ModelProto model;
      const std::string bytes = ReadFile(path);
      if (!model.ParseFromString(bytes) || !Try(bytes)) return 1;
      corpus_.push_back(std::move(model));
    }
    if (corpus_.empty()) {
      std::cerr << "no models in " << options_.corpus << '\n';
      return 2;
    }
    const size_t sound = corpus_.size();
    const auto end = Clock::now() + std::chrono::seconds(options_.seconds);
    for (; tried_ < options_.models && Clock::now() < end; ++tried_) {
      onnx::ModelProto model = Pick();
      mutator_.Mutate(model, Pick());
      std::string bytes = model.SerializeAsString();
      const bool damaged = random_() % 16 == 0;
      if (damaged) mutator_.MutateBytes(bytes);
      const size_t ways = ways_.size();
      if (!Try(bytes)) return 1;
      if (!damaged && ways_.size() > ways && bytes.size() < kModelBytes / 8) Keep(std::move(model));
    }
    std::cout << Format(
        "no finding in {} models of seed {}: {} sound ones at first, {} ways through the engine\n",
        tried_, options_.seed, sound, ways_.size());
    fs::remove(current_);
    return 0;
  }

  // False for a finding.
  bool Try(const std::string& bytes) {
    std::ofstream(current_, std::ios::binary | std::ios::trunc)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    alarm(kMostSeconds);
    std::string trace;
    const absl::Status status = ServeWithinMemory(current_, trace);
    alarm(0);
    ways_.insert(trace + Kind(status));
    if (IsFair(status)) return true;
    std::cout << Format("finding: {}\n  seed {}, model {}: {}\n",
                        absl::StatusCodeToString(status.code()), options_.seed, tried_,
                        current_.string())
              << Message(status) << '\n';
    return false;
  }

 private:
  const onnx::ModelProto& Pick() { return corpus_[random_() % corpus_.size()]; }

  void Keep(onnx::ModelProto model) {
    if (corpus_.size() < kLargestCorpus) {
      corpus_.push_back(std::move(model));
    } else {
      corpus_[random_() % corpus_.size()] = std::move(model);
    }
  }

  const Options options_;
  ModelMutator mutator_;
  std::mt19937 random_;
  fs::path current_;
  std::vector<onnx::ModelProto> corpus_;
  std::set<std::string> ways_;
  int64_t tried_ = 0;
};

void OnAlarm(int) {
  constexpr std::string_view kText = "finding: a model keeps the engine busy for too long\n";
  [[maybe_unused]] const auto written = write(STDERR_FILENO, kText.data(), kText.size());
  abort();
}

int Main(std::span<char*> words) {
  Options options;
  for (size_t i = 1; i < words.size(); ++i) {
    const std::string_view word = words[i];
    const bool has_value = i + 1 < words.size();
    if (word == "--seconds" && has_value) {
      options.seconds = std::atoi(words[++i]);
    } else if (word == "--models" && has_value) {
      options.models = std::atoll(words[++i]);
    } else if (word == "--seed" && has_value) {
      options.seed = static_cast<uint32_t>(std::atoll(words[++i]));
    } else if (word == "--findings" && has_value) {
      options.findings = words[++i];
    } else {
      options.corpus = word;
    }
  }
  if (options.corpus.empty()) {
    std::cerr << "usage: onnx_fuzz CORPUS|FILE [--models COUNT] [--seconds S] [--seed N] "
                 "[--findings FOLDER]\n";
    return 2;
  }
  std::signal(SIGALRM, OnAlarm);
  ConfigureWorkerThread(1);
  if (fs::is_directory(options.corpus)) return Fuzzer(std::move(options)).Run();
  return Fuzzer(options).Try(ReadFile(options.corpus)) ? 0 : 1;
}

}  // namespace
}  // namespace octet::fuzz

int main(int argc, char** argv) { return octet::fuzz::Main({argv, static_cast<size_t>(argc)}); }
