#include "engine/tensor/tensor.h"

#include <malloc.h>

#include <algorithm>
#include <cstdint>
#include <new>

#include <sys/mman.h>

#include "engine/tensor/in_place.h"

namespace octet {
namespace {

// Also tells memory of AllocateAligned from any other's.
struct DeleteAligned {
  std::align_val_t alignment;
  void operator()(std::byte* memory) const { ::operator delete[](memory, alignment); }
};

}  // namespace

// Buffers of a huge page and more ask for them: a page fault for every 4 kB costs more than writing it (see Slab). Behind
// those there is room for the sums that packed weights end with (see RoomOf), which is not in memory until it is written.
std::shared_ptr<std::byte[]> AllocateAligned(size_t bytes) {
  const bool huge = bytes >= kHugePage;
  const std::align_val_t alignment{huge ? kHugePage : kTensorAlignment};
  const size_t room = huge ? bytes / 64 : 0;
  void* memory = ::operator new[](std::max<size_t>(bytes + room, 1), alignment);
  // A hint: where it is refused, small pages do.
  if (huge) madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return {static_cast<std::byte*>(memory), DeleteAligned{alignment}};
}

Tensor::Tensor(DType dtype, Shape shape) : spec_{dtype, std::move(shape)} {
  std::shared_ptr<std::byte[]> memory = AllocateAligned(spec_.bytes());
  if (dtype == DType::kString)
    std::uninitialized_default_construct_n(reinterpret_cast<std::string_view*>(memory.get()),
                                           spec_.shape.elements());
  data_ = memory.get();
  owner_ = std::move(memory);
}

Tensor::Tensor(DType dtype, Shape shape, std::shared_ptr<const void> owner, const void* data)
    : spec_{dtype, std::move(shape)}, owner_(std::move(owner)), data_(data) {
  // An empty tensor may come without elements; it is a tensor all the same, not an empty handle.
  if (data_ == nullptr) *this = Tensor(spec_.dtype, spec_.shape);
}

Tensor Tensor::Strings(Shape shape, std::span<const std::string_view> texts) {
  size_t characters = 0;
  for (const std::string_view text : texts) characters += text.size();
  std::shared_ptr<std::byte[]> memory = AllocateAligned(texts.size_bytes() + characters);
  auto* element = reinterpret_cast<std::string_view*>(memory.get());
  char* to = reinterpret_cast<char*>(memory.get() + texts.size_bytes());
  for (const std::string_view text : texts) {
    if (!text.empty()) std::memcpy(to, text.data(), text.size());
    std::construct_at(element++, to, text.size());
    to += text.size();
  }
  const void* data = memory.get();
  return Tensor(DType::kString, std::move(shape), std::move(memory), data);
}

Tensor Tensor::Reshaped(Shape shape) const {
  Tensor result = *this;
  result.spec_.shape = std::move(shape);
  return result;
}

void DiscardFirst(const Tensor& tensor, size_t bytes) {
  if (std::get_deleter<DeleteAligned>(tensor.owner()) == nullptr) return;
  const auto data = reinterpret_cast<uintptr_t>(tensor.data());
  const uintptr_t begin = (data + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (data + bytes) / kHugePage * kHugePage;
  // Pages that stay are memory that is freed later: no error.
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::byte* RoomOf(const Tensor& tensor, size_t bytes) {
  if (std::get_deleter<DeleteAligned>(tensor.owner()) == nullptr) return nullptr;
  auto* begin = static_cast<std::byte*>(const_cast<void*>(tensor.data()));
  if (begin != tensor.owner().get() || bytes > malloc_usable_size(begin)) return nullptr;
  return begin;
}

uint64_t MemoryBytes(const ConstTensorView& view) {
  uint64_t bytes = view.bytes();
  if (view.dtype() != DType::kString) return bytes;
  for (const std::string_view text : view.span<std::string_view>()) bytes += text.size();
  return bytes;
}

}  // namespace octet
