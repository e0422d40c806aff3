#include "cli/session.h"

#include <algorithm>

#include "engine/tensor/status.h"

namespace octet::cli {

absl::Status Session::Prepare(std::span<const Shape> input_shapes) {
  const auto same_shape = [](const Tensor& tensor, const Shape& shape) {
    return tensor.shape() == shape;
  };
  if (plan_ != nullptr && std::ranges::equal(inputs_, input_shapes, same_shape))
    return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(plan_, model_->PlanFor(input_shapes));
  inputs_.clear();
  outputs_.clear();
  for (const TensorSpec& spec : plan_->inputs()) inputs_.emplace_back(spec.dtype, spec.shape);
  for (const TensorSpec& spec : plan_->outputs()) outputs_.emplace_back(spec.dtype, spec.shape);
  input_pointers_.clear();
  output_pointers_.clear();
  for (const Tensor& tensor : inputs_) input_pointers_.push_back(tensor.data());
  for (Tensor& tensor : outputs_) output_pointers_.push_back(tensor.mutable_data());
  return absl::OkStatus();
}

absl::Status Session::Run() { return plan_->Run(workspace_, input_pointers_, output_pointers_); }

}  // namespace octet::cli
