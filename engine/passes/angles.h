// What Sin and Cos read, and what that is made of.
#pragma once

#include <vector>

#include "engine/graph/graph.h"

namespace octet {

/// Finds the values that angles are sums and products of, such as the frequencies of a rotary embedding and the positions that they are
/// multiplied by: with the 8 bits of BF16 the angle of position 1000 is another one by up to two radians. They are followed back from Sin
/// and Cos, up to products with more than 1024 constants: that is a layer, and what it makes is no more exact than any layer's results.
class Angles {
 public:
  explicit Angles(const Graph& graph);

  /// True for a constant of at most 1024 elements that angles are made of. Requires: the value was there at construction.
  bool IsFactor(const Graph& graph, ValueId id) const;
  /// True for a MatMul or octet:MatMul, no layer, that makes angles. Requires: as above, its result.
  bool AreMadeBy(const Graph& graph, const Node& product) const;

 private:
  std::vector<bool> angles_;  ///< By value.
};

}  // namespace octet
