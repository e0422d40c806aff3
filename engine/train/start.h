// A QDQ file that training goes on from, in the form that a network is built of.
#pragma once

#include <span>
#include <string>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"

namespace octet::train {

/// Brings a graph into the form that training reads, its answers the same: opset raised, constants and Ifs evaluated, what does nothing
/// removed. The teacher's graph and the one that is trained end alike then. Errors: as RunNamedPasses.
absl::Status ReadForTraining(Graph& graph, std::span<const std::string> disabled_passes);

/// The graph of a static QDQ file, whoever made it, with the answers that the file has to the bit:
///   its inputs in the order of the fp32 model's; opset kQuantizeOpset at least;
///   constants evaluated, biases of integers among them: FP32 [C];
///   each pair of Q and DQ with a scale of its own, each layer with weights and a bias of its own, for each is learned by itself.
/// Errors: INVALID_ARGUMENT for a graph without a layer that reads weights behind DequantizeLinear, and one whose inputs or outputs are
/// not those of `fp32` by name, element type and shape; as RunNamedPasses and RaiseOpset.
absl::StatusOr<Graph> ReadStart(const Graph& qdq, const Graph& fp32,
                                std::span<const std::string> disabled_passes);

}  // namespace octet::train
