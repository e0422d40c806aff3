// Which elements of their data GatherElements and ScatterElements name.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "engine/ops/index_reader.h"
#include "engine/tensor/shape.h"

namespace octet {

/// Index k names the element of the data that lies where k lies in the index tensor, but for one axis, where it lies at indices[k]. Walked
/// row by row: what divides k into coordinates is done once a row, and axes that index and data have alike are one.
class IndexRows {
 public:
  /// Requires: one rank, at least 1; `index` is no longer than `data` along any axis but `axis`.
  IndexRows(const Shape& index, const Shape& data, int axis)
      : extent_(data[axis]), stride_(data.strides()[axis]) {
    const auto strides = data.strides();
    for (int i = 0; i < index.rank(); ++i) {
      const bool own = i == axis;
      // Row-major neighbours where the data's are: the axis before goes on in this one.
      if (!own && !axes_.empty() && !axes_.back().own && index[i] == data[i]) {
        axes_.back() = {axes_.back().extent * index[i], strides[i], false};
      } else {
        axes_.push_back({index[i], strides[i], own});
      }
    }
  }

  /// Calls fn(k, place) for every index [begin, end), in order. Requires: the indices are in range.
  template <typename Fn>
  void ForEach(const IndexReader& indices, int64_t begin, int64_t end, const Fn& fn) const {
    const int64_t length = axes_.back().extent;
    const int64_t step = axes_.back().own ? 0 : axes_.back().stride;
    for (int64_t k = begin; k < end;) {
      const int64_t first = k / length * length;
      const int64_t stop = std::min(end, first + length);
      const int64_t place = PlaceOfRow(k / length);
      for (; k < stop; ++k) fn(k, place + (k - first) * step + indices.At(k, extent_) * stride_);
    }
  }

 private:
  struct Axis {
    int64_t extent = 1;
    int64_t stride = 1;  ///< In the data.
    bool own = false;    ///< The axis along which the indices point.
  };

  int64_t PlaceOfRow(int64_t row) const {
    int64_t place = 0;
    for (size_t i = axes_.size() - 1; i-- > 0; row /= axes_[i].extent) {
      if (!axes_[i].own) place += row % axes_[i].extent * axes_[i].stride;
    }
    return place;
  }

  std::vector<Axis> axes_;
  int64_t extent_;
  int64_t stride_;
};

}  // namespace octet
