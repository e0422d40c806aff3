#include "engine/tensor/limits.h"

#include <algorithm>

namespace octet {

bool IsPossible(const Shape& shape) {
  if (shape.rank() > kMaxRank) return false;
  int64_t product = 1;
  for (const int64_t extent : shape) {
    if (extent < 0 && extent != kUnknownDim) return false;
    const int64_t factor = std::max<int64_t>(extent, 1);
    if (product > kMaxElements / factor) return false;
    product *= factor;
  }
  return true;
}

bool FitsInto(const Shape& shape, size_t element_bytes, uint64_t limit) {
  uint64_t bytes = element_bytes;
  for (const int64_t extent : shape) bytes *= static_cast<uint64_t>(std::max<int64_t>(extent, 1));
  return bytes <= limit;
}

bool MayArrive(const Shape& shape, size_t element_bytes, uint64_t limit) {
  constexpr size_t kPlaceBytes = 64;
  const bool empty = std::ranges::find(shape, 0) != shape.end();
  return IsPossible(shape) && FitsInto(shape, empty ? kPlaceBytes : element_bytes, limit);
}

}  // namespace octet
