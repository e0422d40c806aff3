// How large a tensor may be that a file or a request speaks of: beyond these limits nothing is computed with its extents.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/tensor/shape.h"

namespace octet {

/// More axes than any model has.
inline constexpr int kMaxRank = 32;
/// More elements than any memory holds, so few that strides and sizes in bytes never overflow.
inline constexpr int64_t kMaxElements = int64_t{1} << 56;

/// More bytes of strings, characters and all, than any message holds.
inline constexpr uint64_t kMaxTextBytes = uint64_t{2} << 30;

/// True unless the shape has more than kMaxRank axes, a negative extent (kUnknownDim counts as 1), or, with extents of 0
/// as 1, more than kMaxElements.
bool IsPossible(const Shape& shape);

/// True when elements of `element_bytes` in this shape, with extents of 0 as 1, fit into `limit` bytes: what is made per
/// extent or per element stays within it. Requires: IsPossible(shape), element_bytes <= 64.
bool FitsInto(const Shape& shape, size_t element_bytes, uint64_t limit);

/// True when a tensor of this shape, which a request brings, is possible and fits into `limit` bytes. One without elements costs its
/// sender nothing, however long it is: for each place along its extents 64 bytes count, since operators keep a row's number or a
/// part of a sequence for it. Requires: element_bytes <= 64.
bool MayArrive(const Shape& shape, size_t element_bytes, uint64_t limit);

}  // namespace octet
