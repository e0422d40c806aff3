#include "engine/train/model_samples.h"

#include "engine/tensor/status.h"

namespace octet::train {

ModelSamples::ModelSamples(const CalibrationData& set, const Graph& graph) : set_(&set) {
  for (const ValueId input : graph.inputs) names_.push_back(graph.value(input).name);
}

TensorSpec ModelSamples::Spec(size_t i, int64_t rows) const {
  TensorSpec spec = *set_->SpecOf(names_[i], 0);
  spec.shape[0] = rows;
  return spec;
}

absl::StatusOr<std::vector<std::vector<ChannelGrid>>> ModelSamples::Grids() const {
  std::vector<std::vector<ChannelGrid>> grids(names_.size());
  for (size_t i = 0; i < names_.size(); ++i) {
    OCTET_ASSIGN_OR_RETURN(grids[i], SensorGrids(*set_, names_[i]));
  }
  return grids;
}

absl::Status PickSamples(const ModelSamples& samples, std::span<const int64_t> indices,
                         std::vector<Tensor>& batch) {
  for (size_t i = 0; i < samples.inputs(); ++i) {
    const auto rows = static_cast<size_t>(batch[i].shape()[0]);
    const size_t row_bytes = batch[i].bytes() / rows;
    auto* const to = static_cast<std::byte*>(batch[i].mutable_data());
    for (size_t row = 0; row < rows; ++row) {
      OCTET_RETURN_IF_ERROR(samples.Read(i, indices[row % indices.size()], to + row * row_bytes));
    }
  }
  return absl::OkStatus();
}

}  // namespace octet::train
