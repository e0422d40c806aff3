#include "cli/sample_arrays.h"

#include <algorithm>
#include <filesystem>
#include <limits>

#include "engine/tensor/status.h"

namespace octet::cli {

namespace fs = std::filesystem;

ArraySpecs::const_iterator FindArray(const TensorInfo& info, bool only, const ArraySpecs& arrays) {
  const auto found = arrays.find(info.name);
  return found == arrays.end() && only ? arrays.find(kOnlyInputArray) : found;
}

bool HasSampleAxis(const Signature& signature) {
  bool vectors = true;
  bool open = false;
  int64_t least = std::numeric_limits<int64_t>::max();  // Of the known extents.
  int64_t most = 1;
  for (const TensorInfo& info : signature.inputs) {
    if (!info.rank_known || info.kind != ValueKind::kTensor)
      return true;  // Who reads it will tell.
    if (info.shape.rank() == 0) return false;
    vectors = vectors && info.shape.rank() == 1;
    open = open || info.shape[0] == kUnknownDim;
    if (info.shape[0] == kUnknownDim) continue;
    least = std::min(least, info.shape[0]);
    most = std::max(most, info.shape[0]);
  }
  if (most > (open ? 1 : least)) return false;
  // Who knows no outputs does not know that either.
  return !vectors || signature.batches || signature.outputs.empty();
}

absl::StatusOr<ArrayMatch> MatchArray(const TensorInfo& info, bool only, const ArraySpecs& arrays,
                                      const ModelConfig& config, bool whole_inputs) {
  const auto found = FindArray(info, only, arrays);
  if (found == arrays.end()) {
    return InvalidArgument("no array for the model's input '{}'{}", info.name,
                           only ? " (nor one named 'inputs')" : "");
  }
  if (info.shape.rank() > 0 && info.shape[0] == 0) {
    return InvalidArgument("input '{}': {} takes no samples, of which axis 0 has none", info.name,
                           info.shape.ToString());
  }
  const auto& [name, array] = *found;
  if (array.shape.rank() > 0 && array.shape[0] != 0 && array.shape.elements() == 0) {
    return InvalidArgument("array '{}': {} holds samples of no elements", name,
                           array.shape.ToString());
  }
  const int ahead = whole_inputs ? 1 : 0;
  bool fits = array.shape.rank() == info.shape.rank() + ahead && array.shape.rank() > 0;
  for (int axis = 1; fits && axis < array.shape.rank(); ++axis) {
    const int64_t expected = info.shape[axis - ahead];
    fits = expected == kUnknownDim || expected == array.shape[axis];
  }
  if (!fits) {
    const bool alone = whole_inputs && array.shape.rank() > 0 && array.shape[0] == 1;
    const Shape got = alone ? Shape(array.shape.dims().subspan(1)) : array.shape;
    return InvalidArgument("array '{}': expected shape {} ({}), got {}", name,
                           info.shape.ToString(),
                           whole_inputs ? "of one sample, or with samples along an axis before it"
                                        : "samples along axis 0",
                           got.ToString());
  }
  const auto wire = config.wire.find(info.name);
  if (wire != config.wire.end() && wire->second.dtype == array.dtype) {
    if (!IsFloat(info.dtype)) {
      return InvalidArgument("input '{}': only reals can be mapped, this one is {}", info.name,
                             DTypeName(info.dtype));
    }
    if (wire->second.dtype == info.dtype) {
      return InvalidArgument(
          "input '{}': expected a wire datatype other than the input's own, got {}", info.name,
          DTypeName(info.dtype));
    }
    OCTET_RETURN_IF_ERROR(CheckWireMapping(wire->second, info.shape));
    return ArrayMatch{name, true, wire->second};
  }
  const bool reals = IsFloat(array.dtype) && IsFloat(info.dtype);
  if (array.dtype != info.dtype && !reals) {
    return InvalidArgument(
        "array '{}': expected {}{}, got {}", name, DTypeName(info.dtype),
        wire == config.wire.end() ? "" : " or " + std::string(DTypeName(wire->second.dtype)),
        DTypeName(array.dtype));
  }
  return ArrayMatch{name, false, {}};
}

bool IsFolder(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

bool IsSampleFile(const fs::path& file) {
  return !file.filename().string().starts_with('.') &&
         (file.extension() == ".npz" || file.extension() == ".npy");
}

absl::StatusOr<std::vector<std::string>> SampleFiles(const std::string& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator at(folder, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    if (IsSampleFile(at->path())) files.push_back(at->path());
  }
  if (error) return InvalidArgument("cannot read folder {}: {}", folder, error.message());
  if (files.empty()) return InvalidArgument("{}: no .npz or .npy file in this folder", folder);
  std::ranges::sort(files);
  std::vector<std::string> names;
  for (const fs::path& file : files) names.push_back(file.string());
  return names;
}

Shape WithSamples(const Shape& shape, int input_rank, bool whole_inputs) {
  if (shape.rank() + (whole_inputs ? 0 : 1) != input_rank) return shape;
  Shape one{1};
  for (const int64_t extent : shape.dims()) one.push_back(extent);
  return one;
}

bool LabelsAreLabels(const Signature& signature) {
  return std::ranges::none_of(signature.inputs,
                              [](const TensorInfo& info) { return info.name == kLabelsArray; });
}

absl::StatusOr<std::vector<int64_t>> LabelsIn(const StoredArray& array, int64_t count) {
  const auto& [dtype, shape] = array.spec();
  const bool integers = !IsFloat(dtype) && dtype != DType::kString;
  if (!integers || shape.elements() != count) {
    return InvalidArgument("array 'labels': expected {} integers, got {} of {}", count,
                           shape.ToString(), DTypeName(dtype));
  }
  Tensor labels(dtype, Shape{count});
  OCTET_RETURN_IF_ERROR(array.Read(0, labels.bytes(), labels.mutable_data()));
  Tensor wide(DType::kI64, Shape{count});
  ConvertTensor(labels.view(), wide.mutable_view());
  const auto values = wide.span<int64_t>();
  return std::vector<int64_t>(values.begin(), values.end());
}

}  // namespace octet::cli
