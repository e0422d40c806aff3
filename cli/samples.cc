#include "cli/samples.h"

#include <cstring>

#include "config/model_config.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

constexpr const char* kLabels = "labels";
constexpr const char* kOnlyInput = "inputs";

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

}  // namespace

absl::StatusOr<Samples> Samples::Load(const Signature& signature, const std::string& npz_file,
                                      const std::string& map_file) {
  OCTET_ASSIGN_OR_RETURN(const NpzArrays arrays, ReadNpz(npz_file));
  ModelConfig config;
  if (!map_file.empty()) {
    OCTET_ASSIGN_OR_RETURN(config, LoadModelConfig(map_file));
  }
  Samples samples;
  for (const TensorInfo& info : signature.inputs) {
    auto input = MatchInput(info, signature.inputs.size() == 1, arrays, config);
    if (!input.ok()) return Annotate(input.status(), npz_file);
    const int64_t count = input->array.shape()[0];
    if (count == 0) return InvalidArgument("{}: no samples", npz_file);
    if (!samples.inputs_.empty() && count != samples.count_) {
      return InvalidArgument("{}: arrays disagree about the number of samples, {} and {}", npz_file,
                             samples.count_, count);
    }
    samples.count_ = count;
    samples.inputs_.push_back(*std::move(input));
  }
  if (samples.inputs_.empty()) return InvalidArgument("the model has no inputs");
  if (auto taken = samples.TakeLabels(arrays); !taken.ok()) return Annotate(taken, npz_file);
  return samples;
}

absl::Status Samples::TakeLabels(const NpzArrays& arrays) {
  const auto found = arrays.find(kLabels);
  if (found == arrays.end()) return absl::OkStatus();
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
    ConvertFromWire(src, input.mapping, dst);
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
