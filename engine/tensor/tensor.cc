#include "engine/tensor/tensor.h"

#include <algorithm>
#include <new>

#include <sys/mman.h>

namespace octet {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

// Buffers of several huge pages ask for them: a model's weights are written once while it loads, and a page fault for
// every 4 KB costs as much as the writing.
std::shared_ptr<std::byte[]> AllocateAligned(size_t bytes) {
  const bool huge = bytes >= 2 * kHugePage;
  const std::align_val_t alignment{huge ? kHugePage : kTensorAlignment};
  void* memory = ::operator new[](std::max<size_t>(bytes, 1), alignment);
  // A hint: where it is refused, small pages do.
  if (huge) madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return std::shared_ptr<std::byte[]>(static_cast<std::byte*>(memory), [alignment](std::byte* p) {
    ::operator delete[](p, alignment);
  });
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
