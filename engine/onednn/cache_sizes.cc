#include "engine/onednn/cache_sizes.h"

#include <unistd.h>

#include <algorithm>
#include <array>

namespace octet::onednn {
namespace {

struct Level {
  int name;         ///< For sysconf.
  size_t least;     ///< What is smaller is no size of such a cache.
  size_t most;      ///< The system's figure may be the whole package's.
  size_t fallback;  ///< Where the system does not know either.
};

constexpr std::array<Level, 3> kLevels = {{
    {_SC_LEVEL1_DCACHE_SIZE, 8 << 10, 256 << 10, 32 << 10},
    {_SC_LEVEL2_CACHE_SIZE, 64 << 10, 4 << 20, 512 << 10},
    {_SC_LEVEL3_CACHE_SIZE, 256 << 10, 4 << 20, 1 << 20},
}};

}  // namespace

size_t PerCoreCacheBytes(int level, size_t told) {
  if (level < 1 || level > static_cast<int>(kLevels.size())) return told;
  const Level& known = kLevels[static_cast<size_t>(level - 1)];
  if (told >= known.least) return told;
  const long bytes = sysconf(known.name);
  if (bytes < static_cast<long>(known.least)) return known.fallback;
  return std::min(static_cast<size_t>(bytes), known.most);
}

}  // namespace octet::onednn
