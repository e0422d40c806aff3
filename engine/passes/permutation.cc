#include "engine/passes/permutation.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace octet {

bool IsIdentity(const Permutation& perm) {
  for (size_t i = 0; i < perm.size(); ++i) {
    if (perm[i] != static_cast<int64_t>(i)) return false;
  }
  return true;
}

Permutation Inverse(const Permutation& perm) {
  Permutation inverse(perm.size());
  for (size_t i = 0; i < perm.size(); ++i) inverse[perm[i]] = static_cast<int64_t>(i);
  return inverse;
}

Permutation Compose(const Permutation& first, const Permutation& second) {
  Permutation both(first.size());
  for (size_t i = 0; i < first.size(); ++i) both[i] = first[second[i]];
  return both;
}

Shape Permute(const Shape& shape, const Permutation& perm) {
  Shape result;
  for (const int64_t axis : perm) result.push_back(shape[static_cast<int>(axis)]);
  return result;
}

namespace {

// Moves the elements; `moved` is called with the number of those that are, at the end of every piece but the last.
template <typename MovedFn>
Tensor Permuted(const Tensor& tensor, const Permutation& perm, int64_t piece,
                const MovedFn& moved) {
  const Shape shape = Permute(tensor.shape(), perm);
  const auto source_strides = tensor.shape().strides();
  const int rank = shape.rank();
  const size_t size = SizeOf(tensor.dtype());
  Tensor result(tensor.dtype(), shape);
  const auto* from = static_cast<const std::byte*>(tensor.data());
  auto* to = static_cast<std::byte*>(result.mutable_data());
  std::vector<int64_t> index(rank, 0);
  int64_t source = 0;
  const int64_t count = shape.elements();
  for (int64_t i = 0; i < count;) {
    for (const int64_t end = std::min(i + piece, count); i < end; ++i) {
      std::memcpy(to + i * size, from + source * size, size);
      for (int axis = rank - 1; axis >= 0; --axis) {
        const int64_t stride = source_strides[perm[axis]];
        source += stride;
        if (++index[axis] < shape[axis]) break;
        source -= stride * shape[axis];
        index[axis] = 0;
      }
    }
    if (i < count) moved(i);
  }
  return result;
}

// Elements that are moved at once where they are given back.
constexpr size_t kPieceBytes = size_t{8} << 20;

}  // namespace

Tensor Permute(const Tensor& tensor, const Permutation& perm) {
  return Permuted(tensor, perm, tensor.elements(), [](int64_t) {});
}

Tensor PermuteAndDiscard(const Tensor& tensor, const Permutation& perm) {
  if (tensor.bytes() <= kPieceBytes || perm[0] != 0) return Permute(tensor, perm);
  const size_t size = SizeOf(tensor.dtype());
  const int64_t row = tensor.elements() / tensor.shape()[0];
  const auto rows = static_cast<int64_t>(kPieceBytes / size) / row;
  return Permuted(tensor, perm, std::max(rows, int64_t{1}) * row,
                  [&](int64_t count) { DiscardFirst(tensor, static_cast<size_t>(count) * size); });
}

Permutation ToChannelsLast(int rank) {
  Permutation perm = {0};
  for (int i = 2; i < rank; ++i) perm.push_back(i);
  perm.push_back(1);
  return perm;
}

Permutation ToChannelsFirst(int rank) {
  Permutation perm = {0, rank - 1};
  for (int i = 1; i < rank - 1; ++i) perm.push_back(i);
  return perm;
}

bool MovesOnlyOnes(const Shape& shape, const Permutation& perm) {
  int64_t last = -1;
  for (const int64_t axis : perm) {
    if (shape[static_cast<int>(axis)] == 1) continue;
    if (axis < last) return false;
    last = axis;
  }
  return true;
}

}  // namespace octet
