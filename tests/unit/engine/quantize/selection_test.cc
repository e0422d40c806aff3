// Which values become integers.
#include "engine/quantize/selection.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {
namespace selection_test {

using testing::ElementsAre;
using testing::IsEmpty;

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

TEST(Selection, LeavesOneSideOfASumOfTwoConvolutions) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 6, 6});
  const ValueId earlier = b.Op("Conv", {x, b.Random({4, 3, 1, 1})});
  const ValueId later = b.Op("Conv", {x, b.Random({4, 3, 1, 1})});
  const ValueId sum = b.Op("Add", {later, earlier});
  b.Output(b.Op("Conv", {sum, b.Random({4, 4, 1, 1})}));
  EXPECT_THAT(SelectQuantized(b.Build()).quantized, ElementsAre(x, earlier, sum));
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

TEST(Selection, FindsNothingWithoutConstantWeights) {
  GraphBuilder b;
  b.Output(b.Op("MatMul", {b.Input("x", {2, 3}), b.Input("w", {3, 2})}));
  const Selection selection = SelectQuantized(b.Build());
  EXPECT_THAT(selection.weighted, IsEmpty());
  EXPECT_THAT(selection.quantized, IsEmpty());
}

}  // namespace selection_test
}  // namespace octet
