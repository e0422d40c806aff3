#include "cli/session.h"

#include <algorithm>
#include <cstring>

#include "engine/tensor/status.h"

namespace octet::cli {

namespace {

absl::Status CheckTensors(std::span<const TensorInfo> infos) {
  for (const TensorInfo& info : infos) {
    if (info.kind == ValueKind::kTensor) continue;
    return Unimplemented("'{}' is of kind {}: only tensors can be given and shown", info.name,
                         ValueKindName(info.kind));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Session::Prepare(std::span<const Shape> input_shapes) {
  const auto same_shape = [](const Tensor& tensor, const Shape& shape) {
    return tensor.shape() == shape;
  };
  if (plan_ != nullptr && std::ranges::equal(inputs_, input_shapes, same_shape))
    return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(CheckTensors(model_->signature().inputs));
  OCTET_RETURN_IF_ERROR(CheckTensors(model_->signature().outputs));
  OCTET_ASSIGN_OR_RETURN(plan_, model_->PlanFor(input_shapes));
  inputs_.clear();
  outputs_.clear();
  data_.clear();
  for (const TensorSpec& spec : plan_->inputs()) inputs_.emplace_back(spec.dtype, spec.shape);
  if (!plan_->has_static_outputs()) {
    outputs_.resize(plan_->outputs().size());
    for (const Tensor& tensor : inputs_) data_.push_back(Datum::Of(tensor));
    return absl::OkStatus();
  }
  for (const TensorSpec& spec : plan_->outputs()) outputs_.emplace_back(spec.dtype, spec.shape);
  input_pointers_.clear();
  output_pointers_.clear();
  for (const Tensor& tensor : inputs_) input_pointers_.push_back(tensor.data());
  for (Tensor& tensor : outputs_) output_pointers_.push_back(tensor.mutable_data());
  return absl::OkStatus();
}

void Session::SetInput(size_t i, ConstTensorView elements) {
  if (elements.dtype() != DType::kString) {
    if (elements.bytes() > 0)
      std::memcpy(inputs_[i].mutable_data(), elements.data, elements.bytes());
    return;
  }
  // Models that take strings have no static outputs.
  inputs_[i] = Tensor::Strings(elements.shape(), elements.span<std::string_view>());
  data_[i] = Datum::Of(inputs_[i]);
}

absl::Status Session::Run() {
  if (plan_->has_static_outputs()) return plan_->Run(workspace_, input_pointers_, output_pointers_);
  OCTET_ASSIGN_OR_RETURN(std::vector<Datum> answers, plan_->RunDynamic(workspace_, data_, {}));
  for (size_t i = 0; i < answers.size(); ++i) outputs_[i] = std::move(answers[i].tensor);
  return absl::OkStatus();
}

}  // namespace octet::cli
