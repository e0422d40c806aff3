#include "engine/tensor/real_format.h"

#include "engine/tensor/quantize.h"

namespace octet {

const float* RealFormat::Read(const void* base, int64_t offset, int64_t n, float* buffer) const {
  const auto* bytes =
      static_cast<const std::byte*>(base) + offset * static_cast<int64_t>(SizeOf(stored));
  if (plain()) return reinterpret_cast<const float*>(bytes);
  const ConstTensorView src{bytes, {stored, Shape{n}}};
  const TensorView dst{buffer, {DType::kF32, Shape{n}}};
  if (quant) {
    DequantizeTensor(src, *quant, dst);
  } else {
    ConvertTensor(src, dst);
  }
  return buffer;
}

void RealFormat::Write(const float* reals, void* base, int64_t offset, int64_t n) const {
  const ConstTensorView src{reals, {DType::kF32, Shape{n}}};
  auto* bytes = static_cast<std::byte*>(base) + offset * static_cast<int64_t>(SizeOf(stored));
  const TensorView dst{bytes, {stored, Shape{n}}};
  if (quant) {
    QuantizeTensor(src, *quant, dst);
  } else {
    ConvertTensor(src, dst);
  }
}

}  // namespace octet
