// Graphs whose integers have become typed values.
#pragma once

#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet::testing {

inline const std::vector<std::string_view> kToTyped = {
    "fold_constants", "import_qlinear",  "canonical_matmul", "fuse_activation",
    "import_qdq",     "absorb_converts", "split_zero_points"};

// One step of the last quantization: sums in another order may fall on the other side of a tie.
inline constexpr Tolerance kOneStep{.rtol = 0, .atol = 0.0501F, .steps = 1};

/// `graph` after these passes: it answers as before, and a second run finds nothing to do.
inline Graph Typed(const Graph& graph, const Tolerance& tolerance = kOneStep) {
  Graph after = AfterPasses(kToTyped, graph);
  EXPECT_TRUE(SameAnswers(graph, after, tolerance));
  EXPECT_EQ(Dump(AfterPasses(kToTyped, after)), Dump(after)) << "a second run changes something";
  return after;
}

inline bool IsTyped(const Graph& graph, ValueId id, DType dtype, float scale, int zero_point) {
  const Value& value = graph.value(id);
  return value.dtype == dtype && value.quant == QuantParams::PerTensor(scale, zero_point);
}

}  // namespace octet::testing
