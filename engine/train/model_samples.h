// The samples of a set as a model takes them, wherever they lie.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/calibration_data.h"
#include "engine/quantize/input_grids.h"

namespace octet::train {

/// A view. Requires: the set is there while it is read, has samples, all of one shape, and the inputs named.
class ModelSamples {
 public:
  /// In the order of the graph's inputs.
  ModelSamples(const CalibrationData& set, const Graph& graph);

  int64_t count() const { return set_->count(); }
  size_t inputs() const { return names_.size(); }
  /// Type and shape of so many samples of input `i`.
  TensorSpec Spec(size_t i, int64_t rows) const;
  /// Writes one sample of input `i`. Errors: as SampleSource::Read.
  absl::Status Read(size_t i, int64_t sample, void* to) const {
    return set_->Read(names_[i], sample, 1, to);
  }
  /// Of each input the coarsest grid of each channel (SensorGrids). Errors: as SampleSource::Read.
  absl::StatusOr<std::vector<std::vector<ChannelGrid>>> Grids() const;

 private:
  const CalibrationData* set_;
  std::vector<std::string> names_;
};

/// Copies samples to the rows of a batch; rows behind the last index begin again. Requires: indices is not empty.
/// Errors: as SampleSource::Read.
absl::Status PickSamples(const ModelSamples& samples, std::span<const int64_t> indices,
                         std::vector<Tensor>& batch);

}  // namespace octet::train
