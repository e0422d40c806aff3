// Multidirectional (numpy) broadcasting as rows: the output is walked in runs of its innermost axis, and every
// input either follows it (stride 1) or stays (stride 0). Axes that all inputs walk alike are merged first,
// so two equal shapes are one row, and [N, C, H, W] + [C, 1, 1] has rows of H * W.
// Source: ONNX Broadcasting.md.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "absl/container/inlined_vector.h"

#include "engine/tensor/shape.h"

namespace octet {

/// How `inputs` are walked while the output is walked in order. Immutable after construction.
class BroadcastPlan {
 public:
  BroadcastPlan() = default;
  /// Requires: static shapes, each of which broadcasts to `output`.
  BroadcastPlan(const Shape& output, std::span<const Shape> inputs);

  /// Elements of the output.
  int64_t elements() const { return elements_; }
  /// Elements of one row.
  int64_t row() const { return extents_.back(); }
  /// Stride of input `i` within a row: 0 or 1.
  int64_t stride(size_t i) const { return strides_[i].back(); }

  /// Calls fn(out_offset, in_offsets, n) for rows (or parts of rows) that cover the output's elements
  /// [begin, end): input i's element for out_offset + k is at in_offsets[i] + k * stride(i).
  template <typename Fn>
  void ForEachRow(int64_t begin, int64_t end, const Fn& fn) const;

 private:
  using Extents = absl::InlinedVector<int64_t, 6>;

  int64_t elements_ = 0;
  Extents extents_ = {1};                    ///< Of the output, merged; the last one is the row.
  absl::InlinedVector<Extents, 3> strides_;  ///< Per input, per merged axis, in elements.
};

template <typename Fn>
void BroadcastPlan::ForEachRow(int64_t begin, int64_t end, const Fn& fn) const {
  if (begin >= end) return;
  const size_t count = strides_.size();
  const int outer = static_cast<int>(extents_.size()) - 1;
  absl::InlinedVector<int64_t, 6> index(extents_.size());
  int64_t rest = begin / row();
  int64_t column = begin % row();
  for (int d = outer - 1; d >= 0; --d) {
    index[d] = rest % extents_[d];
    rest /= extents_[d];
  }
  absl::InlinedVector<int64_t, 3> base(count);
  absl::InlinedVector<int64_t, 3> offsets(count);
  for (size_t i = 0; i < count; ++i) {
    for (int d = 0; d < outer; ++d) base[i] += index[d] * strides_[i][d];
  }
  for (int64_t position = begin; position < end;) {
    const int64_t n = std::min(row() - column, end - position);
    for (size_t i = 0; i < count; ++i) offsets[i] = base[i] + column * strides_[i].back();
    fn(position, std::span<const int64_t>(offsets), n);
    position += n;
    column = 0;
    for (int d = outer - 1; d >= 0; --d) {
      const bool carry = ++index[d] == extents_[d];
      for (size_t i = 0; i < count; ++i) {
        base[i] += carry ? -strides_[i][d] * (extents_[d] - 1) : strides_[i][d];
      }
      if (!carry) break;
      index[d] = 0;
    }
  }
}

}  // namespace octet
