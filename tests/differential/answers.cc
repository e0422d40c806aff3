// Octet's answers to many models in one process, for tests that compare them with another runtime's.
//
//   differential_answers < requests > answers
//
// A request is a line: "<folder of model.onnx and test_data_set_0, ...>\t<graph passes to run, or ->\t<precision, or ->\t<sets>\n".
// The model is loaded once; its answers to the sets, in order, lie one behind the other. An answer is a line of JSON,
//   {"error": "<code>: <message>"} or {"outputs": [{"dtype", "shape", "bytes"}, ...]},
// followed by the bytes of the outputs. Strings are in the line, as "texts".
#include <algorithm>
#include <charconv>
#include <cstring>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>

#include <nlohmann/json.hpp>

#include "engine/engine.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using Answer = std::vector<Tensor>;

struct Request {
  std::string folder;
  std::string passes;
  std::string precision;
  size_t sets = 1;
};

Request ParseRequest(const std::string& line) {
  std::istringstream fields(line);
  Request request;
  std::getline(fields, request.folder, '\t');
  std::getline(fields, request.passes, '\t');
  std::getline(fields, request.precision, '\t');
  fields >> request.sets;
  return request;
}

absl::StatusOr<std::vector<Tensor>> ReadInputs(const std::string& folder, size_t set,
                                               size_t count) {
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < count; ++i) {
    OCTET_ASSIGN_OR_RETURN(
        NamedTensor named,
        ReadTensorFile(Format("{}/test_data_set_{}/input_{}.pb", folder, set, i)));
    inputs.push_back(std::move(named.tensor));
  }
  return inputs;
}

absl::StatusOr<Answer> RunDynamicOnce(const Plan& plan, Workspace& workspace,
                                      const std::vector<Tensor>& inputs) {
  std::vector<Datum> data;
  for (const Tensor& input : inputs) data.push_back(Datum::Of(input));
  OCTET_ASSIGN_OR_RETURN(std::vector<Datum> results, plan.RunDynamic(workspace, data, {}));
  Answer answer;
  for (size_t i = 0; i < results.size(); ++i) {
    if (!results[i].is_tensor()) return Unimplemented("output {} is not a tensor", i);
    answer.push_back(std::move(results[i].tensor));
  }
  return answer;
}

absl::StatusOr<Answer> RunOnce(const Plan& plan, Workspace& workspace,
                               const std::vector<Tensor>& inputs) {
  if (!plan.has_static_outputs()) return RunDynamicOnce(plan, workspace, inputs);
  Answer answer;
  std::vector<const void*> sources;
  std::vector<void*> results;
  for (const Tensor& input : inputs) sources.push_back(input.data());
  for (const TensorSpec& spec : plan.outputs()) {
    Tensor& output = answer.emplace_back(spec.dtype, spec.shape);
    std::memset(output.mutable_data(), 0x5A, output.bytes());  // What is not written shows.
    results.push_back(output.mutable_data());
  }
  OCTET_RETURN_IF_ERROR(plan.Run(workspace, sources, results));
  return answer;
}

bool SameElements(const Tensor& a, const Tensor& b) {
  if (a.spec() != b.spec()) return false;
  if (a.dtype() == DType::kString)
    return std::ranges::equal(a.span<std::string_view>(), b.span<std::string_view>());
  return a.bytes() == 0 || std::memcmp(a.data(), b.data(), a.bytes()) == 0;
}

absl::StatusOr<Answer> AnswerToSet(const Model& model, const std::vector<Tensor>& inputs) {
  std::vector<Shape> shapes;
  for (const Tensor& input : inputs) shapes.push_back(input.shape());
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, model.PlanFor(shapes));
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (plan->inputs()[i] != inputs[i].spec())
      return InvalidArgument("input {} is not what the model reads", i);
  }
  Workspace workspace;
  OCTET_ASSIGN_OR_RETURN(Answer first, RunOnce(*plan, workspace, inputs));
  OCTET_ASSIGN_OR_RETURN(const Answer second, RunOnce(*plan, workspace, inputs));
  for (size_t i = 0; i < first.size(); ++i) {
    if (!SameElements(first[i], second[i]))
      return Internal("a second run answers otherwise: output {}", i);
  }
  return first;
}

absl::StatusOr<Answer> AnswerOf(const Request& request) {
  LoadOptions options;
  options.precision = ParsePrecision(request.precision);
  if (request.passes != "-") {
    size_t count = 0;
    std::from_chars(request.passes.data(), request.passes.data() + request.passes.size(), count);
    options.passes = AllPasses().first(std::min(count, AllPasses().size()));
  }
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model,
                         Model::Load(request.folder + "/model.onnx", options));
  Answer all;
  for (size_t set = 0; set < request.sets; ++set) {
    OCTET_ASSIGN_OR_RETURN(const std::vector<Tensor> inputs,
                           ReadInputs(request.folder, set, model->signature().inputs.size()));
    OCTET_ASSIGN_OR_RETURN(Answer answer, AnswerToSet(*model, inputs));
    std::ranges::move(answer, std::back_inserter(all));
  }
  return all;
}

void Print(const absl::StatusOr<Answer>& answer) {
  if (!answer.ok()) {
    const std::string text = Format("{}: {}", absl::StatusCodeToString(answer.status().code()),
                                    Message(answer.status()));
    std::cout << nlohmann::json{{"error", text}}.dump(-1, ' ', false,
                                                      nlohmann::json::error_handler_t::replace)
              << std::endl;
    return;
  }
  nlohmann::json outputs = nlohmann::json::array();
  for (const Tensor& output : *answer) {
    const std::vector<int64_t> extents(output.shape().begin(), output.shape().end());
    const bool strings = output.dtype() == DType::kString;
    outputs.push_back({{"dtype", DTypeName(output.dtype())},
                       {"shape", extents},
                       {"bytes", strings ? 0 : output.bytes()}});
    if (!strings) continue;
    nlohmann::json& texts = outputs.back()["texts"] = nlohmann::json::array();
    for (const std::string_view text : output.span<std::string_view>())
      texts.push_back(std::string(text));
  }
  std::cout << nlohmann::json{{"outputs", std::move(outputs)}}.dump() << '\n';
  for (const Tensor& output : *answer) {
    if (output.dtype() == DType::kString) continue;
    std::cout.write(static_cast<const char*>(output.data()),
                    static_cast<std::streamsize>(output.bytes()));
  }
  std::cout.flush();
}

}  // namespace
}  // namespace octet

int main() {
  octet::ConfigureWorkerThread(1);
  for (std::string line; std::getline(std::cin, line);) {
    octet::Print(octet::AnswerOf(octet::ParseRequest(line)));
  }
  return 0;
}
