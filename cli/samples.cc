#include "cli/samples.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "config/model_config.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLabels = "labels";
constexpr const char* kOnlyInput = "inputs";
constexpr size_t kMostBytes = size_t{8} << 30;  // Of all files of a folder.

absl::StatusOr<Samples::Input> MatchInput(const TensorInfo& info, bool only,
                                          const NpzArrays& arrays, const ModelConfig& config) {
  auto found = arrays.find(info.name);
  if (found == arrays.end() && only) found = arrays.find(kOnlyInput);
  if (found == arrays.end()) {
    return InvalidArgument("no array for the model's input '{}'{}", info.name,
                           only ? " (nor one named 'inputs')" : "");
  }
  Samples::Input input{info, found->second, false, {}};
  const Shape& shape = input.array.shape();
  bool fits = shape.rank() == info.shape.rank() && shape.rank() > 0;
  for (int axis = 1; fits && axis < shape.rank(); ++axis) {
    fits = info.shape[axis] == kUnknownDim || info.shape[axis] == shape[axis];
  }
  if (!fits) {
    return InvalidArgument("array '{}': expected shape {} (samples along axis 0), got {}",
                           found->first, info.shape.ToString(), shape.ToString());
  }
  const auto wire = config.wire.find(info.name);
  if (wire != config.wire.end() && wire->second.dtype == input.array.dtype()) {
    if (!IsFloat(info.dtype) || info.dtype == DType::kF64) {
      return InvalidArgument("input '{}': only FP32, FP16 or BF16 can be mapped, this one is {}",
                             info.name, DTypeName(info.dtype));
    }
    OCTET_RETURN_IF_ERROR(CheckWireMapping(wire->second, info.shape));
    input.mapped = true;
    input.mapping = wire->second;
  } else if (input.array.dtype() != info.dtype) {
    return InvalidArgument(
        "array '{}': expected {}{}, got {}", found->first, DTypeName(info.dtype),
        wire == config.wire.end() ? "" : " or " + std::string(DTypeName(wire->second.dtype)),
        DTypeName(input.array.dtype()));
  }
  return input;
}

// The arrays of one file of a folder. `rank`: of the model's only input, or 0; an array of one axis less is one sample.
absl::StatusOr<NpzArrays> ReadPart(const fs::path& file, int rank) {
  if (file.extension() == ".npz") return ReadNpz(file.string());
  OCTET_ASSIGN_OR_RETURN(Tensor array, ReadNpy(file.string()));
  if (array.shape().rank() + 1 == rank) {
    Shape one{1};
    for (const int64_t extent : array.shape().dims()) one.push_back(extent);
    array = array.Reshaped(one);
  }
  return NpzArrays{{kOnlyInput, std::move(array)}};
}

using Parts = std::map<std::string, std::vector<std::pair<std::string, Tensor>>>;

// Joins tensors along axis 0, and lets go of each one behind the first as soon as it is copied.
absl::StatusOr<Tensor> Joined(std::vector<std::pair<std::string, Tensor>> parts) {
  const auto [first_file, first] = parts.front();
  Shape shape = first.shape();
  if (shape.rank() == 0) return InvalidArgument("{}: a scalar, expected samples", first_file);
  shape[0] = 0;
  for (const auto& [file, part] : parts) {
    Shape like = part.shape();
    if (like.rank() == shape.rank()) like[0] = first.shape()[0];
    if (part.dtype() != first.dtype() || like != first.shape()) {
      return InvalidArgument("{}: {} of {} does not go with {} of {} in {}", file,
                             part.shape().ToString(), DTypeName(part.dtype()),
                             first.shape().ToString(), DTypeName(first.dtype()), first_file);
    }
    shape[0] += part.shape()[0];
  }
  if (first.dtype() == DType::kString) {
    std::vector<std::string_view> texts;
    for (const auto& [file, part] : parts) {
      const auto own = part.span<std::string_view>();
      texts.insert(texts.end(), own.begin(), own.end());
    }
    return Tensor::Strings(shape, texts);
  }
  Tensor joined(first.dtype(), shape);
  auto* to = static_cast<std::byte*>(joined.mutable_data());
  for (auto& [file, part] : parts) {
    std::memcpy(to, part.data(), part.bytes());
    to += part.bytes();
    part = Tensor();
  }
  return joined;
}

absl::StatusOr<NpzArrays> ReadFolder(const std::string& folder, const Signature& signature) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator at(folder, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    const bool hidden = at->path().filename().string().starts_with('.');
    const std::string extension = at->path().extension().string();
    if (!hidden && (extension == ".npz" || extension == ".npy")) files.push_back(at->path());
  }
  if (error) return InvalidArgument("cannot read folder {}: {}", folder, error.message());
  if (files.empty()) return InvalidArgument("{}: no .npz or .npy file in this folder", folder);
  std::ranges::sort(files);
  const int rank = signature.inputs.size() == 1 ? signature.inputs[0].shape.rank() : 0;
  Parts parts;
  size_t bytes = 0;
  for (const fs::path& file : files) {
    OCTET_ASSIGN_OR_RETURN(const NpzArrays arrays, ReadPart(file, rank));
    for (const auto& [name, array] : arrays) {
      if (array.bytes() > kMostBytes - bytes)
        return absl::ResourceExhaustedError(
            Format("{}: more than {} bytes up to {}", folder, kMostBytes, file.string()));
      bytes += array.bytes();
      parts[name].emplace_back(file.string(), array);
    }
  }
  NpzArrays joined;
  for (auto& [name, of_files] : parts) {
    if (of_files.size() != files.size())
      return InvalidArgument("array '{}': in {} of {} files of {}", name, of_files.size(),
                             files.size(), folder);
    OCTET_ASSIGN_OR_RETURN(Tensor whole, Joined(std::move(of_files)));
    joined.emplace(name, std::move(whole));
  }
  return joined;
}

