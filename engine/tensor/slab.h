// Memory for many buffers that are made together: a model's weights.
#pragma once

#include <cstddef>
#include <memory>

namespace octet {

/// Hands out pieces of larger blocks, the first of 256 kB, each twice as large as the one before up to 16 MB, in huge
/// pages. A page fault for every 4 kB costs more than writing it, twenty times as much where the machine is virtual: ResNet-50's
/// weights, most of them shorter than a huge page, were read in 75 ms instead of 1.4 s. A huge page goes back to the system
/// with the last of the pieces in it, so that weights that are read and packed one after the other are not in memory twice.
/// Thread-safety: none; pieces may be let go of by any thread.
class Slab {
 public:
  Slab() = default;
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  ~Slab();

  /// At least `bytes`, aligned to kTensorAlignment, uninitialised. Pieces of 4 MB and more have a block of their own.
  std::shared_ptr<std::byte[]> Allocate(size_t bytes);

  /// Gives back what lies behind the last piece in its huge page, up to 2 MB; later pieces have it in small pages. For when no
  /// more are expected.
  void Trim();

 private:
  class Block;

  std::shared_ptr<Block> block_;  // Null at first.
  size_t size_ = 0;
  size_t used_ = 0;
};

}  // namespace octet
