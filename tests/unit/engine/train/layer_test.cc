// Every operator without weights: values against its reference kernel, gradients against differences.
#include "engine/train/layer.h"

#include "engine/tensor/status.h"
#include "tests/support/gradient_check.h"

namespace octet {
namespace layer_test {

using testing::LayerUnderTest;

void Check(GraphBuilder& b, ValueId y) {
  b.Output(y);
  LayerUnderTest under_test(b.Build());
  auto layer = train::MakeLayer(under_test.context());
  ASSERT_TRUE(layer.ok()) << layer.status();
  under_test.ExpectReference(**layer);
  under_test.ExpectDifferences(**layer);
}

void CheckUnary(std::string_view op, GraphBuilder::Attrs attributes = {},
                Shape shape = {2, 3, 4, 4}) {
  SCOPED_TRACE(op);
  GraphBuilder b;
  const ValueId x = b.Input("x", std::move(shape));
  Check(b, b.Op(op, {x}, std::move(attributes)));
}

TEST(Layer, ActivationFunctions) {
  CheckUnary("Relu");
  CheckUnary("LeakyRelu", {{"alpha", 0.1F}});
  CheckUnary("Sigmoid");
  CheckUnary("Tanh", {}, {3, 5});
  CheckUnary("HardSigmoid", {{"alpha", 0.25F}});
  GraphBuilder swish(14);
  const ValueId x = swish.Input("x", {2, 40});
  Check(swish, swish.Op("HardSwish", {x}));
}

TEST(Layer, FrozenNormalization) {
  for (const Shape& shape : {Shape{2, 3, 5, 4}, Shape{4, 3, 5}, Shape{6, 3}}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", shape);
    Check(b, b.Op("BatchNormalization",
                  {x, b.Random({3}, 0.5F, 1.5F), b.Random({3}), b.Random({3}),
                   b.Random({3}, 0.2F, 2.0F)},
                  {{"epsilon", 0.01F}}));
  }
}

TEST(Layer, Clips) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 5, 4});
  Check(b, b.Op("Clip", {x, b.Scalar(0.0F), b.Scalar(1.5F)}));
  GraphBuilder below;
  const ValueId z = below.Input("x", {7, 4});
  Check(below, below.Op("Clip", {z, kNone, below.Scalar(0.5F)}));
}

TEST(Layer, Pools) {
  CheckUnary("MaxPool",
             {{"kernel_shape", Ints{2, 3}}, {"strides", Ints{2, 1}}, {"pads", Ints{1, 0, 0, 1}}},
             {2, 3, 5, 6});
  CheckUnary("MaxPool", {{"kernel_shape", Ints{3}}}, {2, 3, 8});
  CheckUnary("AveragePool", {{"kernel_shape", Ints{3, 3}}, {"pads", Ints{1, 1, 1, 1}}},
             {2, 3, 5, 6});
  CheckUnary(
      "AveragePool",
      {{"kernel_shape", Ints{3, 3}}, {"pads", Ints{1, 1, 1, 1}}, {"count_include_pad", int64_t{1}}},
      {2, 3, 5, 6});
  CheckUnary("GlobalAveragePool");
  CheckUnary("GlobalMaxPool");
}

TEST(Layer, MeansOfPlanes) {
  CheckUnary("ReduceMean", {{"axes", Ints{2, 3}}});
  CheckUnary("ReduceMean", {{"axes", Ints{-1, -2}}, {"keepdims", int64_t{0}}});
}

TEST(Layer, MovesData) {
  CheckUnary("Flatten", {{"axis", int64_t{1}}});
  CheckUnary("Transpose", {{"perm", Ints{0, 2, 3, 1}}});
  GraphBuilder reshape;
  const ValueId x = reshape.Input("x", {2, 3, 4, 4});
  Check(reshape, reshape.Op("Reshape", {x, reshape.IntList({2, 4, 12})}));
  GraphBuilder slice;
  const ValueId y = slice.Input("x", {2, 3, 8, 6});
  Check(slice, slice.Op("Slice", {y, slice.IntList({0, 1}), slice.IntList({8, 6}),
                                  slice.IntList({2, 3}), slice.IntList({2, 2})}));
}

TEST(Layer, PadsWithZeros) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 4, 4});
  Check(b, b.Op("Pad", {x, b.IntList({0, 1, 0, 2, 0, 2, 0, 0}), b.Scalar(0.0F)}));
}

TEST(Layer, ConcatenatesChannels) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 4, 4});
  const ValueId y = b.Input("y", {2, 2, 4, 4});
  Check(b, b.Op("Concat", {x, y}, {{"axis", int64_t{1}}}));
}

TEST(Layer, SumsAndProducts) {
  for (const char* op : {"Add", "Sub", "Mul"}) {
    SCOPED_TRACE(op);
    GraphBuilder same;
    const ValueId x = same.Input("x", {2, 3, 4, 4});
    Check(same, same.Op(op, {x, same.Input("y", {2, 3, 4, 4})}));
    GraphBuilder broadcast;
    const ValueId z = broadcast.Input("x", {2, 3, 4, 4});
    Check(broadcast, broadcast.Op(op, {z, broadcast.Input("y", {3, 1, 1})}));
    GraphBuilder constant;
    const ValueId w = constant.Input("x", {4, 5});
    Check(constant, constant.Op(op, {w, constant.Random({5})}));
  }
}

TEST(Layer, GradientsOfSeveralReadersAddUp) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4});
  b.Output(b.Op("Add", {x, b.Input("y", {2, 4})}));
  LayerUnderTest under_test(b.Build());
  train::Activation& y = under_test.input(1);
  train::Activation* both[] = {&y, &y};
  const Graph graph = b.Build();
  const Node& node = graph.node(graph.order()[0]);
  auto layer = train::MakeLayer({graph, node, both, under_test.output()});
  ASSERT_TRUE(layer.ok()) << layer.status();
  ASSERT_TRUE((*layer)->Forward().ok());
  under_test.RunBackward(**layer);
  for (int64_t i = 0; i < y.size(); ++i)
    EXPECT_FLOAT_EQ(y.gradient()[i], 2 * under_test.output().gradient()[i]);
}

std::string RefusalOf(GraphBuilder& b, ValueId y) {
  b.Output(y);
  LayerUnderTest under_test(b.Build());
  const auto layer = train::MakeLayer(under_test.context());
  EXPECT_EQ(layer.status().code(), absl::StatusCode::kUnimplemented);
  return std::string(Message(layer.status()));
}

TEST(Layer, NamesWhatItDoesNotKnow) {
  GraphBuilder erf;
  const ValueId x = erf.Input("x", {2, 4});
  EXPECT_THAT(RefusalOf(erf, erf.Op("Erf", {x})), ::testing::HasSubstr("Erf 'Erf_0'"));
  GraphBuilder mean;
  const ValueId y = mean.Input("x", {2, 3, 4, 4});
  EXPECT_THAT(RefusalOf(mean, mean.Op("ReduceMean", {y}, {{"axes", Ints{1}}})),
              ::testing::HasSubstr("ReduceMean 'ReduceMean_0'"));
  GraphBuilder pad;
  const ValueId z = pad.Input("x", {2, 4});
  EXPECT_THAT(RefusalOf(pad, pad.Op("Pad", {z, pad.IntList({0, 1, 0, 1}), pad.Scalar(1.0F)})),
              ::testing::HasSubstr("Pad 'Pad_0'"));
}

}  // namespace layer_test
}  // namespace octet
