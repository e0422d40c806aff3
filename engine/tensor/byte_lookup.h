// Tables of 256 bytes, looked up a vector at a time.
#pragma once

#include <array>
#include <cstdint>

namespace octet {

using ByteTable = std::array<uint8_t, 256>;

/// y[i] = table[x[i]] for i in [0, n); x may be y. AVX-512 VBMI: four permutations for 64 bytes; elsewhere byte by byte.
void LookUpBytes(const ByteTable& table, const uint8_t* x, uint8_t* y, int64_t n);

}  // namespace octet
