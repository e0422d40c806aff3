// What a quantized file leaves to its reader.
#include "engine/quantize/leave_out_defaults.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/ops/op.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace leave_out_defaults_test {

using Ints = std::vector<int64_t>;

TEST(LeaveOutDefaults, LeavesTypesThatInferenceDoesNotFind) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 6, 6});
  const ValueId c = b.Op("Conv", {x, b.Random({4, 3, 3, 3})});
  b.Output(b.Op("Relu", {c}), "y");
  Graph graph = b.Build();
  ASSERT_TRUE(InferShapes(graph).ok());
  const Graph typed = graph;
  // Somebody knew the batch, which inference does not.
  Graph declared = graph;
  declared.mutable_value(c).shape = Shape{8, 4, 4, 4};
  LeaveOutDefaults(graph);
  EXPECT_EQ(graph.value(c).dtype, DType::kUndefined);
  EXPECT_FALSE(graph.value(c).shape.has_value());
  EXPECT_EQ(graph.value(x).dtype, DType::kF32) << "the interface says all";
  EXPECT_EQ(graph.value(graph.outputs[0]).dtype, DType::kF32);
  ASSERT_TRUE(InferShapes(graph).ok());
  EXPECT_EQ(Dump(graph), Dump(typed)) << "a reader finds it all again";

  LeaveOutDefaults(declared);
  EXPECT_EQ(declared.value(c).shape, (Shape{8, 4, 4, 4}));
}

TEST(LeaveOutDefaults, LeavesAttributesThatSaySomething) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 4, 9, 9});
  const ValueId plain = b.Op("Conv", {x, b.Random({4, 4, 3, 3})},
                             {{"dilations", Ints{1, 1}},
                              {"group", int64_t{1}},
                              {"kernel_shape", Ints{3, 3}},
                              {"pads", Ints{0, 0, 0, 0}},
                              {"strides", Ints{1, 1}}});
  const ValueId other = b.Op("Conv", {x, b.Random({4, 2, 3, 3})},
                             {{"dilations", Ints{2, 1}},
                              {"group", int64_t{2}},
                              {"pads", Ints{0, 1, 0, 0}},
                              {"strides", Ints{1, 2}}});
  const ValueId transposed = b.Op("ConvTranspose", {x, b.Random({4, 3, 2, 2})},
                                  {{"dilations", Ints{1, 1}},
                                   {"group", int64_t{1}},
                                   {"kernel_shape", Ints{2, 2}},
                                   {"pads", Ints{0, 0, 0, 0}},
                                   {"strides", Ints{2, 2}}});
  b.Output(plain);
  b.Output(other);
  b.Output(transposed);
  Graph graph = b.Build();
  LeaveOutDefaults(graph);
  const auto names = [&](ValueId id) {
    std::vector<std::string> found;
    for (const auto& [name, value] : graph.node(graph.producer(id)).attributes)
      found.push_back(name);
    return found;
  };
  EXPECT_THAT(names(plain), ::testing::IsEmpty());
  EXPECT_THAT(names(transposed), ::testing::ElementsAre("strides"));
  EXPECT_THAT(names(other), ::testing::ElementsAre("dilations", "group", "pads", "strides"));
}

// Six is the end of the integers: to round to them cuts what the Clip cut.
TEST(LeaveOutDefaults, LeavesAClipThatRoundingDoes) {
  for (const auto& [scale, kept] :
       {std::pair{6.0F / 255, 0}, std::pair{5.0F / 255, 0}, std::pair{6.5F / 255, 1}}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {1, 4, 9, 9});
    const ValueId conv = b.Op("Conv", {x, b.Random({4, 4, 3, 3}, -3, 3)});
    const ValueId clip = b.Op("Clip", {conv, b.Scalar(0.0F), b.Scalar(6.0F)});
    b.Output(b.FakeQuantize(clip, scale, 0), "y");
    const Graph clipped = b.Build();
    Graph graph = clipped;
    LeaveOutDefaults(graph);
    ASSERT_TRUE(Verify(graph).ok()) << Verify(graph);
    EXPECT_THAT(graph, HasExactly(kept, "Clip")) << scale;
    EXPECT_EQ(graph.value(TheOnly(graph, "QuantizeLinear").inputs[0]).name,
              clipped.value(clip).name)
        << "it is what goes by this name in the fp32 model";
    ASSERT_TRUE(InferShapes(graph).ok());
    EXPECT_TRUE(SameAnswers(clipped, graph));
  }
}

TEST(LeaveOutDefaults, LeavesAClipThatOthersRead) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 4, 9, 9});
  const ValueId conv = b.Op("Conv", {x, b.Random({4, 4, 3, 3}, -3, 3)});
  const ValueId clip = b.Op("Clip", {conv, b.Scalar(0.0F), b.Scalar(6.0F)});
  b.Output(b.FakeQuantize(clip, 6.0F / 255, 0), "y");
  b.Output(b.Op("Relu", {clip}), "z");
  Graph graph = b.Build();
  LeaveOutDefaults(graph);
  EXPECT_THAT(graph, HasExactly(1, "Clip"));
}

}  // namespace leave_out_defaults_test
}  // namespace octet
