#include "cli/samples.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "cli/sample_arrays.h"

#include "config/model_config.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

constexpr size_t kMostBytes = size_t{8} << 30;  // Of all files of a folder.

// The arrays of one file of a folder.
absl::StatusOr<NpzArrays> ReadPart(const std::string& file, const Signature& signature) {
  if (file.ends_with(".npz")) return ReadNpz(file);
  OCTET_ASSIGN_OR_RETURN(const Tensor array, ReadNpy(file));
  return NpzArrays{{kOnlyInputArray, array.Reshaped(WithSamples(array.shape(), signature))}};
}

/// Whether a model may read an array of this name.
bool MayBeRead(const std::string& name, const Signature& signature) {
  return name == kLabelsArray || (name == kOnlyInputArray && signature.inputs.size() == 1) ||
         std::ranges::contains(signature.inputs, name, &TensorInfo::name);
}

/// Labels in the one type and shape in which those of several files can be joined; what are none are left for LabelsIn to refuse.
Tensor WideLabels(const Tensor& array) {
  const auto values = LabelsIn(array, array.elements());
  if (!values.ok()) return array;
  Tensor wide(DType::kI64, Shape{array.elements()});
  std::ranges::copy(*values, wide.mutable_span<int64_t>().begin());
  return wide;
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
  OCTET_ASSIGN_OR_RETURN(const std::vector<std::string> files, SampleFiles(folder));
  Parts parts;
  size_t bytes = 0;
  for (const std::string& file : files) {
    OCTET_ASSIGN_OR_RETURN(const NpzArrays arrays, ReadPart(file, signature));
    for (const auto& [name, array] : arrays) {
      if (!MayBeRead(name, signature)) continue;
      if (array.bytes() > kMostBytes - bytes)
        return absl::ResourceExhaustedError(
            Format("{}: more than {} bytes up to {}", folder, kMostBytes, file));
      bytes += array.bytes();
      const bool is_labels = name == kLabelsArray && LabelsAreLabels(signature);
      parts[name].emplace_back(file, is_labels ? WideLabels(array) : array);
    }
  }
  const bool named = signature.inputs.size() == 1 && parts.contains(signature.inputs[0].name);
  if (named && signature.inputs[0].name != kOnlyInputArray) parts.erase(kOnlyInputArray);
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

}  // namespace

absl::StatusOr<Samples> Samples::Load(const Signature& signature, const std::string& path,
                                      const std::string& map_file) {
  OCTET_ASSIGN_OR_RETURN(const NpzArrays arrays,
                         IsFolder(path) ? ReadFolder(path, signature) : ReadNpz(path));
  ModelConfig config;
  if (!map_file.empty()) {
    OCTET_ASSIGN_OR_RETURN(config, LoadModelConfig(map_file));
  }
  ArraySpecs specs;
  for (const auto& [name, array] : arrays) specs.emplace(name, array.spec());
  Samples samples;
  for (const TensorInfo& info : signature.inputs) {
    const auto match = MatchArray(info, signature.inputs.size() == 1, specs, config);
    if (!match.ok()) return Annotate(match.status(), path);
    const Tensor& array = arrays.at(match->array);
    const int64_t count = array.shape()[0];
    if (count == 0) return InvalidArgument("{}: no samples", path);
    if (!samples.inputs_.empty() && count != samples.count_) {
      return InvalidArgument("{}: arrays disagree about the number of samples, {} and {}", path,
                             samples.count_, count);
    }
    samples.count_ = count;
    samples.inputs_.push_back({info, array, match->mapped, match->mapping});
  }
  if (samples.inputs_.empty()) return InvalidArgument("the model has no inputs");
  const auto labels = arrays.find(kLabelsArray);
  if (labels == arrays.end() || !LabelsAreLabels(signature)) return samples;
  auto read = LabelsIn(labels->second, samples.count_);
  if (!read.ok()) return Annotate(read.status(), path);
  samples.labels_ = *std::move(read);
  return samples;
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
  } else if (dst.dtype() != input.array.dtype()) {
    ConvertTensor({src, {input.array.dtype(), dst.shape()}}, dst);
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
