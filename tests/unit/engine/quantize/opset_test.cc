// Old models in the form of opset 13: the same answers, or a clear refusal.
#include "engine/quantize/opset.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/ops/op.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace opset_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

Graph Raised(Graph graph, int version = kQuantizeOpset) {
  const absl::Status status = RaiseOpset(graph, version);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(Verify(graph).ok()) << Verify(graph);
  EXPECT_EQ(OnnxOpset(graph), version);
  EXPECT_FALSE(IsBelowOpset(graph, version));
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

// Other runtimes refuse the attribute from opset 9 on.
TEST(RaiseOpset, DropsWhatBatchNormalizationNoLongerTakes) {
  GraphBuilder b(8);
  const ValueId x = b.Input("x", {2, 3, 4});
  b.Output(b.Op("BatchNormalization",
                {x, b.Random({3}), b.Random({3}), b.Random({3}), b.Random({3}, 0.5F, 1.5F)},
                {{"spatial", int64_t{1}}, {"epsilon", 0.01F}}));
  const Graph old = b.Build();
  EXPECT_TRUE(TheOnly(Raised(old, 8), "BatchNormalization").attributes.has("spatial"));
  const Graph raised = Raised(old);
  EXPECT_TRUE(SameAnswers(old, raised));
  EXPECT_FALSE(TheOnly(raised, "BatchNormalization").attributes.has("spatial"));
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

TEST(RaiseOpset, MovesTheAxesOfReductions) {
  for (const char* op : {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
                         "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"}) {
    GraphBuilder b(13);
    const ValueId x = b.Op("Exp", {b.Input("x", {2, 3, 4})});
    b.Output(b.Op(op, {x}, {{"axes", Ints{1, -1}}, {"keepdims", int64_t{0}}}));
    b.Output(b.Op(op, {x}));
    const Graph old = b.Build();
    const Graph raised = Raised(old, 18);
    EXPECT_EQ(raised.value(raised.outputs[0]).shape, Shape{2}) << op;
    EXPECT_TRUE(SameAnswers(old, raised)) << op;
  }
}

TEST(RaiseOpset, SaysWhatWentWithoutSaying) {
  GraphBuilder b(13);
  const ValueId x = b.Input("x", {2, 4, 6, 6});
  const std::vector<ValueId> parts = b.Ops("Split", {x}, 2, {{"axis", int64_t{1}}});
  const ValueId rois = b.Constant<float>({2, 4}, {0, 0, 5, 5, 1, 2, 4, 3});
  const ValueId batches = b.Constant<int64_t>({2}, {0, 1});
  b.Output(b.Op("RoiAlign", {parts[0], rois, batches},
                {{"output_height", int64_t{2}}, {"output_width", int64_t{2}}}));
  b.Output(parts[1]);
  const Graph old = b.Build();
  const Graph raised = Raised(old, 18);
  EXPECT_TRUE(SameAnswers(old, raised));
  EXPECT_EQ(TheOnly(raised, "Split").attributes.IntOr("num_outputs", 0), 2);
  for (const auto& [before, after] : {std::pair{"bilinear", "linear"}, {"bicubic", "cubic"}}) {
    GraphBuilder sampling(16);
    sampling.Output(sampling.Op(
        "GridSample", {sampling.Input("x", {1, 2, 3, 4}), sampling.Input("grid", {1, 2, 2, 2})},
        {{"mode", std::string(before)}}));
    const Graph older = sampling.Build();
    const Graph newer = Raised(older, 20);
    EXPECT_TRUE(SameAnswers(older, newer));
    EXPECT_EQ(*TheOnly(newer, "GridSample").attributes.String("mode", ""), after);
  }
}

// As far as a file's form tells, both opsets take these nodes.
TEST(RaiseOpset, RefusesWhatOneDefinitionHereMeansInTwoWays) {
  struct Case {
    std::string op;
    int from;
    int to;
    std::function<ValueId(GraphBuilder&, ValueId)> make;
    int still;  // As far as that it may be raised.
  };
  const auto pooled = [](int64_t ceil_mode) {
    return [=](GraphBuilder& b, ValueId x) {
      return b.Op("AveragePool", {x},
                  {{"kernel_shape", Ints{3, 1}},
                   {"strides", Ints{2, 1}},
                   {"count_include_pad", int64_t{1}},
                   {"ceil_mode", ceil_mode}});
    };
  };
  const Case cases[] = {
      {"TopK", 9, 11,
       [](GraphBuilder& b, ValueId x) { return b.Ops("TopK", {x}, 2, {{"k", int64_t{2}}})[0]; }, 9},
      {"Resize", 10, 13,
       [](GraphBuilder& b, ValueId x) {
         return b.Op("Resize", {x, b.Constant<float>({4}, {1, 1, 2, 2})});
       },
       10},
      {"AveragePool", 13, 19, pooled(1), 18},
      {"DFT", 17, 20,
       [](GraphBuilder& b, ValueId x) { return b.Op("DFT", {x}, {{"axis", int64_t{1}}}); }, 19},
      {"GroupNormalization", 18, 21,
       [](GraphBuilder& b, ValueId x) {
         return b.Op("GroupNormalization", {x, b.Random({2}), b.Random({2})},
                     {{"num_groups", int64_t{2}}});
       },
       20},
  };
  for (const Case& c : cases) {
    GraphBuilder b(c.from);
    b.Output(c.make(b, b.Input("x", {1, 4, 4, 2})));
    const Graph old = b.Build();
    Graph graph = old;
    const absl::Status status = RaiseOpset(graph, c.to);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << c.op;
    EXPECT_THAT(std::string(Message(status)),
                AllOf(HasSubstr(c.op), HasSubstr(Format("opset {} and {}", c.from, c.to))));
    EXPECT_TRUE(SameAnswers(old, Raised(old, c.still))) << c.op;
  }
  GraphBuilder b(13);
  b.Output(pooled(0)(b, b.Input("x", {1, 4, 5, 5})));
  const Graph plain = b.Build();
  EXPECT_TRUE(SameAnswers(plain, Raised(plain, 19)));
}

// A function that the branches call brings its opset; the If has the model's.
TEST(RaiseOpset, RaisesWhatIsInSubGraphs) {
  const auto branch = [](const char* op, int opset) {
    GraphBuilder b(opset);
    b.Output(b.Op(op, {b.Input("x_in", {2, 3})}, {{"axes", Ints{1}}}), "answer");
    return std::make_shared<const Graph>(b.Build());
  };
  GraphBuilder b(18);
  const ValueId x = b.Input("x", {2, 3});
  const ValueId flag = b.Input("flag", {}, DType::kBool);
  b.Output(b.Op("If", {flag, x},
                {{"then_branch", branch("ReduceMean", 13)},
                 {"else_branch", branch("ReduceMax", 11)},
                 {std::string(kCaptures), int64_t{1}}}));
  const Graph old = b.Build();
  EXPECT_TRUE(IsBelowOpset(old, 18));
  const Graph raised = Raised(old, 18);
  for (const auto& [name, value] : TheOnly(raised, "If").attributes) {
    const Subgraph* body = std::get_if<Subgraph>(&value);
    if (body == nullptr) continue;
    EXPECT_TRUE(
        SameAnswers(*branch(name == "then_branch" ? "ReduceMean" : "ReduceMax", 13), **body));
  }
  GraphBuilder outer(13);
  outer.Output(outer.Op("Identity", {outer.Input("x", {2, 3})}));
  Graph around = outer.Build();
  GraphBuilder inner(17);
  inner.Output(inner.Op("Relu", {inner.Input("x", {2})}));
  around.mutable_node(around.order()[0])
      .attributes.Set("body", std::make_shared<const Graph>(inner.Build()));
  EXPECT_EQ(OnnxOpset(around), 17);
}

}  // namespace opset_test
}  // namespace octet
