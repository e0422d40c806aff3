// Nodes read and write stored types themselves, and the answers stay.
#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"
#include "tests/unit/engine/passes/typed_graph.h"

namespace octet {
namespace absorb_converts_test {

using testing::IsTyped;
using testing::Typed;

TEST(AbsorbConverts, AddsIntegersWithOneRounding) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {2, 3}), 0.02F, 128);
  const ValueId y = b.FakeQuantize(b.Input("y", {2, 3}), 0.03F, 100);
  b.Output(b.Quantize(b.Op("Relu", {b.Op("Add", {x, y})}), 0.04F, 0), "z");
  const Graph after = Typed(b.Build());
  EXPECT_THAT(after, HasOps({"octet:Convert", "octet:Convert", "Add"}));
  EXPECT_TRUE(TheOnly(after, "Add").post_ops.empty());
  EXPECT_EQ(after.value(after.outputs[0]).name, "z");
}

TEST(AbsorbConverts, KeepsAnActivationThatStoringDoesNotImply) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {2, 3}), 0.02F, 128);
  const ValueId y = b.FakeQuantize(b.Input("y", {2, 3}), 0.03F, 100);
  b.Output(b.Quantize(b.Op("Relu", {b.Op("Add", {x, y})}), 0.04F, 50));
  EXPECT_EQ(TheOnly(Typed(b.Build()), "Add").post_ops.size(), 1U);
}

TEST(AbsorbConverts, DropsAClipToTheRangeOfTheStoredType) {
  const float scale =
      0.0235294122248888F;  // 6 / 255 as a model has it: 255 steps are a little more than 6.
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {1, 3, 4, 4}), 0.02F, 128);
  const ValueId c = b.Op("Conv", {x, b.QuantizedWeights({4, 3, 1, 1}, 0)});
  b.Output(b.Quantize(b.Op("Clip", {c, b.Scalar(0.0F), b.Scalar(6.0F)}), scale, 0));
  b.Output(b.Quantize(b.Op("Clip", {b.Op("Conv", {x, b.QuantizedWeights({4, 3, 1, 1}, 0)}),
                                    b.Scalar(0.0F), b.Scalar(5.0F)}),
                      scale, 0));
  const Graph after = Typed(b.Build());
  EXPECT_TRUE(after.node(after.producer(after.outputs[0])).post_ops.empty()) << Dump(after);
  EXPECT_EQ(after.node(after.producer(after.outputs[1])).post_ops.size(), 1U) << Dump(after);
}

TEST(AbsorbConverts, ConcatenatesValuesOfDifferentScales) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {1, 2, 3}), 0.02F, 0);
  const ValueId y = b.FakeQuantize(b.Input("y", {1, 4, 3}), 0.03F, 10);
  const ValueId both = b.Op("Concat", {x, y}, {{"axis", int64_t{1}}});
  const ValueId flat =
      b.Op("Reshape", {b.Op("Transpose", {both}, {{"perm", Ints{0, 2, 1}}}), b.IntList({1, -1})});
  b.Output(b.Quantize(flat, 0.03F, 0));
  EXPECT_THAT(Typed(b.Build()),
              HasOps({"octet:Convert", "octet:Convert", "Concat", "Transpose", "Reshape"}));
}

TEST(AbsorbConverts, MovesAndPadsIntegers) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {1, 2, 6, 6}), 0.02F, 50);
  const ValueId slice = b.Op(
      "Slice", {x, b.IntList({0, 0}), b.IntList({99, 99}), b.IntList({2, 3}), b.IntList({2, 2})});
  const ValueId padded = b.Op("Pad", {slice, b.IntList({0, 1, 0, 0, 0, 1, 0, 0})});
  b.Output(b.Quantize(padded, 0.02F, 50));
  const Graph after = Typed(b.Build());
  EXPECT_THAT(after, HasOps({"octet:Convert", "Slice", "Pad"}));
}

TEST(AbsorbConverts, LeavesAPadThatFillsWithSomethingElse) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {1, 6}), 0.02F, 50);
  b.Output(b.Op("Pad", {x, b.IntList({0, 1, 0, 1}), b.Scalar(0.0123F)}));
  EXPECT_THAT(Typed(b.Build()), HasOps({"octet:Convert", "octet:Convert", "Pad"}));
}