bool IsFolder(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

}  // namespace

absl::StatusOr<Samples> Samples::Load(const Signature& signature, const std::string& path,
                                      const std::string& map_file) {
  OCTET_ASSIGN_OR_RETURN(const NpzArrays arrays,
                         IsFolder(path) ? ReadFolder(path, signature) : ReadNpz(path));
  for (const auto& [name, array] : arrays) {
    const Shape& shape = array.shape();
    // Their count is whatever the file says: nothing of it is held by elements.
    if (shape.rank() > 0 && shape[0] > 0 && array.elements() == 0)
      return InvalidArgument("{}: array '{}': {} holds samples of no elements", path, name,
                             shape.ToString());
  }
  ModelConfig config;
  if (!map_file.empty()) {
    OCTET_ASSIGN_OR_RETURN(config, LoadModelConfig(map_file));
  }
  Samples samples;
  for (const TensorInfo& info : signature.inputs) {
    auto input = MatchInput(info, signature.inputs.size() == 1, arrays, config);
    if (!input.ok()) return Annotate(input.status(), path);
    const int64_t count = input->array.shape()[0];
    if (count == 0) return InvalidArgument("{}: no samples", path);
    if (!samples.inputs_.empty() && count != samples.count_) {
      return InvalidArgument("{}: arrays disagree about the number of samples, {} and {}", path,
                             samples.count_, count);
    }
    samples.count_ = count;
    samples.inputs_.push_back(*std::move(input));
  }
  if (samples.inputs_.empty()) return InvalidArgument("the model has no inputs");
  if (auto taken = samples.TakeLabels(arrays); !taken.ok()) return Annotate(taken, path);
  return samples;
}

absl::Status Samples::TakeLabels(const NpzArrays& arrays) {
  const bool is_input =
      std::ranges::any_of(inputs_, [](const Input& input) { return input.info.name == kLabels; });
  const auto found = arrays.find(kLabels);
  if (is_input || found == arrays.end()) return absl::OkStatus();
  const Tensor& array = found->second;
  const bool integers = !IsFloat(array.dtype()) && array.dtype() != DType::kString;
  if (!integers || array.elements() != count_) {
    return InvalidArgument("array 'labels': expected {} integers, got {} of {}", count_,
                           array.shape().ToString(), DTypeName(array.dtype()));
  }
  Tensor wide(DType::kI64, Shape{count_});
  ConvertTensor({array.data(), {array.dtype(), Shape{count_}}}, wide.mutable_view());
  const auto values = wide.span<int64_t>();
  labels_.assign(values.begin(), values.end());
  return absl::OkStatus();
}

std::vector<Shape> Samples::BatchShapes(int64_t rows) const {
  std::vector<Shape> shapes;
  for (const Input& input : inputs_) {
    shapes.push_back(input.array.shape());
    shapes.back()[0] = rows;
  }
  return shapes;
}

void Samples::Fill(size_t i, int64_t first, int64_t rows, TensorView dst) const {
  const Input& input = inputs_[i];
  const size_t row_bytes = input.array.bytes() / static_cast<size_t>(count_);
  const auto* src =
      static_cast<const std::byte*>(input.array.data()) + static_cast<size_t>(first) * row_bytes;
  if (input.mapped) {
    ConvertFromWire({src, {input.mapping.dtype, dst.shape()}}, input.mapping,
                    {.stored = dst.dtype(), .quant = {}}, dst.data);
  } else {
    std::memcpy(dst.data, src, static_cast<size_t>(rows) * row_bytes);
  }
}

std::map<std::string, Tensor> Samples::AsModelInputs() const {
  std::map<std::string, Tensor> result;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (!inputs_[i].mapped) {
      result.emplace(inputs_[i].info.name, inputs_[i].array);
      continue;
    }
    Tensor tensor(inputs_[i].info.dtype, inputs_[i].array.shape());
    Fill(i, 0, count_, tensor.mutable_view());
    result.emplace(inputs_[i].info.name, std::move(tensor));
  }
  return result;
}

Tensor RandomTexts(const Shape& shape, std::mt19937& random) {
  std::vector<std::string> texts;
  for (int64_t i = 0; i < shape.elements(); ++i) texts.push_back(std::to_string(random() % 1000));
  return Tensor::Strings(shape, std::vector<std::string_view>(texts.begin(), texts.end()));
}

}  // namespace octet::cli
