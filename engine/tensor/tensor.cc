#include "engine/tensor/tensor.h"

#include <algorithm>
#include <new>

namespace octet {

std::shared_ptr<std::byte[]> AllocateAligned(size_t bytes) {
  constexpr std::align_val_t kAlignment{kTensorAlignment};
  void* memory = ::operator new[](std::max<size_t>(bytes, 1), kAlignment);
  return std::shared_ptr<std::byte[]>(static_cast<std::byte*>(memory),
                                      [](std::byte* p) { ::operator delete[](p, kAlignment); });
}

Tensor::Tensor(DType dtype, Shape shape) : spec_{dtype, std::move(shape)} {
  std::shared_ptr<std::byte[]> memory = AllocateAligned(spec_.bytes());
  data_ = memory.get();
  owner_ = std::move(memory);
}

Tensor::Tensor(DType dtype, Shape shape, std::shared_ptr<const void> owner, const void* data)
    : spec_{dtype, std::move(shape)}, owner_(std::move(owner)), data_(data) {
  // An empty tensor may come without elements; it is a tensor all the same, not an empty handle.
  if (data_ == nullptr) *this = Tensor(spec_.dtype, spec_.shape);
}

Tensor Tensor::Reshaped(Shape shape) const {
  Tensor result = *this;
  result.spec_.shape = std::move(shape);
  return result;
}

}  // namespace octet
