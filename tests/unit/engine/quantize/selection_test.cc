// Which values become integers.
#include "engine/quantize/selection.h"

#include <memory>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {
namespace selection_test {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(Selection, LeavesTheSumBetweenAConvolutionAndItsActivationAlone) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 6, 6});
  const ValueId c = b.Op("Conv", {x, b.Random({4, 3, 1, 1})});
  const ValueId relu = b.Op("Relu", {c});
  b.Output(b.Op("Conv", {relu, b.Random({4, 4, 1, 1})}));
  const Selection selection = SelectQuantized(b.Build());
  EXPECT_EQ(selection.weighted.size(), 2U);
  EXPECT_THAT(selection.quantized, ElementsAre(x, relu));
}

// A Loop need not say how often it goes round.
TEST(Selection, LooksPastAFirstInputThatIsLeftOut) {
  GraphBuilder body;
  body.Input("round", {}, DType::kI64);
  const ValueId on = body.Input("on", {}, DType::kBool);
  const ValueId value = body.Input("value", {1, 4, 6, 6});
  body.Output(body.Op("Identity", {on}));
  body.Output(body.Op("Relu", {value}));
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 6, 6});
  const ValueId c = b.Op("Conv", {x, b.Random({4, 3, 1, 1})});
  b.Output(b.Op("Loop", {kNone, b.Scalar(false), c},
                {{"body", std::make_shared<const Graph>(body.Build())}}));
  EXPECT_THAT(SelectQuantized(b.Build()).quantized, ElementsAre(x));
}

TEST(Selection, QuantizesAConvolutionThatAnotherReads) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 6, 6});
  const ValueId c = b.Op("Conv", {x, b.Random({4, 3, 1, 1})});
  const ValueId relu = b.Op("Relu", {c});
  const ValueId sum = b.Op("Add", {c, relu});
  b.Output(b.Op("Conv", {sum, b.Random({4, 4, 1, 1})}));
  EXPECT_THAT(SelectQuantized(b.Build()).quantized, ElementsAre(x, c, relu, sum));
}

TEST(Selection, LeavesTheSideOfASumThatItsConvolutionAdds) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 6, 6});
  const ValueId relu = b.Op("Relu", {b.Op("Conv", {x, b.Random({4, 3, 1, 1})})});
  const ValueId left = b.Op("Relu", {b.Op("Conv", {relu, b.Random({4, 4, 1, 1})})});
  const ValueId sum = b.Op("Add", {left, relu});
  b.Output(b.Op("Conv", {sum, b.Random({4, 4, 1, 1})}));
  EXPECT_THAT(SelectQuantized(b.Build()).quantized, ElementsAre(x, relu, sum));
}

struct TwoConvolutions {
  Graph graph;
  ValueId x, earlier, sum;
};

/// Their sum, which a third one reads.
TwoConvolutions MakeTwoConvolutions() {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 6, 6});
  const ValueId earlier = b.Op("Conv", {x, b.Random({4, 3, 1, 1})});
  const ValueId later = b.Op("Conv", {x, b.Random({4, 3, 1, 1})});
  const ValueId sum = b.Op("Add", {later, earlier});
  b.Output(b.Op("Conv", {sum, b.Random({4, 4, 1, 1})}));
  return {b.Build(), x, earlier, sum};
}

TEST(Selection, LeavesOneSideOfASumOfTwoConvolutions) {
  const TwoConvolutions two = MakeTwoConvolutions();
  EXPECT_THAT(SelectQuantized(two.graph).quantized, ElementsAre(two.x, two.earlier, two.sum));
}

TEST(Selection, QuantizesASideThatIsSpreadOverTheOther) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 6, 6});
  const ValueId wide = b.Op("Relu", {b.Op("Conv", {x, b.Random({4, 3, 1, 1})})});
  const ValueId mean = b.Op("GlobalAveragePool", {wide});
  const ValueId gate = b.Op("Conv", {mean, b.Random({4, 4, 1, 1})});
  const ValueId sum = b.Op("Add", {gate, wide});
  b.Output(b.Op("Conv", {sum, b.Random({4, 4, 1, 1})}));
  EXPECT_THAT(SelectQuantized(b.Build()).quantized, ElementsAre(x, wide, mean, gate, sum));
}

TEST(Selection, PassesRangesThroughDataMovement) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 6, 6});
  const ValueId c = b.Op("Relu", {b.Op("Conv", {x, b.Random({4, 3, 1, 1})})});
  const ValueId pooled = b.Op("MaxPool", {c}, {{"kernel_shape", Ints{2, 2}}});
  const ValueId flat = b.Op("Flatten", {pooled});
  b.Output(b.Op("Gemm", {flat, b.Random({100, 2}), b.Random({2})}));
  const Selection selection = SelectQuantized(b.Build());
  EXPECT_THAT(selection.quantized, ElementsAre(x, c, pooled, flat));
  EXPECT_EQ(selection.range_from.at(pooled), c);
  EXPECT_EQ(selection.range_from.at(flat), pooled);
}

