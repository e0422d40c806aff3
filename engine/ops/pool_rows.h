// Pools that oneDNN has no kernel for, a row of results at a time.
#pragma once

#include <memory>

#include "engine/ops/pool_loops.h"
#include "engine/ops/step.h"

namespace octet {

/// MaxPool, with the places of its maxima where the node asks for them, AveragePool, LpPool (p of 1 and 2) and their Global
/// forms, in float on values of any RealFormat, rounded once. "octet:pool_rows".
///   y = fold of the window; divided by its count (AveragePool), its root (LpPool)
///   x and y are [N, C, spatial...], or [N, spatial..., C] with channels_last.
/// UNIMPLEMENTED for other types, other p, and planes of 2^31 elements or more.
absl::StatusOr<std::unique_ptr<Step>> LowerPoolRows(const LowerContext& context,
                                                    const PoolGeometry& geometry);

}  // namespace octet
