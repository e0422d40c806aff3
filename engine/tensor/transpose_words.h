// Elements of 32 bits, or groups of narrower ones that fill as many, with rows and columns exchanged.
#pragma once

#include <cstdint>

namespace octet {

/// to[column * to_pitch + row] = from[row * from_pitch + column] for rows [0, rows) and columns [0, columns); pitches are in words.
/// In squares that are a cache line on both sides, four by four words in registers.
void TransposeWords(const uint32_t* from, int64_t from_pitch, int64_t rows, int64_t columns,
                    uint32_t* to, int64_t to_pitch);

}  // namespace octet
