// Tensors of strings, and operators on them, which no static plan runs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/engine.h"
#include "engine/tensor/status.h"
#include "tests/support/one_node.h"

namespace octet::testing {

inline Tensor Strings(Shape shape, const std::vector<std::string_view>& texts) {
  return Tensor::Strings(std::move(shape), texts);
}

inline std::vector<std::string> Texts(const Tensor& tensor) {
  const auto span = tensor.span<std::string_view>();
  return {span.begin(), span.end()};
}

/// What a model answers to `inputs`, which are gone when the answer is looked at.
inline absl::StatusOr<std::vector<Datum>> AnswerOf(const Graph& graph,
                                                   const std::vector<Tensor>& inputs,
                                                   const LoadOptions& options = {}) {
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model,
                         Model::FromGraph(graph, options));
  std::vector<Shape> shapes;
  std::vector<Datum> data;
  for (const Tensor& input : inputs) {
    shapes.push_back(input.shape());
    const bool strings = input.dtype() == DType::kString;
    data.push_back(Datum::Of(
        strings ? Tensor::Strings(input.shape(), input.span<std::string_view>()) : input));
  }
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, model->PlanFor(shapes));
  Workspace workspace;
  return plan->RunDynamic(workspace, data, {});
}

/// The outputs of the node in a model of its own.
inline absl::StatusOr<std::vector<Tensor>> RunAsModel(const OneNode& node) {
  OCTET_ASSIGN_OR_RETURN(const Graph graph, node.Infer());
  OCTET_ASSIGN_OR_RETURN(const std::vector<Datum> answers, AnswerOf(graph, node.tensors()));
  std::vector<Tensor> tensors;
  for (const Datum& answer : answers) tensors.push_back(answer.tensor);
  return tensors;
}

}  // namespace octet::testing