TEST(Selection, StopsWhereNobodyComputesInIntegers) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 8});
  const ValueId y = b.Op("MatMul", {x, b.Random({8, 4})});
  b.Output(b.Op("Softmax", {b.Op("Reshape", {y, b.IntList({1, 4})})}));
  EXPECT_THAT(SelectQuantized(b.Build()).quantized, ElementsAre(x));
}

TEST(Selection, KeepsASumWithAFloatBranchInFloat) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 8});
  const ValueId y = b.Op("MatMul", {x, b.Random({8, 8})});
  const ValueId e = b.Op("Exp", {x});
  const ValueId sum = b.Op("Add", {y, e});
  b.Output(b.Op("MatMul", {sum, b.Random({8, 2})}));
  EXPECT_THAT(SelectQuantized(b.Build()).quantized, ElementsAre(x, sum));
}

TEST(Selection, QuantizesBothSidesOfAProduct) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 8});
  const ValueId scores = b.Op("Softmax", {b.Op("MatMul", {x, b.Random({8, 3})})});
  const ValueId values = b.Op("MatMul", {b.Op("Transpose", {x}), b.Random({2, 4})});
  const ValueId product =
      b.Op("MatMul", {scores, b.Op("Slice", {values, b.IntList({0}), b.IntList({3})})});
  b.Output(product);
  const Graph graph = b.Build();
  const Selection selection = SelectQuantized(graph);
  EXPECT_THAT(selection.products, ElementsAre(graph.producer(product)));
  EXPECT_THAT(selection.quantized, Contains(scores));
  EXPECT_THAT(selection.quantized, Contains(values)) << "the slice moves integers";
}

// What is kept in float makes reals, so that what reads them no longer passes integers on.
TEST(Selection, LeavesAloneWhatIsKeptInFloat) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 8});
  const ValueId y = b.Op("Relu", {b.Op("MatMul", {x, b.Random({8, 8})})});
  const ValueId z = b.Op("Relu", {b.Op("MatMul", {y, b.Random({8, 8})})});
  const ValueId sum = b.Op("Add", {y, z});
  const ValueId last = b.Op("MatMul", {sum, b.Random({8, 2})});
  b.Output(last);
  const Graph graph = b.Build();
  const NodeId second = graph.producer(graph.node(graph.producer(z)).inputs[0]);
  const NodeId add = graph.producer(sum);
  EXPECT_THAT(SelectQuantized(graph).quantized, ElementsAre(x, y, sum));
  EXPECT_FALSE(SelectQuantized(graph).ReadsReals(graph, y, add));
  const Selection without = SelectQuantized(graph, {second});
  EXPECT_THAT(without.quantized, ElementsAre(x, sum));
  EXPECT_THAT(without.weighted, SizeIs(2));
  EXPECT_FALSE(without.integers.contains(add));
  EXPECT_FALSE(without.ReadsReals(graph, sum, graph.producer(last)));
}

// A value that float computes is there as reals: a float node that reads it, too, has no reason to take the rounded ones.
TEST(Selection, LetsFloatReadTheRealsOfFloat) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 8});
  const ValueId normal = b.Op("Softmax", {x});
  const ValueId branch = b.Op("Exp", {b.Op("MatMul", {normal, b.Random({8, 8})})});
  const ValueId sum = b.Op("Add", {normal, branch});
  b.Output(sum);
  const Graph graph = b.Build();
  const Selection selection = SelectQuantized(graph);
  EXPECT_THAT(selection.quantized, ElementsAre(normal));
  EXPECT_TRUE(selection.ReadsReals(graph, normal, graph.producer(sum)));
}

// A sum that a convolution adds itself, and the activation behind it, exist as its integers alone.
TEST(Selection, LetsFloatReadTheIntegersOfAConvolutionThatAdds) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 4, 6, 6});
  const ValueId c = b.Op("Conv", {x, b.Random({4, 4, 1, 1})});
  const ValueId relu = b.Op("Relu", {b.Op("Add", {c, b.Op("Exp", {x})})});
  const ValueId again = b.Op("Conv", {relu, b.Random({4, 4, 1, 1})});
  const ValueId reader = b.Op("Exp", {relu});
  b.Output(b.Op("Mul", {again, reader}));
  const Graph graph = b.Build();
  const Selection selection = SelectQuantized(graph);
  EXPECT_THAT(selection.quantized, ElementsAre(x, relu));
  EXPECT_FALSE(selection.ReadsReals(graph, relu, graph.producer(reader)));
}

