// Means over whole planes of floats.
#pragma once

#include <memory>

#include "engine/ops/pool_loops.h"
#include "engine/ops/step.h"

namespace octet {

/// y[n, c] = (sum over the plane of x[n, ..., c]) / plane, x and y F32, channels last: GlobalAveragePool. Planes are read
/// row by row, all channels of a row at once; oneDNN's pooling takes about three times as long for large planes.
/// "octet:plane_mean". UNIMPLEMENTED for other types.
absl::StatusOr<std::unique_ptr<Step>> LowerPlaneMean(const LowerContext& context,
                                                     const PoolGeometry& geometry);

}  // namespace octet
