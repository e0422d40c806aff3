// Putting the elements of a large tensor into another order where they lie, so that they are in memory once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/tensor/tensor.h"

namespace octet {

/// Where `bytes` bytes may be written over the elements of `tensor`: their place. Null where its memory is not AllocateAligned's, or ends
/// before that. What is made there is kept alive by the tensor's owner.
/// Requires: nobody reads the elements any more once they are written over, through whatever tensor.
std::byte* RoomOf(const Tensor& tensor, size_t bytes);

/// Moves blocks of `block_bytes` bytes: the one at place i is then the one that was at sources[i], a permutation of all places.
/// `spare` holds a block.
void PermuteBlocks(std::byte* blocks, size_t block_bytes, std::span<const int64_t> sources,
                   std::byte* spare);

}  // namespace octet
