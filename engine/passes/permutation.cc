#include "engine/passes/permutation.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "engine/ops/strided_copy.h"
#include "engine/tensor/in_place.h"

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

// Tensors up to here are copied: two of them at a time are no matter.
constexpr size_t kCopiedBytes = size_t{8} << 20;
// Of what is moved at once, at least, by what needs a number for each.
constexpr size_t kLongBlock = 512;

// How many axes there are before the last ones that stay where they are.
int MovedAxes(const Permutation& perm) {
  auto axes = static_cast<int>(perm.size());
  while (axes > 0 && perm[static_cast<size_t>(axes - 1)] == axes - 1) --axes;
  return axes;
}

// Moves what the first axes number; `perm` is of them.
void PermuteLongBlocks(std::byte* elements, size_t block_bytes, const Shape& shape,
                       const Permutation& perm) {
  Shape places;
  for (int axis = 0; axis < static_cast<int>(perm.size()); ++axis) places.push_back(shape[axis]);
  Tensor numbers(DType::kI64, places);
  std::ranges::iota(numbers.mutable_span<int64_t>(), int64_t{0});
  const Tensor sources = Permute(numbers, perm);
  const std::shared_ptr<std::byte[]> spare = AllocateAligned(block_bytes);
  PermuteBlocks(elements, block_bytes, sources.span<int64_t>(), spare.get());
}

// Moves elements within what the first axis numbers, some of them at a time.
void PermuteRows(std::byte* elements, const Tensor& tensor, const Permutation& perm) {
  Shape piece = tensor.shape();
  const int64_t rows = piece[0];
  const size_t row_bytes = tensor.bytes() / static_cast<size_t>(rows);
  const auto step = static_cast<int64_t>(std::max<size_t>(kHugePage / row_bytes, 1));
  const std::shared_ptr<std::byte[]> moved =
      AllocateAligned(static_cast<size_t>(std::min(step, rows)) * row_bytes);
  for (int64_t begin = 0; begin < rows; begin += step) {
    piece[0] = std::min(step, rows - begin);
    std::byte* from = elements + static_cast<size_t>(begin) * row_bytes;
    CopyOf(piece, perm, SizeOf(tensor.dtype())).Run(from, moved.get());
    std::memcpy(from, moved.get(), static_cast<size_t>(piece[0]) * row_bytes);
  }
}

}  // namespace

Tensor Permute(const Tensor& tensor, const Permutation& perm) {
  Tensor result(tensor.dtype(), Permute(tensor.shape(), perm));
  CopyOf(tensor.shape(), perm, SizeOf(tensor.dtype())).Run(tensor.data(), result.mutable_data());
  return result;
}

Tensor PermuteInPlace(const Tensor& tensor, const Permutation& perm) {
  const size_t bytes = tensor.bytes();
  std::byte* const elements = bytes > kCopiedBytes ? RoomOf(tensor, bytes) : nullptr;
  if (elements == nullptr) return Permute(tensor, perm);
  const Shape& shape = tensor.shape();
  const int moved = MovedAxes(perm);
  const size_t block_bytes = bytes / static_cast<size_t>(shape.elements(0, moved));
  if (block_bytes >= kLongBlock) {
    PermuteLongBlocks(elements, block_bytes, shape, {perm.begin(), perm.begin() + moved});
  } else if (perm[0] == 0) {
    PermuteRows(elements, tensor, perm);
  } else {
    return Permute(tensor, perm);
  }
  return Tensor(tensor.dtype(), Permute(shape, perm), tensor.owner(), elements);
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
