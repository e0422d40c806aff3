// channels_last: convolutions, transposed ones too, run on [N, spatial..., C], which is what the fast kernels read without a reorder.
//
//   x:f32[N,C,H,W] -> Conv -> y:f32[N,OC,OH,OW]
//     =>  x -> Transpose {0,2,3,1} -> Conv {channels_last=1} -> Transpose {0,3,1,2} -> y
//
// Operands of post-ops alike; weights stay as they are. The element types do not matter. push_transposes cancels most
// of what this pass adds, and takes pools and elementwise operators along.
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

// Input slots of a Conv before its post-op operands: x, w, bias.
constexpr size_t kOwnInputs = 3;

bool ChannelsLastAt(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const int rank = RankOf(graph, node.input(0));
  if (rank < 3 || RankOf(graph, node.output(0)) != rank) return false;
  if (node.attributes.IntOr("channels_last", 0) != 0 || node.attributes.has("auto_pad"))
    return false;
  if (!InputTakesTranspose(graph, id, 0, rank)) return false;
  for (size_t slot = kOwnInputs; slot < node.inputs.size(); ++slot) {
    if (!InputTakesTranspose(graph, id, slot, rank)) return false;
  }
  const size_t slots = node.inputs.size();
  TransposeInput(graph, id, 0, ToChannelsLast(rank));
  for (size_t slot = kOwnInputs; slot < slots; ++slot)
    TransposeInput(graph, id, slot, ToChannelsLast(rank));
  TransposeOutput(graph, id, 0, ToChannelsFirst(rank));
  graph.mutable_node(id).attributes.Set("channels_last", int64_t{1});
  return true;
}

}  // namespace

absl::StatusOr<int> ChannelsLast(Graph& graph, const PassContext& /*context*/) {
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    if (IsConvolution(graph.node(id)) && ChannelsLastAt(graph, id)) ++count;
  }
  return count;
}

}  // namespace octet
