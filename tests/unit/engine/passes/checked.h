#pragma once

#include <string_view>

#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {

/// Runs a pass on the graph, and holds its answers against the graph's own.
inline Graph AfterPassChecked(std::string_view pass, const Graph& graph,
                              const Tolerance& tolerance = {}) {
  Graph after = AfterPass(pass, graph);
  EXPECT_TRUE(SameAnswers(graph, after, tolerance)) << pass;
  EXPECT_EQ(OpNames(AfterPass(pass, after)), OpNames(after))
      << pass << " finds something in its own result";
  return after;
}

}  // namespace octet
