// Memory for many buffers that are made together: a model's weights.
#pragma once

#include <cstddef>
#include <memory>

namespace octet {

/// Hands out pieces of larger blocks, the first of 256 kB, each twice as large as the one before up to 16 MB, in huge
/// pages. A page fault for every 4 kB costs more than writing it, twenty times as much where the machine is virtual: ResNet-50's
/// weights, most of them shorter than a huge page, were read in 75 ms instead of 1.4 s. A block is freed with the last of its
/// pieces. Thread-safety: none.
class Slab {
 public:
  /// At least `bytes`, aligned to kTensorAlignment, uninitialised. Pieces of 4 MB and more have a block of their own.
  std::shared_ptr<std::byte[]> Allocate(size_t bytes);

 private:
  std::shared_ptr<std::byte[]> block_;
  size_t size_ = 0;
  size_t used_ = 0;
};

}  // namespace octet
