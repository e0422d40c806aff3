// Samples out of .npz and .npy files, left there until they are needed: what every verb reads them through.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/engine.h"

namespace octet::cli {

class SampleRows;

/// The files of one set of samples, and what may be in them.
struct SampleSet {
  std::vector<std::string> paths;
  /// A model.yaml whose inputs.<name>.wire says how a narrower element type stands for the model's; empty: the files hold the model's
  /// own type.
  std::string map;
  /// Else files may differ in extents that the model leaves open, as those of whole inputs always may.
  bool one_shape = true;
  /// Inputs take the element types of the files, for samples that are handed on unconverted.
  bool as_stored = false;
};

/// The arrays of files matched to a model's inputs (MatchArray): one array per input by its name, or one array "inputs" for a
/// model with one input; "labels" (any integer type), in all files or none, where no input has this name. Samples lie along axis 0.
/// Files are .npz archives, .npy files for a model with one input (with samples along axis 0, or one sample alone), and folders of both, taken
/// in the order of their names; all else in a folder is left alone. Samples follow each other as the files do.
///
/// Where a model's inputs have no axis 0 to stack samples along (HasSampleAxis), a sample is all that a run takes (whole_inputs): a file
/// holds one, its arrays in the shapes of the inputs, or several, along one more axis before these. So may those of any other model whose
/// axis 0 is no matter of samples, as that of the steps of a sequence: the first array of the first file decides.
///
/// Elements stay in their files, in their own type, and are converted as they are read: what is in memory is the rows that are asked for,
/// 16 bytes a sample, labels, and BYTES elements whole. Members that are compressed, and files of folders, are copied to one Spool when
/// they are opened, so that any row can be read at any time at the same cost. Reading is thread-safe.
class Samples {
 public:
  struct Input {
    TensorInfo info;
    bool mapped = false;  ///< By the model.yaml: its files hold a narrower type.
  };

  /// None.
  Samples() = default;
  /// Errors: as OpenNpz, OpenNpy, SampleFiles and LoadModelConfig; INVALID_ARGUMENT naming the file and the array, expected and got, and for
  /// no samples at all.
  static absl::StatusOr<Samples> Open(const Signature& signature, const SampleSet& set);

  int64_t count() const { return data_.count(); }
  bool has_labels() const { return !labels_.empty(); }
  const std::vector<int64_t>& labels() const { return labels_; }
  const std::vector<Input>& inputs() const { return inputs_; }
  /// The samples by input, in the model's element types.
  const CalibrationData& data() const { return data_; }
  /// A run takes one sample.
  bool whole_inputs() const { return data_.whole_inputs(); }
  /// How many samples a run takes: 1 of whole inputs; else what the model's own extent 0 says, or kUnknownDim, any number.
  int64_t OwnBatch(const Signature& signature) const;
  /// Shapes of a run of samples [first, first + rows), per model input. Requires: one shape; of whole inputs, one row.
  std::vector<Shape> BatchShapes(int64_t first, int64_t rows) const;
  /// Writes rows [first, first + rows) of input `i`, converted to the element type of `dst`: the model's, or another where both are
  /// floating point (F64 of those that are not mapped alone). Strings point into the samples. Errors: INVALID_ARGUMENT naming the file
  /// where it has become shorter or cannot be read; as Spool::Read. Requires: the shape of `dst` is that of BatchShapes.
  absl::Status Read(size_t i, int64_t first, int64_t rows, TensorView dst) const;

 private:
  friend class SampleOpener;

  /// Of one file; by input.
  using Part = std::vector<std::shared_ptr<const SampleRows>>;

  std::vector<Input> inputs_;
  std::vector<Part> parts_;
  std::vector<int64_t> ends_;  ///< Samples up to the end of each part.
  CalibrationData data_;       ///< The same rows.
  std::vector<int64_t> labels_;
};

/// Whole numbers below 1000 as text: what a BYTES input is given where there are no data.
Tensor RandomTexts(const Shape& shape, std::mt19937& random);
/// What any other input is given then. Reals: those of [0, 1), no denormals, no NaN, no constant that a kernel could shortcut. UINT8 and INT8, which
/// are pixels or quantized reals: all of their values. Other integers, and BOOL: 0 and 1, since they are indices, token types or masks, and
/// the smallest table has two rows. Requires: no strings.
void FillRandom(TensorView dst, std::mt19937& random);

}  // namespace octet::cli
