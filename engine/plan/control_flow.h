// How the operators that have sub-graphs run: If, Loop, Scan, SequenceMap.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/control.h"
#include "engine/plan/program.h"
#include "engine/tensor/datum.h"

namespace octet {

/// Runs a control node of `graph`. `bodies` in the order of BodyNames, `inputs` one per input slot, null where absent. Results of
/// no run have extent 0 along their axis, those that body or graph know of, and 0 elsewhere.
/// Errors: INVALID_ARGUMENT for conditions and counts that are no scalars, for results of several runs that differ in
/// shape; RESOURCE_EXHAUSTED when the run has no iterations left, or results outgrow it;
/// DEADLINE_EXCEEDED.
absl::StatusOr<std::vector<Datum>> RunControl(const Graph& graph, const Node& node,
                                              const ControlSlots& slots,
                                              std::span<const ProgramOrError> bodies,
                                              std::span<const Datum* const> inputs,
                                              ProgramRun& run);

}  // namespace octet
