// Where a graph whose shapes follow from its data is cut, so that each piece has static shapes when it is its turn.
#pragma once

#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"

namespace octet {

/// Nodes that run together: first `segment`, an ordinary graph once the shapes of what it reads are known; then `host`,
/// one after the other, whose outputs' shapes the data decide, or that run sub-graphs, or that hold sequences or strings.
struct Stage {
  std::vector<NodeId> segment;
  std::vector<NodeId> host;
};

/// Cuts a graph into stages. Every node stands in the earliest stage that its inputs allow, so a segment is as long as it can
/// be:
///
///     Conv -> Relu -> ... -> boxes, scores     NonMaxSuppression     Gather -> Mul -> ...
///     `------------- segment 0 ------------'   `---- host 0 ----'    `--- segment 1 ---'
///
/// A node that asks for the elements of an input to know its shape (Reshape, Slice, Range, ...) stays in its segment when
/// these elements follow from shapes alone, since then they are constants when the segment is compiled; else it is a host
/// node.
/// Requires: InferShapes has run. The graph's declared shapes may be refined.
absl::StatusOr<std::vector<Stage>> CutIntoStages(Graph& graph);

/// True when the graph has a node that no segment takes, or strings come in or go out: it has no static plan.
absl::StatusOr<bool> NeedsStages(Graph& graph);

}  // namespace octet
