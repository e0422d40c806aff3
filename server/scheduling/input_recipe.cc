#include "server/scheduling/input_recipe.h"

#include <cstring>

#include "engine/tensor/status.h"

namespace octet {

absl::StatusOr<InputRecipe> InputRecipe::Make(const TensorInfo& input, const WireMapping* mapping) {
  InputRecipe recipe;
  recipe.model_dtype_ = input.dtype;
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

void InputRecipe::Convert(ConstTensorView wire, void* dst) const {
  if (wire.elements() == 0) return;
  if (IsCopy(wire.dtype())) {
    std::memcpy(dst, wire.data, wire.bytes());
  } else {
    ConvertFromWire(wire.data, *mapping_, {dst, {DType::kF32, wire.shape()}});
  }
}

}  // namespace octet
