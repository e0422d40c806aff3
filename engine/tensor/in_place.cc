#include "engine/tensor/in_place.h"

#include <cstring>
#include <vector>

namespace octet {

// Each place is filled with the block that belongs there, whose own place is filled next, until that block is the one that was set aside.
void PermuteBlocks(std::byte* blocks, size_t block_bytes, std::span<const int64_t> sources,
                   std::byte* spare) {
  const auto block = [&](size_t place) { return blocks + place * block_bytes; };
  std::vector<bool> filled(sources.size());
  for (size_t first = 0; first < sources.size(); ++first) {
    if (filled[first]) continue;
    filled[first] = true;
    if (sources[first] == static_cast<int64_t>(first)) continue;
    std::memcpy(spare, block(first), block_bytes);
    size_t place = first;
    for (auto from = static_cast<size_t>(sources[first]); from != first;
         from = static_cast<size_t>(sources[place])) {
      std::memcpy(block(place), block(from), block_bytes);
      filled[from] = true;
      place = from;
    }
    std::memcpy(block(place), spare, block_bytes);
  }
}

}  // namespace octet
