#include "server/scheduling/input_recipe.h"

#include <cstddef>
#include <cstring>

#include "engine/tensor/status.h"

namespace octet {
namespace {

// FP32 in the second half of the bytes of `count` FP64 becomes these, from the front: what is written over has been read.
void Widen(std::byte* bytes, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    float real = 0;
    std::memcpy(&real, bytes + (count + i) * sizeof(real), sizeof(real));
    const double wide = real;
    std::memcpy(bytes + i * sizeof(wide), &wide, sizeof(wide));
  }
}

}  // namespace

absl::StatusOr<InputRecipe> InputRecipe::Make(const TensorInfo& input, const WireMapping* mapping) {
  InputRecipe recipe;
  recipe.model_dtype_ = input.dtype;
  recipe.narrow_ = input.narrow;
  if (mapping == nullptr) return recipe;
  if (!IsFloat(input.dtype)) {
    return InvalidArgument("inputs.{}.wire: only reals can be mapped, this input is {}", input.name,
                           DTypeName(input.dtype));
  }
  if (mapping->dtype == input.dtype) {
    return InvalidArgument(
        "inputs.{}.wire: expected another datatype than the input's own, got {}: nobody could tell "
        "which of the two a request has",
        input.name, DTypeName(input.dtype));
  }
  OCTET_RETURN_IF_ERROR(
      Annotate(CheckWireMapping(*mapping, input.shape), Format("inputs.{}.wire", input.name)));
  recipe.mapping_ = *mapping;
  return recipe;
}

bool InputRecipe::Accepts(DType wire) const {
  return wire == model_dtype_ || (mapping_ && wire == mapping_->dtype);
}

std::string InputRecipe::AcceptedTypes() const {
  std::string types(DTypeName(model_dtype_));
  if (mapping_) types += Format(" or {}", DTypeName(mapping_->dtype));
  return types;
}

uint8_t InputRecipe::zero() const {
  return narrow_ && narrow_->quant ? static_cast<uint8_t>(narrow_->quant->zero_points[0]) : 0;
}

void InputRecipe::Convert(const WireTensor& wire, void* dst) const {
  if (IsCopy(wire.dtype())) return wire.CopyTo(dst);
  if (wire.dtype() == model_dtype_) return ConvertFromWire(wire, *narrow_, dst);
  if (model_dtype_ != DType::kF64)
    return ConvertFromWire(wire, *mapping_, narrow_.value_or(RealFormat{.stored = model_dtype_}),
                           dst);
  const int64_t count = wire.elements();
  auto* bytes = static_cast<std::byte*>(dst);
  ConvertFromWire(wire, *mapping_, RealFormat{}, bytes + count * sizeof(float));
  Widen(bytes, count);
}

}  // namespace octet
