#include "engine/tensor/slab.h"

#include <algorithm>

#include "engine/tensor/tensor.h"

namespace octet {
namespace {

constexpr size_t kFirstBlock = size_t{256} << 10;
constexpr size_t kLargestBlock = size_t{16} << 20;
/// What does not fill a block's last huge pages is lost: longer pieces would leave too much of them.
constexpr size_t kLongestPiece = kLargestBlock / 4;

}  // namespace

std::shared_ptr<std::byte[]> Slab::Allocate(size_t bytes) {
  if (bytes >= kLongestPiece) return AllocateAligned(bytes);
  bytes = std::max(AlignUp(bytes), kTensorAlignment);
  if (bytes > size_ - used_) {
    size_t size = std::clamp(2 * size_, kFirstBlock, kLargestBlock);
    while (size < bytes) size *= 2;
    block_ = AllocateAligned(size);  // May throw: nothing has changed then.
    size_ = size;
    used_ = 0;
  }
  std::byte* piece = block_.get() + used_;
  used_ += bytes;
  return {block_, piece};
}

}  // namespace octet
