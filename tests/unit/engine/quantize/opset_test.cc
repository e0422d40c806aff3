// Old models in the form of opset 13: the same answers, or a clear refusal.
#include "engine/quantize/opset.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/ops/op.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace opset_test {

using testing::AllOf;
using testing::HasSubstr;

Graph Raised(Graph graph) {
  const absl::Status status = RaiseOpset(graph, kQuantizeOpset);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(Verify(graph).ok()) << Verify(graph);
  EXPECT_EQ(OnnxOpset(graph), kQuantizeOpset);
  EXPECT_TRUE(InferShapes(graph).ok()) << InferShapes(graph);
  return graph;
}

TEST(RaiseOpset, TurnsAttributesIntoInputs) {
  GraphBuilder b(7);
  const ValueId x = b.Input("x", {1, 6, 4, 1});
  const ValueId clipped = b.Op("Clip", {x}, {{"min", -1.0F}, {"max", 0.5F}});
  const ValueId squeezed = b.Op("Squeeze", {clipped}, {{"axes", Ints{3}}});
  const std::vector<ValueId> parts =
      b.Ops("Split", {squeezed}, 2, {{"axis", int64_t{1}}, {"split", Ints{2, 4}}});
  const ValueId cut =
      b.Op("Slice", {parts[1]}, {{"starts", Ints{1}}, {"ends", Ints{3}}, {"axes", Ints{1}}});
  const ValueId sum = b.Op("ReduceSum", {b.Op("Add", {parts[0], cut})},
                           {{"axes", Ints{2}}, {"keepdims", int64_t{0}}});
  b.Output(b.Op("Unsqueeze", {sum}, {{"axes", Ints{0}}}));
  const Graph old = b.Build();
  EXPECT_TRUE(SameAnswers(old, Raised(old)));
}

TEST(RaiseOpset, KeepsPadsAndTheirValue) {
  GraphBuilder b(7);
  b.Output(b.Op("Pad", {b.Input("x", {2, 3})}, {{"pads", Ints{0, 1, 0, 2}}, {"value", 0.25F}}));
  const Graph old = b.Build();
  EXPECT_TRUE(SameAnswers(old, Raised(old)));
}

TEST(RaiseOpset, DropsWhatDropoutNoLongerTakes) {
  GraphBuilder b(7);
  b.Output(b.Op("Dropout", {b.Input("x", {2, 3})}, {{"ratio", 0.5F}}));
  const Graph old = b.Build();
  EXPECT_TRUE(SameAnswers(old, Raised(old)));
}

TEST(RaiseOpset, DropsDropoutsMaskWhoseTypeChanges) {
  GraphBuilder b(7);
  b.Output(b.Ops("Dropout", {b.Input("x", {2, 3})}, 2)[0]);
  const Graph old = b.Build();
  EXPECT_TRUE(SameAnswers(old, Raised(old)));
}

TEST(RaiseOpset, KeepsSoftmaxOverTheLastAxis) {
  GraphBuilder b(7);
  b.Output(b.Op("Softmax", {b.Input("x", {2, 3})}, {{"axis", int64_t{1}}}));
  const Graph old = b.Build();
  EXPECT_TRUE(SameAnswers(old, Raised(old)));
}

TEST(RaiseOpset, RefusesSoftmaxThatFlattens) {
  GraphBuilder b(7);
  b.Output(b.Op("Softmax", {b.Input("x", {2, 3, 4})}, {{"axis", int64_t{1}}}));
  Graph graph = b.Build();
  const absl::Status status = RaiseOpset(graph, kQuantizeOpset);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Message(status)),
              AllOf(HasSubstr("Softmax"), HasSubstr("opset 7"), HasSubstr("13")));
}

TEST(RaiseOpset, LeavesNewerModelsAlone) {
  GraphBuilder b(17);
  b.Output(b.Op("Relu", {b.Input("x", {2})}));
  const Graph graph = b.Build();
  Graph raised = graph;
  ASSERT_TRUE(RaiseOpset(raised, kQuantizeOpset).ok());
  EXPECT_EQ(Dump(raised), Dump(graph));
  EXPECT_EQ(OnnxOpset(raised), 17);
}

}  // namespace opset_test
}  // namespace octet
