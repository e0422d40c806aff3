// Permutations of axes, in Transpose's convention: output axis i is input axis perm[i].
#pragma once

#include <span>
#include <vector>

#include "engine/tensor/quant_params.h"
#include "engine/tensor/tensor.h"

namespace octet {

using Permutation = std::vector<int64_t>;

bool IsIdentity(const Permutation& perm);
/// The permutation that undoes `perm`.
Permutation Inverse(const Permutation& perm);
/// One Transpose for two: Transpose(Transpose(x, first), second).
Permutation Compose(const Permutation& first, const Permutation& second);
/// The extents of Transpose(x, perm).
Shape Permute(const Shape& shape, const Permutation& perm);
/// The elements of Transpose(x, perm), for any element type. Requires: a static shape of perm's rank.
Tensor Permute(const Tensor& tensor, const Permutation& perm);
/// The same. A large tensor's elements move where they lie, so that they are in memory once, if axis 0 stays or long blocks move
/// (and RoomOf says that its memory may be written). Requires: nobody reads the elements of `tensor` any more.
Tensor PermuteInPlace(const Tensor& tensor, const Permutation& perm);

/// [N, C, spatial...] -> [N, spatial..., C] : {0, 2, ..., rank - 1, 1}.
Permutation ToChannelsLast(int rank);
/// [N, spatial..., C] -> [N, C, spatial...] : {0, rank - 1, 1, ..., rank - 2}.
Permutation ToChannelsFirst(int rank);

/// True when the axes that `perm` puts into another order are all of extent 1, but for axes that keep their order:
/// the elements stay where they are, and a Reshape does the same. Unknown extents count as larger than 1.
bool MovesOnlyOnes(const Shape& shape, const Permutation& perm);

}  // namespace octet
