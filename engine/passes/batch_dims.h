// Which values share an unknown extent 0, so that "[?,64] and [?,64]" can be known to be equal before a plan is made.
#pragma once

#include <vector>

#include "engine/graph/graph.h"

namespace octet {

/// Follows extent 0 through the operators that hand it on. Computed once per pass, O(nodes).
class BatchDims {
 public:
  explicit BatchDims(const Graph& graph);

  /// True when both shapes have one rank, and every extent is known and equal, or is extent 0 handed down from one
  /// origin.
  bool SameShape(const Graph& graph, ValueId a, ValueId b) const;

 private:
  std::vector<ValueId> origin_;  ///< Per value: where its extent 0 comes from.
};

}  // namespace octet
