#include "server/sequence/state_layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Every sequence has its states in memory twice.
constexpr size_t kMostStateBytes = size_t{256} << 20;

/// The place of a tensor by its name. INVALID_ARGUMENT with the names that there are.
absl::StatusOr<size_t> PlaceOf(std::string_view kind, const std::string& name,
                               const std::vector<TensorInfo>& tensors) {
  const auto found = std::ranges::find(tensors, name, &TensorInfo::name);
  if (found != tensors.end()) return static_cast<size_t>(found - tensors.begin());
  std::string names;
  for (const TensorInfo& tensor : tensors) names += (names.empty() ? "" : ", ") + tensor.name;
  return InvalidArgument("the model has no {} '{}', it has {}", kind, name, names);
}

template <typename T>
absl::Status Fill(double value, Tensor& tensor) {
  if constexpr (std::is_integral_v<T>) {
    const bool fits = value == std::trunc(value) &&
                      std::abs(value) <= static_cast<double>(std::numeric_limits<T>::max()) / 2;
    if (!fits) {
      return InvalidArgument("initial: expected a whole number for {}, got {}",
                             DTypeName(tensor.dtype()), value);
    }
  }
  std::ranges::fill(tensor.mutable_span<T>(), static_cast<T>(value));
  return absl::OkStatus();
}

absl::StatusOr<Tensor> Filled(const TensorSpec& spec, double value) {
  Tensor tensor(spec.dtype, spec.shape);
  std::memset(tensor.mutable_data(), 0, tensor.bytes());
  if (value == 0) return tensor;
  absl::Status filled;
  switch (spec.dtype) {
    case DType::kF32:
      filled = Fill<float>(value, tensor);
      break;
    case DType::kF64:
      filled = Fill<double>(value, tensor);
      break;
    case DType::kI32:
      filled = Fill<int32_t>(value, tensor);
      break;
    case DType::kI64:
      filled = Fill<int64_t>(value, tensor);
      break;
    default:
      filled = InvalidArgument("initial: expected 0 for {}, got {}", DTypeName(spec.dtype), value);
  }
  OCTET_RETURN_IF_ERROR(filled);
  return tensor;
}

/// True when an output of this shape, which may leave extents open, can be a state of that one.
bool ShapesAgree(const Shape& input, const Shape& output) {
  if (input.rank() != output.rank()) return false;
  for (int i = 0; i < input.rank(); ++i) {
    if (output[i] != kUnknownDim && input[i] != kUnknownDim && output[i] != input[i]) return false;
  }
  return true;
}

/// What the first request of a sequence gets of a state of these extents.
absl::StatusOr<Shape> InitialShape(const Shape& extents, const std::vector<int64_t>& rule) {
  Shape shape = extents;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] == kUnknownDim) shape[i] = i == 0 ? 1 : 0;
  }
  if (rule.empty()) return shape;
  shape = Shape(std::span<const int64_t>(rule));
  if (ShapesAgree(extents, shape)) return shape;
  return InvalidArgument("shape: expected {}, got {}", extents.ToString(), shape.ToString());
}

absl::StatusOr<StateTensor> MakeState(const Signature& signature, const std::string& name,
                                      const ModelConfig::State& rule, size_t& output_place) {
  StateTensor state = {.input_name = name, .output_name = rule.output};
  OCTET_ASSIGN_OR_RETURN(state.input, PlaceOf("input", name, signature.inputs));
  OCTET_ASSIGN_OR_RETURN(output_place, PlaceOf("output", rule.output, signature.outputs));
  const TensorInfo& input = signature.inputs[state.input];
  const TensorInfo& output = signature.outputs[output_place];
  if (input.dtype != output.dtype || !ShapesAgree(input.shape, output.shape)) {
    return InvalidArgument("output '{}': expected {} {} as the input, got {} {}", rule.output,
                           DTypeName(input.dtype), input.shape.ToString(), DTypeName(output.dtype),
                           output.shape.ToString());
  }
  state.spec = {input.dtype, input.shape};
  if (signature.batches) state.spec.shape[0] = 1;
  if (input.dtype == DType::kString || !input.rank_known) {
    return InvalidArgument("expected numbers of a known rank, got {} {}", DTypeName(input.dtype),
                           input.rank_known ? input.shape.ToString() : "of any");
  }
  OCTET_ASSIGN_OR_RETURN(const Shape first, InitialShape(state.spec.shape, rule.shape));
  const std::optional<int64_t> elements = CheckedElements(first.dims());
  if (!elements || static_cast<uint64_t>(*elements) > kMostStateBytes / SizeOf(input.dtype)) {
    return InvalidArgument("expected a state of at most {} bytes, got {} {}", kMostStateBytes,
                           DTypeName(input.dtype), first.ToString());
  }
  OCTET_ASSIGN_OR_RETURN(state.initial, Filled({input.dtype, first}, rule.initial));
  state.starts_at_zero = rule.initial == 0;
  return state;
}

size_t Aligned(size_t bytes) { return (bytes + kTensorAlignment - 1) & ~(kTensorAlignment - 1); }

}  // namespace

bool StateTensor::Takes(const TensorSpec& made) const {
  return made.dtype == spec.dtype && made.shape.is_static() && ShapesAgree(spec.shape, made.shape);
}

absl::StatusOr<StateLayout> StateLayout::Make(
    const Signature& signature, const std::map<std::string, ModelConfig::State>& rules) {
  StateLayout layout;
  layout.clients.batches = signature.batches;
  layout.outputs.resize(signature.outputs.size());
  for (const auto& [name, rule] : rules) {
    size_t output = 0;
    auto state = MakeState(signature, name, rule, output);
    OCTET_RETURN_IF_ERROR(Annotate(state.status(), Format("state.{}", name)));
    if (!state->grows()) {
      state->offset = layout.bytes;
      layout.bytes += Aligned(state->spec.bytes());
    }
    layout.outputs[output] = {.is_state = true, .index = layout.states.size()};
    layout.states.push_back(*std::move(state));
  }
  for (size_t i = 0; i < signature.inputs.size(); ++i) {
    if (rules.contains(signature.inputs[i].name)) continue;
    layout.input_places.push_back(i);
    layout.clients.inputs.push_back(signature.inputs[i]);
  }
  for (size_t i = 0; i < signature.outputs.size(); ++i) {
    if (layout.outputs[i].is_state) continue;
    layout.outputs[i].index = layout.clients.outputs.size();
    layout.clients.outputs.push_back(signature.outputs[i]);
  }
  return layout;
}

bool StateLayout::Continues(const StateLayout& other) const {
  return std::ranges::equal(states, other.states, [](const StateTensor& a, const StateTensor& b) {
    return a.input_name == b.input_name && a.output_name == b.output_name && a.spec == b.spec;
  });
}

}  // namespace octet
