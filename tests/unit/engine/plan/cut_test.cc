// Where graphs whose shapes follow from their data are cut into stages.
#include "engine/plan/cut.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "tests/support/graph_builder.h"
#include "tests/support/strings.h"

namespace octet {
namespace cut_test {

using octet::testing::AnswerOf;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::Pointwise;

// A layer takes them as integers only there.
TEST(CutTest, WeightsAreInTheSegmentsThatReadThem) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3});
  const ValueId weights = b.QuantizedWeights({3, 3}, 1);
  const ValueId early = b.Op("MatMul", {x, weights});
  const ValueId found = b.Op("NonZero", {early});
  const ValueId places =
      b.Op("Cast", {b.Op("Transpose", {found}, {{"perm", Ints{1, 0}}})}, {{"to", int64_t{1}}});
  const ValueId late = b.QuantizedWeights({2, 3}, 1);
  b.Output(b.Op("MatMul", {b.Op("MatMul", {places, late}), weights}));
  Graph graph = b.Build();
  const auto stages = CutIntoStages(graph);
  ASSERT_TRUE(stages.ok()) << stages.status();
  ASSERT_EQ(stages->size(), 2U);
  const auto has = [&](size_t stage, ValueId value) {
    return std::ranges::contains((*stages)[stage].segment, graph.producer(value));
  };
  EXPECT_TRUE(has(0, weights) && has(1, weights) && has(1, late));
  EXPECT_FALSE(has(0, late));
  const auto answer = AnswerOf(graph, {Tensor::From<float>(Shape{2, 3}, {1, 0, 2, 0, 3, 0})});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ((*answer)[0].tensor.shape()[1], 3);
}

// They are packed before the graph is cut, not made reals of.
TEST(CutTest, WeightsInBlocksOfFourBitsStaySo) {
  GraphBuilder b(21);
  const ValueId x = b.Input("x", {kUnknownDim, 32});
  const ValueId weights =
      b.Op("DequantizeLinear", {b.RandomInts(DType::kI8, {32, 6}, -8, 7), b.Random({2, 6})},
           {{"axis", int64_t{0}}, {"block_size", int64_t{16}}});
  const ValueId y = b.Op("Relu", {b.Op("MatMul", {x, weights})});
  b.Output(y);
  b.Output(b.Op("NonZero", {y}));
  const Graph graph = b.Build();
  const auto model = Model::FromGraph(graph, {});
  ASSERT_TRUE(model.ok()) << model.status();
  const auto plan = (*model)->PlanFor(std::vector<Shape>{Shape{2, 32}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const std::vector<LayerRecord>& layers = (*plan)->certificate().layers;
  EXPECT_EQ(std::ranges::count(layers, "octet:FourBitMatMul", &LayerRecord::op), 1);
  EXPECT_EQ(std::ranges::count(layers, "octet:host", &LayerRecord::impl), 1) << "it was cut";
  const std::vector<Tensor> inputs = RandomInputs(WithUnknownExtents(graph, 2));
  LoadOptions in_reals;
  in_reals.disabled_passes = {"pack_four_bits"};
  const auto packed = AnswerOf(graph, inputs);
  const auto reals = AnswerOf(graph, inputs, in_reals);
  ASSERT_TRUE(packed.ok() && reals.ok()) << packed.status() << reals.status();
  EXPECT_THAT((*packed)[0].tensor.span<float>(),
              Pointwise(FloatNear(1e-4F), (*reals)[0].tensor.span<float>()));
}

TEST(CutTest, ANodeWaitsForNoMoreThanItsInputs) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3});
  const ValueId y = b.Input("y", {2, 3});
  const ValueId relu = b.Op("Relu", {x});
  const ValueId found = b.Op("NonZero", {relu});
  const ValueId rows = b.Op("Transpose", {found});
  const ValueId late = b.Op("Sigmoid", {y});
  b.Output(b.Op("GatherND", {late, rows}));
  Graph graph = b.Build();
  const auto stages = CutIntoStages(graph);
  ASSERT_TRUE(stages.ok()) << stages.status();
  ASSERT_EQ(stages->size(), 2);
  const auto ops = [&](const std::vector<NodeId>& nodes) {
    std::vector<std::string> names;
    for (const NodeId id : nodes) names.push_back(graph.node(id).op);
    return names;
  };
  EXPECT_THAT(ops((*stages)[0].segment), ElementsAre("Relu", "Sigmoid"));
  EXPECT_THAT(ops((*stages)[0].host), ElementsAre("NonZero"));
  EXPECT_THAT(ops((*stages)[1].segment), ElementsAre("Transpose", "GatherND"));
  EXPECT_THAT(ops((*stages)[1].host), ElementsAre());
}

TEST(CutTest, AShapeThatFollowsFromShapesCutsNothing) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 4});
  const ValueId rows = b.Op("Gather", {b.Op("Shape", {x}), b.IntList({0})});
  const ValueId target = b.Op("Concat", {rows, b.IntList({12})}, {{"axis", int64_t{0}}});
  b.Output(b.Op("Reshape", {x, target}));
  Graph graph = b.Build();
  const auto needed = NeedsStages(graph);
  ASSERT_TRUE(needed.ok()) << needed.status();
  EXPECT_FALSE(*needed);
}

TEST(CutTest, AShapeThatFollowsFromDataIsAHostNodes) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 6});
  const ValueId shape = b.Input("shape", {2}, DType::kI64);
  b.Output(b.Op("Relu", {b.Op("Reshape", {b.Op("Abs", {x}), shape})}));
  Graph graph = b.Build();
  const auto stages = CutIntoStages(graph);
  ASSERT_TRUE(stages.ok()) << stages.status();
  ASSERT_EQ(stages->size(), 2);
  EXPECT_EQ(graph.node((*stages)[0].host.front()).op, "Reshape");
}

}  // namespace cut_test
}  // namespace octet
