// Operators that are defined by others, replaced by them: raise_opset and expand_functions.
#include "gtest/gtest.h"

#include "engine/onnx/onnx_file.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace functions_test {

TEST(RaiseOpset, RewritesWhatChangedAndRenumbersTheRest) {
  GraphBuilder b(6);
  const ValueId x = b.Input("x", {kUnknownDim, 3, 4, 4});
  const ValueId c = b.Op("Conv", {x, b.Random({5, 3, 1, 1})});
  const ValueId sum =
      b.Op("Add", {c, b.Random({5})}, {{"broadcast", int64_t{1}}, {"axis", int64_t{1}}});
  b.Output(b.Op("Relu", {sum}, {{"consumed_inputs", Ints{0}}}), "y");
  const Graph graph = b.Build();
  const Graph after = AfterPass("raise_opset", graph);
  EXPECT_THAT(after, HasOps({"Conv", "Unsqueeze", "Add", "Relu"}));
  for (const NodeId id : after.order()) {
    EXPECT_EQ(after.node(id).version, 7);
    EXPECT_FALSE(after.node(id).attributes.has("consumed_inputs"));
  }
  EXPECT_EQ(after.value(after.outputs[0]).name, "y");
  EXPECT_TRUE(SameAnswers(WithUnknownExtents(graph, 2), WithUnknownExtents(after, 2)));
  EXPECT_TRUE(WriteOnnxBytes(after).ok()) << "it is one opset of ONNX";
  // The bias goes on into the convolution.
  EXPECT_THAT(Optimised(WithUnknownExtents(graph, 2)), HasNo("Add"));
}

TEST(RaiseOpset, WaitsForRanks) {
  GraphBuilder b(6);
  const ValueId x = b.Input("x", {2, 3, 4});
  b.Output(b.Op("Add", {x, b.Random({3})}, {{"broadcast", int64_t{1}}, {"axis", int64_t{1}}}));
  const Graph graph = b.Build();
  Graph open = graph;
  open.mutable_value(open.inputs[0]).shape.reset();
  open.mutable_value(open.outputs[0]).shape.reset();
  Graph waiting = AfterPass("raise_opset", open);
  EXPECT_THAT(waiting, HasOps({"Add"}));
  waiting.mutable_value(waiting.inputs[0]).shape = Shape{2, 3, 4};
  EXPECT_THAT(AfterPass("raise_opset", waiting), HasOps({"Unsqueeze", "Add"}));
}

}  // namespace functions_test
}  // namespace octet