TEST(AbsorbConverts, AveragesIntegers) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {1, 3, 4, 4}), 0.02F, 0);
  const ValueId flat = b.Op("Flatten", {b.Op("GlobalAveragePool", {x})});
  b.Output(b.FakeQuantize(flat, 0.01F, 0));
  EXPECT_THAT(Typed(b.Build()),
              HasOps({"octet:Convert", "GlobalAveragePool", "Flatten", "octet:Convert"}));
}

TEST(AbsorbConverts, ResizesAndNormalisesIntegers) {
  for (const std::string mode : {"nearest", "linear"}) {
    SCOPED_TRACE(mode);
    GraphBuilder b;
    const ValueId x = b.Quantize(b.Input("x", {2, 4, 5, 5}), 0.02F, 120);
    const ValueId scales = b.Constant<float>({4}, {1, 1, 2, 2});
    const ValueId y =
        b.Op("Resize", {b.Dequantize(x, 0.02F, 120), kNone, scales}, {{"mode", mode}});
    const ValueId q = b.FakeQuantize(y, 0.02F, 120);
    b.Output(b.FakeQuantize(b.Op("InstanceNormalization", {q, b.Random({4}), b.Random({4})}), 0.03F,
                            128));
    const Graph graph = b.Build();
    const Graph after = AfterPasses({"import_qdq", "absorb_converts"}, graph);
    EXPECT_THAT(after,
                HasOps({"octet:Convert", "Resize", "InstanceNormalization", "octet:Convert"}));
    EXPECT_TRUE(SameAnswers(graph, after, {.atol = 0.031F}));
  }
}

TEST(AbsorbConverts, RequantizesOnceBetweenTwoScales) {
  GraphBuilder b;
  const ValueId q = b.Quantize(b.Input("x", {4}), 0.02F, 0);
  const ValueId again = b.Quantize(b.Dequantize(q, 0.02F, 0), 0.05F, 3);
  b.Output(b.Quantize(b.Dequantize(again, 0.05F, 3), 0.05F, 3));
  EXPECT_THAT(Typed(b.Build()), HasOps({"octet:Convert", "octet:Convert"}));
}

TEST(AbsorbConverts, KeepsAFloatReaderInFloat) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {1, 3, 4, 4}), 0.02F, 128);
  const ValueId c = b.Op("Conv", {x, b.QuantizedWeights({4, 3, 1, 1}, 0)});
  b.Output(c);
  b.Output(b.Quantize(c, 0.05F, 128));
  const Graph after = Typed(b.Build());
  EXPECT_EQ(after.value(TheOnly(after, "Conv").output(0)).dtype, DType::kF32);
}

TEST(AbsorbConverts, StoresWhatElementwiseOperatorsComputeFromReals) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 4, 4});
  const ValueId scaled = b.Op("Mul", {x, b.Random({3, 1, 1})});
  const ValueId y = b.Op("Relu", {b.Op("Add", {scaled, b.Random({3, 1, 1})})});
  b.Output(b.Op("Conv", {b.FakeQuantize(y, 0.02F, 0), b.QuantizedWeights({4, 3, 1, 1}, 0)}));
  const Graph after = Typed(b.Build());
  EXPECT_THAT(after, HasNo("octet:Convert")) << Dump(after);
  EXPECT_TRUE(IsTyped(after, TheOnly(after, "Conv").input(0), DType::kU8, 0.02F, 0));
}

TEST(AbsorbConverts, LeavesConvertsBehindWhatHasSeveralReadersOrOtherTypes) {
  GraphBuilder b;
  const ValueId y = b.Op("Relu", {b.Input("x", {2, 3})});
  b.Output(y);
  b.Output(b.Quantize(y, 0.02F, 0));
  const ValueId condition = b.Op("Less", {b.Input("a", {2, 3}), b.Input("b", {2, 3})});
  const ValueId chosen = b.Op("Where", {condition, b.Input("c", {2, 3}), b.Input("d", {2, 3})});
  b.Output(b.Quantize(chosen, 0.02F, 0));
  EXPECT_THAT(Typed(b.Build()), HasExactly(2, "octet:Convert"));
}

}  // namespace absorb_converts_test
}  // namespace octet
