#include "server/routing/draw.h"

#include <atomic>
#include <cstdint>

#include "server/routing/stable_hash.h"

namespace octet {

double Draw() {
  static std::atomic<uint64_t> sequence{0};
  // Weyl's sequence through a mixer, as in SplitMix64 (Steele, Lea and Flood, 2014).
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ULL;
  return UnitInterval(MixBits(sequence.fetch_add(kGolden, std::memory_order_relaxed) + kGolden));
}

}  // namespace octet
