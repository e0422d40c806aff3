// Labelled samples out of .npz archives, as batches of a model's inputs.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/engine.h"

namespace octet::cli {

/// The arrays of an archive matched to a model's inputs: one array per input by its name, or one array "inputs" for a
/// model with one input; "labels" (any integer type) where there are any and no input has this name. Samples lie along axis 0. A folder holds .npz files, whose
/// arrays are joined in the order of the files' names (what a server has captured), or .npy files for a model with one input, each
/// with samples along axis 0 or one sample alone; all else in it is left alone.
class Samples {
 public:
  /// `map_file`: a model.yaml whose inputs.<name>.wire says how a narrower element type stands for the model's; empty:
  /// the archive holds the model's own type. Errors: as ReadNpz and LoadModelConfig; INVALID_ARGUMENT naming the array,
  /// expected and got.
  static absl::StatusOr<Samples> Load(const Signature& signature, const std::string& path,
                                      const std::string& map_file);

  int64_t count() const { return count_; }
  bool has_labels() const { return !labels_.empty(); }
  const std::vector<int64_t>& labels() const { return labels_; }
  /// Shapes of a batch of `rows`, per model input.
  std::vector<Shape> BatchShapes(int64_t rows) const;
  /// Writes rows [first, first + rows) of input `i`, converted to the element type of `dst`: the model's, or another where both are
  /// floating point. Strings point into the samples.
  void Fill(size_t i, int64_t first, int64_t rows, TensorView dst) const;
  /// All samples of every input, converted, by input name.
  std::map<std::string, Tensor> AsModelInputs() const;

  struct Input {
    TensorInfo info;
    Tensor array;
    bool mapped = false;
    WireMapping mapping;
  };
  const std::vector<Input>& inputs() const { return inputs_; }

 private:
  std::vector<Input> inputs_;
  std::vector<int64_t> labels_;
  int64_t count_ = 0;
};

/// Whole numbers below 1000 as text: what a BYTES input is given where there are no data.
Tensor RandomTexts(const Shape& shape, std::mt19937& random);

}  // namespace octet::cli
