// Which graphs have independent rows, and how many of them run at a time.
#include "engine/plan/slicing.h"

#include <gtest/gtest.h>

#include "tests/support/graph_builder.h"
#include "tests/support/small_network.h"

namespace octet {
namespace slicing_test {

// The verdict on what `add` makes of an input [8, 4, 6, 6].
template <typename Add>
bool Independent(const Add& add) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {8, 4, 6, 6});
  b.Output(add(b, x));
  return RowsAreIndependent(b.Build(), 8);
}

TEST(RowsAreIndependent, InConvolutionalNetworks) {
  const Graph graph = Optimised(testing::SmallNetwork(8));
  EXPECT_TRUE(RowsAreIndependent(graph, 8)) << Dump(graph);
  EXPECT_FALSE(RowsAreIndependent(graph, 4)) << "there are 8";
}

TEST(RowsAreIndependent, InResidualSumsAndPerChannelFactors) {
  EXPECT_TRUE(Independent([](GraphBuilder& b, ValueId x) {
    const ValueId scaled = b.Op("Mul", {x, b.Random({1, 4, 1, 1})});
    return b.Op("Add", {b.Op("Add", {scaled, b.Random({6})}), x});
  }));
}

TEST(RowsAreIndependent, WhereAxesLeaveThemInFront) {
  const auto softmax = [](int64_t axis) {
    return Independent(
        [axis](GraphBuilder& b, ValueId x) { return b.Op("Softmax", {x}, {{"axis", axis}}); });
  };
  EXPECT_TRUE(softmax(1));
  EXPECT_TRUE(softmax(-1));
  EXPECT_FALSE(softmax(0));
  EXPECT_FALSE(softmax(-4));
  GraphBuilder b;
  b.Output(b.Op("Softmax", {b.Input("x", {8})}));
  EXPECT_FALSE(RowsAreIndependent(b.Build(), 8)) << "its last axis is the first";
  const auto transpose = [](Ints perm) {
    return Independent([&](GraphBuilder& into, ValueId x) {
      return into.Op("Transpose", {x}, {{"perm", std::move(perm)}});
    });
  };
  EXPECT_TRUE(transpose({0, 2, 3, 1}));
  EXPECT_FALSE(transpose({1, 0, 2, 3}));
}

TEST(RowsAreIndependent, UnlessANodeMixesThem) {
  EXPECT_FALSE(Independent([](GraphBuilder& b, ValueId x) {
    return b.Op("Add", {x, b.Random({8, 1, 1, 1})});
  })) << "a constant of rows";
  EXPECT_FALSE(Independent(
      [](GraphBuilder& b, ValueId x) { return b.Op("Concat", {x, x}, {{"axis", int64_t{0}}}); }));
  EXPECT_FALSE(Independent([](GraphBuilder& b, ValueId x) {
    const ValueId mean = b.Op("ReduceMean", {x}, {{"axes", Ints{0}}, {"keepdims", int64_t{1}}});
    return b.Op("Sub", {x, mean});
  })) << "the mean of all rows";
  EXPECT_FALSE(Independent([](GraphBuilder& b, ValueId x) {
    const ValueId one = b.Op("Reshape", {x, b.IntList({1, -1})});
    return b.Op("Reshape", {b.Op("Softmax", {one}), b.IntList({8, 144})});
  })) << "rows are one row in between";
  EXPECT_FALSE(Independent([](GraphBuilder& b, ValueId x) {
    const ValueId flat = b.Op("Reshape", {x, b.IntList({8, 144})});
    const ValueId turned = b.Op("Transpose", {flat}, {{"perm", Ints{1, 0}}});
    return b.Op("octet:MatMul", {flat, turned});
  })) << "every row times every row";
}

TEST(RowsAreIndependent, UnlessTheyAreAddedUp) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {8});
  b.Output(b.Op("octet:MatMul", {x, b.Random({8, 8})}));
  EXPECT_FALSE(RowsAreIndependent(b.Build(), 8));
}

TEST(RowsAreIndependent, UnlessShapesAreOpen) {
  EXPECT_FALSE(RowsAreIndependent(testing::SmallNetwork(kUnknownDim), kUnknownDim));
}

TEST(RowsAreIndependent, UnlessTheRangeOfAllRowsQuantizesThem) {
  Graph graph = Optimised(testing::SmallNetwork(8));
  for (const NodeId id : graph.order()) {
    if (graph.node(id).is("Conv"))
      graph.mutable_node(id).attributes.Set("dynamic_quant", int64_t{1});
  }
  EXPECT_FALSE(RowsAreIndependent(graph, 8));
}

// Three layers that read and write 4 kB per row each; their weights are 2.3 kB together.
int64_t Chosen(int64_t rows, size_t cache, int threads = 1, uint64_t max_bytes = 1 << 30) {
  GraphBuilder b;
  ValueId x = b.Input("x", {rows, 8, 8, 8});
  for (int i = 0; i < 3; ++i)
    x = b.Op("Conv", {x, b.Random({8, 8, 1, 3})}, {{"pads", Ints{0, 1, 0, 1}}});
  b.Output(x);
  return RowsPerSlice(b.Build(), rows,
                      {.threads = threads, .cache_bytes = cache, .max_bytes = max_bytes});
}

constexpr size_t kKilobyte = 1024;

TEST(RowsPerSlice, AreAsManyAsTheCacheHolds) {
  EXPECT_EQ(Chosen(8, 40 * kKilobyte), 8) << "all";
  EXPECT_EQ(Chosen(8, 17 * kKilobyte), 4);
  EXPECT_EQ(Chosen(8, 12 * kKilobyte), 2) << "a slice is a divisor of the rows";
  EXPECT_EQ(Chosen(7, 12 * kKilobyte), 1);
  EXPECT_EQ(Chosen(8, 3 * kKilobyte), 8) << "not even one row";
  EXPECT_EQ(Chosen(3, 5 * kKilobyte), 3) << "too few";
}

TEST(RowsPerSlice, LeaveWorkForEveryThread) {
  EXPECT_EQ(Chosen(8, 40 * kKilobyte, 2), 4) << "all fit, but threads need not meet";
  EXPECT_EQ(Chosen(16, 17 * kKilobyte, 2), 4);
  EXPECT_EQ(Chosen(8, 12 * kKilobyte, 3), 8) << "one thread would wait";
  EXPECT_EQ(Chosen(9, 5 * kKilobyte, 3), 1);
}

TEST(RowsPerSlice, AreAllWhereWeightsWouldBeReadTooOften) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {8, 256});
  b.Output(b.Op("octet:MatMul", {x, b.Random({256, 256})}));
  EXPECT_EQ(RowsPerSlice(b.Build(), 8,
                         {.threads = 1, .cache_bytes = 10 * kKilobyte, .max_bytes = 1 << 30}),
            8);
}

TEST(RowsPerSlice, AreAllWhereThePlanIsTooLargeAnyway) {
  EXPECT_EQ(Chosen(8, 12 * kKilobyte, 1, 10 * kKilobyte), 8);
}

}  // namespace slicing_test
}  // namespace octet
