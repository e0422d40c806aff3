// What Resize and Upsample come to: one table for each axis.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/ops/op.h"

namespace octet {

/// Output o along one axis is the sum of weight[o * taps + t] * input[index[o * taps + t]]; `outside` outputs are the
/// extrapolation value.
struct AxisTable {
  int64_t in = 1;
  int64_t out = 1;
  int64_t taps = 1;
  std::vector<int64_t> index;
  std::vector<double> weight;
  std::vector<bool> outside;

  bool IsIdentity() const {
    if (in != out || taps != 1 || !outside.empty()) return false;
    for (int64_t o = 0; o < out; ++o) {
      if (index[o] != o) return false;
    }
    return true;
  }
};

/// True for a Resize or Upsample whose outputs are inputs, element for element.
bool ResizesByCopying(const Node& node);

/// The tables of all axes. UNIMPLEMENTED where regions are resized, whose tables may wait for data, or where scales and sizes
/// are not constant; INVALID_ARGUMENT where they contradict the shapes.
absl::StatusOr<std::vector<AxisTable>> ResizeTables(const KernelContext& context);

/// Resize and Upsample by such tables: between values of one stored type nearest neighbours are copied as they are, all
/// else is computed in float.
absl::StatusOr<std::unique_ptr<Step>> LowerResize(const LowerContext& context);

}  // namespace octet
