#include "server/picture/pixel_memory.h"

#include <algorithm>
#include <array>
#include <utility>

namespace octet {
namespace {

constexpr size_t kMostKept = size_t{16} << 20;

struct KeptBlock {
  std::unique_ptr<uint8_t[]> data;
  size_t bytes = 0;
};

/// A picture, and what it is turned into.
using KeptBlocks = std::array<KeptBlock, 2>;

KeptBlocks& OfThisThread() {
  static thread_local KeptBlocks blocks;
  return blocks;
}

}  // namespace

void KeepPixels::operator()(uint8_t* pixels) const {
  KeptBlock block = {std::unique_ptr<uint8_t[]>(pixels), bytes};
  if (bytes > kMostKept) return;
  KeptBlock& smallest = *std::ranges::min_element(OfThisThread(), {}, &KeptBlock::bytes);
  if (smallest.bytes < bytes) std::swap(smallest, block);
}

PixelMemory AllocatePixels(size_t bytes) {
  KeptBlock* best = nullptr;
  for (KeptBlock& block : OfThisThread()) {
    if (block.bytes >= bytes && (best == nullptr || block.bytes < best->bytes)) best = &block;
  }
  if (best == nullptr || best->data == nullptr) {
    return PixelMemory(std::make_unique_for_overwrite<uint8_t[]>(bytes).release(), {bytes});
  }
  return PixelMemory(best->data.release(), {std::exchange(best->bytes, 0)});
}

}  // namespace octet
