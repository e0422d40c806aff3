#include "server/scheduling/input_recipe.h"

#include "engine/tensor/status.h"

namespace octet {

absl::StatusOr<InputRecipe> InputRecipe::Make(const TensorInfo& input, const WireMapping* mapping) {
  InputRecipe recipe;
  recipe.model_dtype_ = input.dtype;
  recipe.narrow_ = input.narrow;
  if (mapping == nullptr) return recipe;
  if (input.dtype != DType::kF32) {
    return InvalidArgument("inputs.{}.wire: only an FP32 input can be mapped, this one is {}",
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
  const RealFormat format = narrow_.value_or(RealFormat{});
  if (wire.dtype() == model_dtype_) return ConvertFromWire(wire, format, dst);
  ConvertFromWire(wire, *mapping_, format, dst);
}

}  // namespace octet
