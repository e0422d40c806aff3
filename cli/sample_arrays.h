// What the arrays of sample files are to a model.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "config/model_config.h"
#include "engine/engine.h"

namespace octet::cli {

inline constexpr const char* kLabelsArray = "labels";
inline constexpr const char* kOnlyInputArray = "inputs";

/// Types and shapes of arrays by name.
using ArraySpecs = std::map<std::string, TensorSpec>;

/// The array that serves an input, and how its type stands for the model's.
struct ArrayMatch {
  std::string array;
  bool mapped = false;
  WireMapping mapping;
};

/// Whether samples lie along axis 0 of the inputs. False where they cannot: an input is a scalar, known extents differ, or one is above 1
/// and another open, as beside the state of a recurrent network; and where it is the only axis of every input and the model does not
/// batch along it, as of a waveform.
bool HasSampleAxis(const Signature& signature);

/// The array of an input: by its name, or "inputs" where it is the model's `only` one; the end without any.
ArraySpecs::const_iterator FindArray(const TensorInfo& info, bool only, const ArraySpecs& arrays);
/// What FindArray finds; samples along axis 0, or, where they are whole inputs, along an axis before the input's own.
/// Errors: INVALID_ARGUMENT naming the array, expected and got, for one that is missing, of another shape or element type, or that
/// cannot be mapped, and for samples of no elements: their count is whatever the file says, and nothing holds it; naming the input for a
/// model whose own batch is 0.
absl::StatusOr<ArrayMatch> MatchArray(const TensorInfo& info, bool only, const ArraySpecs& arrays,
                                      const ModelConfig& config, bool whole_inputs);

bool IsFolder(const std::string& path);
/// By its name one of the files of a folder of samples: .npz or .npy, and not hidden.
bool IsSampleFile(const std::filesystem::path& file);
/// The files of a folder of samples by name; all else in it is left alone. INVALID_ARGUMENT where there are none, or it
/// cannot be read.
absl::StatusOr<std::vector<std::string>> SampleFiles(const std::string& folder);

/// With an axis of samples before those of one sample alone: where samples are whole inputs, what has the axes of an input of such a rank;
/// else what has one axis less.
Shape WithSamples(const Shape& shape, int input_rank, bool whole_inputs);

/// Whether an array "labels" is what the name says, and not an input of the model.
bool LabelsAreLabels(const Signature& signature);
/// All of them. INVALID_ARGUMENT when they are not so many integers, before any is read; as StoredArray::Read.
absl::StatusOr<std::vector<int64_t>> LabelsIn(const StoredArray& array, int64_t count);

}  // namespace octet::cli
