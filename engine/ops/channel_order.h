// Between [N, C, spatial...] and [N, spatial..., C], in the bodies of operators that take the second.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "engine/ops/function.h"

namespace octet {

/// Requires: the rank of x is known and at least 2.
inline ValueId ChannelsFirst(FunctionBody& body, ValueId x) {
  const int64_t rank = body.rank(x);
  std::vector<int64_t> perm = {0, rank - 1};
  for (int64_t i = 1; i + 1 < rank; ++i) perm.push_back(i);
  return body.Op("Transpose", {x}, {{"perm", std::move(perm)}});
}
/// The way back, with the same requirement.
inline ValueId ChannelsLast(FunctionBody& body, ValueId x) {
  const int64_t rank = body.rank(x);
  std::vector<int64_t> perm = {0};
  for (int64_t i = 2; i < rank; ++i) perm.push_back(i);
  perm.push_back(1);
  return body.Op("Transpose", {x}, {{"perm", std::move(perm)}});
}

}  // namespace octet
