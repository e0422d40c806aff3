#include "engine/plan/buffer_map.h"

#include <gtest/gtest.h>

#include "tests/support/graph_builder.h"

namespace octet {
namespace buffer_map_test {

using Kind = Location::Kind;

std::vector<bool> NoViews(const Graph& graph) { return std::vector<bool>(graph.order().size()); }

TEST(BufferMapTest, PutsInputsOutputsAndConstantsWhereTheirOwnersKeepThem) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3});
  const ValueId c = b.Random({2, 3});
  const ValueId sum = b.Op("Add", {x, c});
  const ValueId y = b.Op("Relu", {sum});
  b.Output(y);
  const Graph graph = b.Build();
  BufferMap map(graph, NoViews(graph));
  EXPECT_EQ(map.location(x), (Location{Kind::kInput, 0}));
  EXPECT_EQ(map.location(c), (Location{Kind::kConstant, c}));
  EXPECT_EQ(map.location(sum).kind, Kind::kArena);
  EXPECT_EQ(map.location(y), (Location{Kind::kOutput, 0}));
  const auto buffers = map.TakeArenaBuffers();
  ASSERT_EQ(buffers.size(), 1u);
  EXPECT_EQ(buffers[0].bytes, 24u);
  EXPECT_EQ(buffers[0].first, 0);
  EXPECT_EQ(buffers[0].last, 1);
  EXPECT_TRUE(map.OutputCopies().empty());
}

TEST(BufferMapTest, LetsAStepOverwriteOnlyWhatNobodyReadsLater) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {4});
  const ValueId a = b.Op("Relu", {x});
  const ValueId early = b.Op("Sigmoid", {a});       // 1: a is read again at 2
  const ValueId late = b.Op("Tanh", {a});           // 2: the last reader
  const ValueId twice = b.Op("Mul", {late, late});  // 3: through two slots
  const ValueId sum = b.Op("Add", {early, twice});  // 4
  b.Output(b.Op("Relu", {sum}));                    // 5: writes the caller's memory
  const Graph graph = b.Build();
  BufferMap map(graph, NoViews(graph));
  EXPECT_FALSE(map.MayOverwrite(0, 0)) << "the caller's input";
  EXPECT_FALSE(map.MayOverwrite(1, 0));
  EXPECT_TRUE(map.MayOverwrite(2, 0));
  EXPECT_FALSE(map.MayOverwrite(3, 0));
  EXPECT_TRUE(map.MayOverwrite(4, 0));
  EXPECT_TRUE(map.MayOverwrite(4, 1));
  EXPECT_FALSE(map.MayOverwrite(5, 0)) << "the caller's output";
}

TEST(BufferMapTest, KeepsAnOverwrittenBufferAsLongAsItsLastValue) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {4});
  const ValueId a = b.Op("Relu", {x});
  const ValueId s = b.Op("Sigmoid", {a});
  const ValueId other = b.Op("Tanh", {x});
  b.Output(b.Op("Add", {s, other}));
  const Graph graph = b.Build();
  BufferMap map(graph, NoViews(graph));
  ASSERT_TRUE(map.MayOverwrite(1, 0));
  map.Overwrite(1, 0);
  const auto buffers = map.TakeArenaBuffers();
  ASSERT_EQ(buffers.size(), 2u);
  EXPECT_EQ(map.location(a), map.location(s));
  const auto& shared = buffers[static_cast<size_t>(map.location(s).index)];
  EXPECT_EQ(shared.first, 0);
  EXPECT_EQ(shared.last, 3);
}

TEST(BufferMapTest, SeesThroughViews) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 2});
  const ValueId a = b.Op("Relu", {x});
  const ValueId flat = b.Op("Flatten", {a});
  const ValueId s = b.Op("Sigmoid", {a});
  b.Output(b.Op("Add", {s, flat}));
  const Graph graph = b.Build();
  std::vector<bool> views = NoViews(graph);
  views[1] = true;
  BufferMap map(graph, views);
  EXPECT_EQ(map.location(flat), map.location(a));
  EXPECT_FALSE(map.MayOverwrite(2, 0)) << "the view is read later";
}

TEST(BufferMapTest, CopiesOutputsThatLieElsewhere) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {3});
  const ValueId y = b.Op("Relu", {x});
  b.Output(y, "first");
  Graph graph = b.Build();
  graph.outputs = {y, x, y};
  BufferMap map(graph, NoViews(graph));
  map.TakeArenaBuffers();
  const auto copies = map.OutputCopies();
  ASSERT_EQ(copies.size(), 2u);
  EXPECT_EQ(copies[0].output, 1);
  EXPECT_EQ(copies[0].from, (Location{Kind::kInput, 0}));
  EXPECT_EQ(copies[0].bytes, 12u);
}

}  // namespace buffer_map_test
}  // namespace octet
