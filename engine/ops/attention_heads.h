// What the attention operators' bodies share: heads, positions and masks.
#pragma once

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/ops/function.h"
#include "engine/tensor/status.h"

namespace octet {

/// [B, S, N, H] from [B, S, N * H]. INVALID_ARGUMENT unless the last extent is known and divides.
inline absl::StatusOr<ValueId> SplitHeads(FunctionBody& body, ValueId x, int64_t heads) {
  const int64_t width = body.extent(x, 2);
  if (body.rank(x) != 3 || width == kUnknownDim || width % heads != 0)
    return InvalidArgument("a hidden size of {} is not for {} heads", width, heads);
  return body.Op("Reshape", {x, body.Ints({0, 0, heads, width / heads})});
}

inline ValueId SwapAxes(FunctionBody& body, ValueId x, std::vector<int64_t> perm) {
  return body.Op("Transpose", {x}, {{"perm", std::move(perm)}});
}
/// [B, S, N, H] <-> [B, N, S, H].
inline ValueId HeadsFirst(FunctionBody& body, ValueId x) { return SwapAxes(body, x, {0, 2, 1, 3}); }

/// A constant: first, first + 1, ...
template <typename T>
ValueId Positions(FunctionBody& body, Shape shape, int64_t first = 0) {
  std::vector<T> positions;
  for (int64_t i = 0; i < shape.elements(); ++i) positions.push_back(static_cast<T>(first + i));
  return body.Constant(Tensor::From<T>(std::move(shape), positions));
}

/// What is added to scores that never count: no infinity, which would make a NaN of a row that is masked as a whole.
inline constexpr float kNeverAttended = std::numeric_limits<float>::lowest();

}  // namespace octet
