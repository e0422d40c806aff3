// Copies elements between two strided layouts: what Transpose, Slice, Concat, Split, Expand, Tile,
// DepthToSpace and SpaceToDepth are made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/tensor/shape.h"

namespace octet {

/// One loop of a copy. Strides in elements; the source's may be 0 (repeat) or negative (reverse).
struct CopyLoop {
  int64_t extent = 1;
  int64_t src_stride = 0;
  int64_t dst_stride = 0;
};

/// dst[sum i_k * dst_stride_k] = src[sum i_k * src_stride_k] for all i_k in [0, extent_k).
/// Elements are bytes without meaning. Loops are merged where both layouts are contiguous, runs become
/// memcpy, and a change of the fastest axis is copied in square blocks, or interleaved where a few planes become
/// neighbours (the channels of an image). Large copies use the OpenMP team.
/// Thread-safety: Run may be called from several threads at once.
class StridedCopy {
 public:
  StridedCopy() = default;
  /// Requires: element_size is 1, 2, 4, 8 or 16; destination elements are distinct.
  StridedCopy(std::span<const CopyLoop> loops, size_t element_size);

  /// `src` and `dst` point at the element of index 0 and do not overlap.
  void Run(const void* src, void* dst) const;

  /// Bytes that one Run writes.
  int64_t bytes() const { return elements_ * static_cast<int64_t>(element_size_); }

 private:
  void RunOuter(int64_t begin, int64_t end, const std::byte* src, std::byte* dst) const;
  void CopyInner(const CopyLoop& rows, const CopyLoop& columns, const std::byte* src,
                 std::byte* dst) const;

  size_t element_size_ = 1;
  int64_t elements_ = 0;
  int64_t outer_count_ = 1;      // Product of outer_'s extents.
  std::vector<CopyLoop> outer_;  // Slowest first; strides in bytes.
  CopyLoop rows_;                // The two innermost loops; strides in bytes.
  CopyLoop columns_;
  size_t run_bytes_ = 0;      // Not 0: columns_ is one memcpy of so many bytes.
  bool interleaves_ = false;  // rows_ are 2 to 4 planes, dense, whose elements become neighbours.
};

/// Loops that copy a dense tensor of `shape` whose source axes have `src_strides` (in elements).
std::vector<CopyLoop> DenseDestination(const Shape& shape, std::span<const int64_t> src_strides);

}  // namespace octet
