#include "server/scheduling/input_recipe.h"

#include <string_view>

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

void InputRecipe::Convert(const WireTensor& wire, void* dst) const {
  if (wire.elements() == 0) return;
  if (IsCopy(wire.dtype())) return wire.CopyTo(dst);
  const TensorView elements = {dst, {DType::kF32, wire.shape()}};
  if (!wire.in_pieces()) return ConvertFromWire(wire.data, *mapping_, elements);
  int64_t first = 0;
  for (const std::string_view piece : wire.pieces) {
    const auto count = static_cast<int64_t>(piece.size());
    ConvertFromWire(piece.data(), *mapping_, first, count, elements);
    first += count;
  }
}

}  // namespace octet
