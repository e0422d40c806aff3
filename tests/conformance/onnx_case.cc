#include "tests/conformance/onnx_case.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_join.h"

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
  std::vector<Datum> inputs;
  std::vector<Datum> outputs;
};

// input_0.pb, input_1.pb, ... of one data set, of the kinds that the model's inputs or outputs have.
absl::StatusOr<std::vector<Datum>> ReadData(const fs::path& folder, std::string_view prefix,
                                            const Graph& graph, std::span<const ValueId> values) {
  std::vector<Datum> data;
  for (;;) {
    const fs::path file = folder / Format("{}_{}.pb", prefix, data.size());
    if (!fs::exists(file)) return data;
    const ValueKind kind =
        data.size() < values.size() ? graph.value(values[data.size()]).kind : ValueKind::kTensor;
    OCTET_ASSIGN_OR_RETURN(Datum read, ReadDatumFile(file.string(), kind));
    data.push_back(std::move(read));
  }
}

absl::StatusOr<std::vector<DataSet>> ReadDataSets(const fs::path& folder, const Graph& graph) {
  std::vector<DataSet> sets;
  for (;;) {
    const fs::path set = folder / Format("test_data_set_{}", sets.size());
    if (!fs::exists(set)) return sets;
    DataSet& read = sets.emplace_back();
    OCTET_ASSIGN_OR_RETURN(read.inputs, ReadData(set, "input", graph, graph.inputs));
    OCTET_ASSIGN_OR_RETURN(read.outputs, ReadData(set, "output", graph, graph.outputs));
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

std::string Listed(const Tensor& strings) {
  return absl::StrJoin(strings.span<std::string_view>(), ", ",
                       [](std::string* out, std::string_view text) { out->append(text); });
}

absl::Status Compare(const std::string& output, const Tensor& seen, const Tensor& got) {
  const Tensor expected = AsStored(seen, got.dtype());
  if (got.spec() != expected.spec()) {
    return absl::FailedPreconditionError(
        Format("output {}: expected {}{}, got {}{}", output, DTypeName(expected.dtype()),
               expected.shape().ToString(), DTypeName(got.dtype()), got.shape().ToString()));
  }
  if (got.dtype() == DType::kString) {
    if (std::ranges::equal(got.span<std::string_view>(), expected.span<std::string_view>()))
      return absl::OkStatus();
    return absl::FailedPreconditionError(Format("output {}: expected the strings {}, got {}",
                                                output, Listed(expected), Listed(got)));
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

// The data of noise are one draw of another generator: only its type and shape can be held to them.
bool IsNoise(const Graph& graph) {
  return std::ranges::any_of(graph.order(), [&](NodeId id) {
    const std::string& op = graph.node(id).op;
    return op.starts_with("Random") || op == "Bernoulli" || op == "Multinomial";
  });
}

absl::Status Compare(const std::string& output, const Datum& expected, const Datum& got) {
  if (got.kind != expected.kind || got.sequence.size() != expected.sequence.size()) {
    return absl::FailedPreconditionError(
        Format("output {}: expected kind {} with {} tensors, got {} with {}", output,
               static_cast<int>(expected.kind), expected.sequence.size(),
               static_cast<int>(got.kind), got.sequence.size()));
  }
  if (got.is_tensor()) return Compare(output, expected.tensor, got.tensor);
  for (size_t i = 0; i < got.sequence.size(); ++i) {
    OCTET_RETURN_IF_ERROR(
        Compare(Format("{}[{}]", output, i), expected.sequence[i], got.sequence[i]));
  }
  return absl::OkStatus();
}

absl::Status RunPlan(const Plan& plan, DataSet data, bool noise) {
  Workspace workspace;
  OCTET_ASSIGN_OR_RETURN(const std::vector<Datum> answers,
                         plan.RunDynamic(workspace, data.inputs, {}));
  if (answers.size() != data.outputs.size()) {
    return absl::FailedPreconditionError(
        Format("expected {} outputs, got {}", data.outputs.size(), answers.size()));
  }
  for (size_t i = 0; i < answers.size(); ++i) {
    Datum& expected = data.outputs[i];
    if (noise && expected.tensor.spec() == answers[i].tensor.spec()) expected = answers[i];
    OCTET_RETURN_IF_ERROR(Compare(Format("{}", i), expected, answers[i]));
  }
  return absl::OkStatus();
}

absl::Status RunDataSet(const Graph& graph, DataSet data, const LoadOptions& options) {
  if (data.inputs.size() != graph.inputs.size()) {
    return absl::FailedPreconditionError(Format("the case gives {} inputs, the model takes {}",
                                                data.inputs.size(), graph.inputs.size()));
  }
  std::vector<Shape> shapes;
  for (size_t i = 0; i < data.inputs.size(); ++i) {
    Datum& input = data.inputs[i];
    if (input.is_tensor()) {
      input.tensor = AsStored(input.tensor, graph.value(graph.inputs[i]).dtype);
      shapes.push_back(input.tensor.shape());
    } else {
      shapes.emplace_back();
    }
  }
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model,
                         Model::FromGraph(graph, options));
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, model->PlanFor(shapes));
  return RunPlan(*plan, std::move(data), IsNoise(graph));
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

std::vector<std::string> LightNames() {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(DataFolder() / "light")) {
    if (entry.path().extension() == ".onnx")
      names.push_back("light/" + entry.path().stem().string());
  }
  return names;
}

absl::Status RunLight(const std::string& name) {
  const std::string path = (DataFolder() / name).string();
  OCTET_ASSIGN_OR_RETURN(const Graph graph, ReadOnnxFile(path + ".onnx"));
  DataSet data;
  for (const ValueId id : graph.inputs) {
    const Value& input = graph.value(id);
    if (!input.has_static_shape() || input.dtype != DType::kF32)
      return absl::FailedPreconditionError(Format("input '{}' has no numbers", input.name));
    Tensor numbers(DType::kF32, *input.shape);
    const std::span<float> x = numbers.mutable_span<float>();
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = static_cast<float>(static_cast<double>(i) / static_cast<double>(x.size()));
    data.inputs.push_back(Datum::Of(std::move(numbers)));
  }
  OCTET_ASSIGN_OR_RETURN(Datum output, ReadDatumFile(path + "_output_0.pb", ValueKind::kTensor));
  data.outputs.push_back(std::move(output));
  return RunDataSet(graph, std::move(data), {});
}

absl::Status RunCase(const std::string& name) {
  const fs::path folder = DataFolder() / name;
  const std::string path = (folder / "model.onnx").string();
  const auto graph = ReadOnnxFile(path);
  if (!graph.ok()) return WithoutPrefix(graph.status(), path + ": ");
  OCTET_ASSIGN_OR_RETURN(const std::vector<DataSet> sets, ReadDataSets(folder, *graph));
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
