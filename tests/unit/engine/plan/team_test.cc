// Which steps are long enough for several threads.
#include "engine/plan/team.h"

#include <gtest/gtest.h>

#include "tests/support/graph_builder.h"

namespace octet {
namespace team_test {

// The verdict on the last node of a graph with one input of this shape.
template <typename Add>
bool Verdict(Shape shape, const Add& add) {
  GraphBuilder b;
  const ValueId x = b.Input("x", std::move(shape));
  b.Output(add(b, x));
  const Graph graph = b.Build();
  return IsWorthATeam(graph, graph.node(graph.order().back()));
}

bool Pointwise(int64_t extent, int64_t channels) {
  return Verdict({1, channels, extent, extent}, [&](GraphBuilder& b, ValueId x) {
    return b.Op("Conv", {x, b.Random({channels, channels, 1, 1})});
  });
}

bool Depthwise(int64_t extent, int64_t channels) {
  return Verdict({1, channels, extent, extent}, [&](GraphBuilder& b, ValueId x) {
    return b.Op("Conv", {x, b.Random({channels, 1, 3, 3})},
                {{"group", channels}, {"pads", Ints{1, 1, 1, 1}}});
  });
}

bool Relu(int64_t elements) {
  return Verdict({elements}, [](GraphBuilder& b, ValueId x) { return b.Op("Relu", {x}); });
}

TEST(Team, IsForLayersThatOutlastItsMeeting) {
  EXPECT_FALSE(Pointwise(12, 64)) << "0.6 million multiply-adds";
  EXPECT_TRUE(Pointwise(24, 64)) << "2.4 million";
  EXPECT_FALSE(Depthwise(24, 32)) << "0.2 million, that count four times";
  EXPECT_TRUE(Depthwise(48, 32)) << "0.7 million";
  EXPECT_FALSE(Relu(8 << 10)) << "64 kB";
  EXPECT_TRUE(Relu(64 << 10)) << "512 kB";
}

}  // namespace team_test
}  // namespace octet
