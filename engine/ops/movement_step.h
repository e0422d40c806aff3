// The production form of data movement: the family's own kernel on stored bytes, without the wrapper
// that widens typed values.
#pragma once

#include <memory>

#include "absl/status/statusor.h"

#include "engine/ops/op.h"
#include "engine/ops/strided_copy.h"

namespace octet {

/// What the data-movement operators have in common.
inline constexpr OpTraits kMovement = {.data_movement = true, .strings = true};

/// A Step that runs the node's kernel on the stored elements; layer.impl "octet:copy", runs "none".
/// UNIMPLEMENTED when input 0 and an output differ in stored type or quantization (the move would change
/// the reals that the integers stand for), or when the node has post-ops.
absl::StatusOr<std::unique_ptr<Step>> LowerMovement(const LowerContext& context);

/// A kernel that copies input 0 to output 0.
Kernel CopyKernel(StridedCopy copy);

/// A kernel as a Step: it reads all inputs, constants included, where StepArgs point.
std::unique_ptr<Step> MakeKernelStep(Kernel kernel, const LowerContext& context);

/// The KernelContext's inputs for a node: constants with elements, the others with their spec alone.
std::vector<ConstTensorView> KernelInputs(const Graph& graph, const Node& node);
std::vector<TensorSpec> KernelOutputs(const Graph& graph, const Node& node);

}  // namespace octet
