// What TopK is told, for its reference kernel and for its fast form.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/step.h"
#include "engine/tensor/shape.h"

namespace octet {

/// Of each of `groups` rows of `extent` elements, `inner` apart, the first k in order.
struct TopKForm {
  int64_t extent = 0;
  int64_t k = 0;
  int64_t inner = 1;
  int64_t groups = 0;
  bool largest = true;

  /// Where row `group` begins in the input, and in the outputs.
  int64_t InputAt(int64_t group) const { return group / inner * extent * inner + group % inner; }
  int64_t OutputAt(int64_t group) const { return group / inner * k * inner + group % inner; }
};

/// Of shapes that are known. INVALID_ARGUMENT where k is more than the axis has.
absl::StatusOr<TopKForm> ReadTopK(const Node& node, const Shape& x, const Shape& y);

/// The fast form: elements become integers of the same order, a row's are read once, and those before the k-th best so far are kept. Numbers
/// as they are; UNIMPLEMENTED for values with quant, F16 and BF16.
absl::StatusOr<std::unique_ptr<Step>> LowerTopK(const LowerContext& context);

}  // namespace octet
