// The passes themselves, one per file of the same name; pass_list.cc gives their order and their names.
#pragma once

#include "absl/status/statusor.h"

#include "engine/passes/pass.h"

namespace octet {

// What the file says, in fewer words.
absl::StatusOr<int> RaiseOldOpsets(Graph& graph, const PassContext& context);
absl::StatusOr<int> ExpandFunctions(Graph& graph, const PassContext& context);
absl::StatusOr<int> FoldConstants(Graph& graph, const PassContext& context);
absl::StatusOr<int> InlineIf(Graph& graph, const PassContext& context);
absl::StatusOr<int> RemoveNoOps(Graph& graph, const PassContext& context);
absl::StatusOr<int> ImportQLinear(Graph& graph, const PassContext& context);
absl::StatusOr<int> ExplicitPads(Graph& graph, const PassContext& context);
absl::StatusOr<int> CanonicalMatMul(Graph& graph, const PassContext& context);
absl::StatusOr<int> CanonicalConvTranspose(Graph& graph, const PassContext& context);
absl::StatusOr<int> ImportDynamicQuant(Graph& graph, const PassContext& context);
absl::StatusOr<int> SumToAdd(Graph& graph, const PassContext& context);
absl::StatusOr<int> SpatialMean(Graph& graph, const PassContext& context);

// Constants into constants.
absl::StatusOr<int> FoldPad(Graph& graph, const PassContext& context);
absl::StatusOr<int> FoldBatchNorm(Graph& graph, const PassContext& context);
absl::StatusOr<int> FoldAffine(Graph& graph, const PassContext& context);
absl::StatusOr<int> FoldScale(Graph& graph, const PassContext& context);

// Several nodes into one.
absl::StatusOr<int> FuseLayerNorm(Graph& graph, const PassContext& context);
absl::StatusOr<int> FuseGelu(Graph& graph, const PassContext& context);
absl::StatusOr<int> FuseHardSwish(Graph& graph, const PassContext& context);
absl::StatusOr<int> FuseSwish(Graph& graph, const PassContext& context);
absl::StatusOr<int> FuseBias(Graph& graph, const PassContext& context);
absl::StatusOr<int> FuseActivation(Graph& graph, const PassContext& context);
absl::StatusOr<int> FuseResidual(Graph& graph, const PassContext& context);
absl::StatusOr<int> FuseConcat(Graph& graph, const PassContext& context);

// Stored element types.
absl::StatusOr<int> WidenReals(Graph& graph, const PassContext& context);
absl::StatusOr<int> ImportQdq(Graph& graph, const PassContext& context);
absl::StatusOr<int> PackFourBits(Graph& graph, const PassContext& context);
absl::StatusOr<int> Tabulate(Graph& graph, const PassContext& context);
absl::StatusOr<int> LowerBf16(Graph& graph, const PassContext& context);
absl::StatusOr<int> AbsorbConverts(Graph& graph, const PassContext& context);
absl::StatusOr<int> SplitZeroPoints(Graph& graph, const PassContext& context);

// Layout.
absl::StatusOr<int> ChannelsLast(Graph& graph, const PassContext& context);
absl::StatusOr<int> FoldStride(Graph& graph, const PassContext& context);
absl::StatusOr<int> PushTransposes(Graph& graph, const PassContext& context);

}  // namespace octet
