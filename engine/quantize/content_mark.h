// Numbers by which files know again what they were made of: a graph, a set of samples.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/calibration_data.h"

namespace octet {

/// 64 bits that stand for a graph: interface, operators, names and constants.
uint64_t MarkOf(const Graph& graph);
/// 64 bits that stand for all the elements of a set: the same for one that lies in one array as in several. Reads all of it once.
/// Errors: as SampleSource::Read and CheckCounts.
absl::StatusOr<uint64_t> MarkOf(const CalibrationData& set);

}  // namespace octet
