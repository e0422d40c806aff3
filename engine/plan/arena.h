// Where every intermediate lives in the arena of a plan.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace octet {

/// A buffer that must keep its bytes from step `first` to step `last`, both included.
struct BufferLife {
  size_t bytes = 0;
  int first = 0;
  int last = 0;
};

struct ArenaLayout {
  std::vector<size_t> offsets;  ///< One per buffer, multiples of kTensorAlignment.
  size_t bytes = 0;             ///< Of the whole arena.
  size_t live_peak = 0;  ///< Largest sum of sizes that live at one step: no layout can be smaller.
};

/// Places the buffers so that no two that live at one step overlap. Tries several orders of a greedy best fit
/// and keeps the smallest result. O(n^2) per order.
/// Source: Pisarchyk & Lee, Efficient Memory Management for Deep Neural Net Inference (2020), section 5.
ArenaLayout LayOutArena(std::span<const BufferLife> buffers);

}  // namespace octet
