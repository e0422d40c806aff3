// Which pass is to blame for an answer.
#pragma once

#include <functional>

#include "absl/status/statusor.h"

#include "engine/passes/pass.h"

namespace octet {

/// Bisects `passes` for one that turns right into wrong: the index of a pass before which `is_right` holds of the passes so
/// far, and behind which it does not. Where wrong answers stay wrong it is the first such pass. Asks about
/// log2(passes.size()) times.
/// Requires: `is_right` holds of no pass and does not hold of all of them; neither is asked.
/// Errors: those of `is_right`, with the number of passes that it was asked about.
absl::StatusOr<size_t> FirstWrongPass(
    std::span<const Pass> passes,
    const std::function<absl::StatusOr<bool>(std::span<const Pass>)>& is_right);

}  // namespace octet
