// A hash that is the same in every process, on every machine, for ever: what sticky routing needs
// and std::hash does not promise.
#pragma once

#include <cstdint>
#include <string_view>

namespace octet {

/// Avalanche of 64 bits: every input bit flips every output bit with probability near one half.
/// Source: MurmurHash3's fmix64 (A. Appleby).
constexpr uint64_t MixBits(uint64_t h) {
  h ^= h >> 33;
  h *= 0xff51afd7ed558ccdULL;
  h ^= h >> 33;
  h *= 0xc4ceb9fe1a85ec53ULL;
  h ^= h >> 33;
  return h;
}

/// FNV-1a over the bytes of `text`, continuing from `state`. Source: Fowler, Noll and Vo.
constexpr uint64_t HashBytes(std::string_view text, uint64_t state = 0xcbf29ce484222325ULL) {
  for (const char c : text) {
    state ^= static_cast<uint8_t>(c);
    state *= 0x100000001b3ULL;
  }
  return state;
}

/// Maps a hash to [0, 1): its upper 53 bits.
constexpr double UnitInterval(uint64_t hash) { return static_cast<double>(hash >> 11) * 0x1.0p-53; }

}  // namespace octet
