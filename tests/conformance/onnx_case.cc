#include "tests/conformance/onnx_case.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "engine/engine.h"
#include "engine/tensor/status.h"

namespace octet::conformance {
namespace {

namespace fs = std::filesystem;

constexpr double kRtol = 1e-3;
constexpr double kAtol = 1e-5;

// The suite stores bfloat16 as the bits in UINT16. `seen` as `wanted`, where that is the difference.
Tensor AsStored(const Tensor& seen, DType wanted) {
  if (seen.dtype() != DType::kU16 || wanted != DType::kBF16) return seen;
  Tensor bits(DType::kBF16, seen.shape());
  if (bits.bytes() != 0) std::memcpy(bits.mutable_data(), seen.data(), bits.bytes());
  return bits;
}

struct DataSet {
  std::vector<Tensor> inputs;
  std::vector<Tensor> outputs;
};

// input_0.pb, input_1.pb, ... of one data set.
absl::StatusOr<std::vector<Tensor>> ReadTensors(const fs::path& folder, std::string_view kind) {
  std::vector<Tensor> tensors;
  for (;;) {
    const fs::path file = folder / Format("{}_{}.pb", kind, tensors.size());
    if (!fs::exists(file)) return tensors;
    OCTET_ASSIGN_OR_RETURN(NamedTensor read, ReadTensorFile(file.string()));
    tensors.push_back(std::move(read.tensor));
  }
}

absl::StatusOr<std::vector<DataSet>> ReadDataSets(const fs::path& folder) {
  std::vector<DataSet> sets;
  for (;;) {
    const fs::path set = folder / Format("test_data_set_{}", sets.size());
    if (!fs::exists(set)) return sets;
    DataSet& read = sets.emplace_back();
    OCTET_ASSIGN_OR_RETURN(read.inputs, ReadTensors(set, "input"));
    OCTET_ASSIGN_OR_RETURN(read.outputs, ReadTensors(set, "output"));
  }
}

// Element `i` as a double, which is exact for all but huge integers.
double Number(const Tensor& tensor, int64_t i) {
  const size_t at = static_cast<size_t>(i) * SizeOf(tensor.dtype());
  const ConstTensorView element{static_cast<const std::byte*>(tensor.data()) + at,
                                {tensor.dtype(), Shape{}}};
  double number = 0;
  ConvertTensor(element, {&number, {DType::kF64, Shape{}}});
  return number;
}

bool Close(double expected, double got) {
  if (std::isnan(expected) || std::isnan(got)) return std::isnan(expected) == std::isnan(got);
  if (std::isinf(expected) || std::isinf(got)) return expected == got;
  return std::abs(got - expected) <= kAtol + kRtol * std::abs(expected);
}

absl::Status Compare(size_t output, const Tensor& expected, const Tensor& got) {
  if (got.spec() != expected.spec()) {
    return absl::FailedPreconditionError(
        Format("output {}: expected {}{}, got {}{}", output, DTypeName(expected.dtype()),
               expected.shape().ToString(), DTypeName(got.dtype()), got.shape().ToString()));
  }
  for (int64_t i = 0; i < expected.elements(); ++i) {
    const double wanted = Number(expected, i);
    const double given = Number(got, i);
    const bool same = IsFloat(expected.dtype()) ? Close(wanted, given) : wanted == given;
    if (same) continue;
    return absl::FailedPreconditionError(Format("output {}, element {} of {}: expected {}, got {}",
                                                output, i, expected.shape().ToString(), wanted,
                                                given));
  }
  return absl::OkStatus();
}

// Turns graph inputs [first, end) into constants.
void MakeConstant(Graph& graph, const DataSet& data, size_t first) {
  for (size_t i = first; i < graph.inputs.size(); ++i) {
    Value& value = graph.mutable_value(graph.inputs[i]);
    value.shape = data.inputs[i].shape();
    value.constant = data.inputs[i];
  }
  graph.inputs.resize(std::min(first, graph.inputs.size()));
}

// The data of noise are one draw of another generator: only its type and shape can be held to them.
bool IsNoise(const Graph& graph) {
  return std::ranges::any_of(graph.order(), [&](NodeId id) {
    const std::string& op = graph.node(id).op;
    return op.starts_with("Random") || op == "Bernoulli" || op == "Multinomial";
  });
}

absl::Status RunPlan(const Plan& plan, DataSet data, bool noise) {
  std::vector<const void*> inputs;
  for (size_t i = 0; i < plan.inputs().size(); ++i) {
    if (data.inputs[i].spec() != plan.inputs()[i]) {
      return absl::FailedPreconditionError(Format("input {} is not what the case gives", i));
    }
    inputs.push_back(data.inputs[i].data());
  }
  std::vector<Tensor> answers;
  std::vector<void*> outputs;
  for (const TensorSpec& spec : plan.outputs()) {
    outputs.push_back(answers.emplace_back(spec.dtype, spec.shape).mutable_data());
  }
  Workspace workspace;
  OCTET_RETURN_IF_ERROR(plan.Run(workspace, inputs, outputs));
  if (answers.size() != data.outputs.size()) {
    return absl::FailedPreconditionError(
        Format("expected {} outputs, got {}", data.outputs.size(), answers.size()));
  }
  for (size_t i = 0; i < answers.size(); ++i) {
    if (noise && data.outputs[i].spec() == answers[i].spec()) data.outputs[i] = answers[i];
    OCTET_RETURN_IF_ERROR(Compare(i, AsStored(data.outputs[i], answers[i].dtype()), answers[i]));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const Plan>> MakePlan(const Graph& graph, const DataSet& data,
                                                     const LoadOptions& options) {
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model,
                         Model::FromGraph(graph, options));
  std::vector<Shape> shapes;
  for (size_t i = 0; i < model->signature().inputs.size(); ++i) {
    shapes.push_back(data.inputs[i].shape());
  }
  return model->PlanFor(shapes);
}

bool DependsOnData(const absl::Status& status) {
  return absl::IsUnimplemented(status) &&
         Message(status).find("known only when it runs") != std::string::npos;
}

absl::Status RunDataSet(const Graph& graph, DataSet data, const LoadOptions& options) {
  if (data.inputs.size() != graph.inputs.size()) {
    return absl::FailedPreconditionError(Format("the case gives {} inputs, the model takes {}",
                                                data.inputs.size(), graph.inputs.size()));
  }
  for (size_t i = 0; i < data.inputs.size(); ++i)
    data.inputs[i] = AsStored(data.inputs[i], graph.value(graph.inputs[i]).dtype);
  auto plan = MakePlan(graph, data, options);
  for (const size_t first : {1, 0}) {
    if (plan.ok() || !DependsOnData(plan.status())) break;
    Graph bound = graph;
    MakeConstant(bound, data, first);
    plan = MakePlan(bound, data, options);
  }
  OCTET_RETURN_IF_ERROR(plan.status());
  return RunPlan(**plan, data, IsNoise(graph));
}

// The error without the path that its message begins with, which is another one elsewhere.
absl::Status WithoutPrefix(const absl::Status& status, std::string_view prefix) {
  std::string_view message = Message(status);
  if (message.starts_with(prefix)) message.remove_prefix(prefix.size());
  return MakeError(status.code(), "{}", message);
}

// Every pass but constant folding, which shapes may need.
std::vector<std::string> AllButFolding() {
  std::vector<std::string> names;
  for (const Pass& pass : AllPasses()) {
    if (pass.name != "fold_constants") names.emplace_back(pass.name);
  }
  return names;
}

}  // namespace

fs::path DataFolder() {
  const char* set = std::getenv("OCTET_ONNX_TESTDATA");
  return set != nullptr ? set : "/usr/share/libonnx-testdata/data";
}

std::vector<std::string> CaseNames(const std::string& suite) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(DataFolder() / suite)) {
    if (fs::exists(entry.path() / "model.onnx"))
      names.push_back(suite + "/" + entry.path().filename().string());
  }
  return names;
}

absl::Status RunCase(const std::string& name) {
  const fs::path folder = DataFolder() / name;
  const std::string path = (folder / "model.onnx").string();
  const auto graph = ReadOnnxFile(path);
  if (!graph.ok()) return WithoutPrefix(graph.status(), path + ": ");
  OCTET_ASSIGN_OR_RETURN(const std::vector<DataSet> sets, ReadDataSets(folder));
  if (sets.empty()) return absl::FailedPreconditionError("the case has no data");
  LoadOptions as_written;
  as_written.disabled_passes = AllButFolding();
  for (const DataSet& data : sets) {
    OCTET_RETURN_IF_ERROR(RunDataSet(*graph, data, {}));
    const absl::Status plain = RunDataSet(*graph, data, as_written);
    if (!plain.ok()) return Annotate(plain, "without passes");
  }
  return absl::OkStatus();
}

}  // namespace octet::conformance