Selection FewerOf(const Graph& graph) { return SelectQuantized(graph, {}, true); }

// What a block adds is real before it is rounded: the convolution that follows reads integers, the sum behind it does not.
TEST(Selection, AddsTheRealsOfALayerOrASum) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 6, 6});
  const auto conv = [&](ValueId from, int64_t channels) {
    return b.Op("Conv", {from, b.Random({4, channels, 1, 1})});
  };
  const ValueId stem = b.Op("Relu", {conv(x, 3)});
  const ValueId first = b.Op("Relu", {b.Op("Add", {conv(stem, 4), stem})});
  const ValueId second = b.Op("Add", {first, conv(first, 4)});
  const ValueId last = conv(second, 4);
  b.Output(last);
  const Graph graph = b.Build();
  const Selection selection = FewerOf(graph);
  EXPECT_THAT(selection.quantized, ElementsAre(x, stem, first, second));
  for (const auto& [added, reader] : {std::pair(stem, first), std::pair(first, second)}) {
    NodeId sum = graph.producer(reader);
    if (graph.node(sum).is("Relu")) sum = graph.producer(graph.node(sum).inputs[0]);
    EXPECT_TRUE(selection.ReadsReals(graph, added, sum));
    EXPECT_FALSE(SelectQuantized(graph).ReadsReals(graph, added, sum));
    for (const NodeId other : graph.consumers(added)) {
      EXPECT_EQ(selection.ReadsReals(graph, added, other), other == sum);
    }
  }
  EXPECT_FALSE(selection.ReadsReals(graph, second, graph.producer(last)));
}

TEST(Selection, DoesNotRoundWhatIsAddedAsRealsAlone) {
  const TwoConvolutions two = MakeTwoConvolutions();
  EXPECT_THAT(FewerOf(two.graph).quantized, ElementsAre(two.x, two.sum));
}

// Bytes are moved where bytes are there.
TEST(Selection, AddsTheIntegersOfWhatOnlyMovesThem) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 4, 6, 6});
  const ValueId stem = b.Op("Relu", {b.Op("Conv", {x, b.Random({4, 4, 1, 1})})});
  const ValueId pooled = b.Op("MaxPool", {stem}, {{"kernel_shape", Ints{2, 2}}});
  const ValueId sum = b.Op("Add", {b.Op("Conv", {pooled, b.Random({4, 4, 1, 1})}), pooled});
  b.Output(b.Op("Conv", {sum, b.Random({4, 4, 1, 1})}));
  const Graph graph = b.Build();
  EXPECT_EQ(FewerOf(graph).quantized, SelectQuantized(graph).quantized);
  EXPECT_FALSE(FewerOf(graph).ReadsReals(graph, pooled, graph.producer(sum)));
}

// `heads`: products of 64 by 9, in a model with another 60,000 weights and 576 that are followed by a layer.
TEST(Selection, LeavesSmallLastProductsInFloat) {
  for (const int heads : {1, 2}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {1, 9});
    const ValueId wide = b.Op("Relu", {b.Op("MatMul", {x, b.Random({9, 64})})});
    const ValueId inner = b.Op("Relu", {b.Op("MatMul", {wide, b.Random({64, 938})})});
    const ValueId last = b.Op("Softmax", {inner});
    const ValueId read = b.Op("Slice", {last, b.IntList({0}), b.IntList({64}), b.IntList({1})});
    for (int i = 0; i < heads; ++i) b.Output(b.Op("MatMul", {read, b.Random({64, 9})}));
    const Graph graph = b.Build();
    const Selection selection = FewerOf(graph);
    if (heads == 1) {
      EXPECT_THAT(selection.quantized, ElementsAre(x, wide));
      EXPECT_THAT(selection.kept_float, ElementsAre(graph.producer(graph.outputs[0])));
      EXPECT_THAT(selection.weighted, SizeIs(2));
    } else {
      EXPECT_THAT(selection.kept_float, IsEmpty()) << "together they have more than a hundredth";
    }
    EXPECT_THAT(SelectQuantized(graph).kept_float, IsEmpty());
  }
}

TEST(Selection, FindsNothingWithoutProducts) {
  GraphBuilder b;
  b.Output(b.Op("Add", {b.Input("x", {2, 3}), b.Input("w", {2, 3})}));
  const Selection selection = SelectQuantized(b.Build());
  EXPECT_THAT(selection.weighted, IsEmpty());
  EXPECT_THAT(selection.quantized, IsEmpty());
}

}  // namespace selection_test
}  // namespace octet
