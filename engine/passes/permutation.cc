#include "engine/passes/permutation.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "engine/ops/strided_copy.h"

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

// Moves the elements of a tensor of `shape`.
StridedCopy CopyOf(const Shape& shape, const Permutation& perm, size_t element_size) {
  const auto strides = shape.strides();
  std::vector<int64_t> source_strides;
  for (const int64_t axis : perm) source_strides.push_back(strides[axis]);
  return {DenseDestination(Permute(shape, perm), source_strides), element_size};
}

// What is moved at once where it is given back.
constexpr size_t kPieceBytes = size_t{8} << 20;

}  // namespace

Tensor Permute(const Tensor& tensor, const Permutation& perm) {
  Tensor result(tensor.dtype(), Permute(tensor.shape(), perm));
  CopyOf(tensor.shape(), perm, SizeOf(tensor.dtype())).Run(tensor.data(), result.mutable_data());
  return result;
}

Tensor PermuteAndDiscard(const Tensor& tensor, const Permutation& perm) {
  if (tensor.bytes() <= kPieceBytes || perm[0] != 0) return Permute(tensor, perm);
  Tensor result(tensor.dtype(), Permute(tensor.shape(), perm));
  const auto* from = static_cast<const std::byte*>(tensor.data());
  auto* to = static_cast<std::byte*>(result.mutable_data());
  Shape piece = tensor.shape();
  const int64_t rows = piece[0];
  const size_t row_bytes = tensor.bytes() / static_cast<size_t>(rows);
  const auto step = static_cast<int64_t>(std::max<size_t>(kPieceBytes / row_bytes, 1));
  for (int64_t begin = 0; begin < rows; begin += step) {
    piece[0] = std::min(step, rows - begin);
    const size_t moved = static_cast<size_t>(begin) * row_bytes;
    CopyOf(piece, perm, SizeOf(tensor.dtype())).Run(from + moved, to + moved);
    DiscardFirst(tensor, moved + static_cast<size_t>(piece[0]) * row_bytes);
  }
  return result;
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
