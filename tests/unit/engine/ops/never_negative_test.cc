// Values that cannot be below zero.
#include "engine/ops/never_negative.h"

#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {
namespace never_negative_test {

struct Values {
  Values() {
    x = b.Input("x", {2, 4, 6, 6});
    relu = b.Op("Relu", {x});
  }
  bool Never(ValueId id) {
    b.Output(id == x ? relu : id);
    return IsNeverNegative(b.Build(), id);
  }
  GraphBuilder b;
  ValueId x;
  ValueId relu;
};

TEST(NeverNegative, IsWhatRectifiersMake) {
  for (const char* op : {"Relu", "Sigmoid", "HardSigmoid", "Abs", "Exp"}) {
    Values v;
    EXPECT_TRUE(v.Never(v.b.Op(op, {v.x}))) << op;
  }
  for (const char* op : {"Tanh", "Neg", "Elu"}) {
    Values v;
    EXPECT_FALSE(v.Never(v.b.Op(op, {v.relu}))) << op;
  }
  Values v;
  EXPECT_FALSE(v.Never(v.x));
}

TEST(NeverNegative, IsWhatPoolsJoinsAndMovesThat) {
  const GraphBuilder::Attrs pool = {{"kernel_shape", Ints{2, 2}}};
  for (const bool known : {true, false}) {
    const auto source = [&](Values& v) { return known ? v.relu : v.x; };
    for (const char* op : {"MaxPool", "AveragePool"}) {
      Values v;
      EXPECT_EQ(v.Never(v.b.Op(op, {source(v)}, pool)), known) << op;
    }
    Values moved;
    EXPECT_EQ(moved.Never(moved.b.Op("Transpose", {moved.b.Op("Flatten", {source(moved)})})),
              known);
    Values joined;
    EXPECT_EQ(
        joined.Never(joined.b.Op("Concat", {joined.relu, source(joined)}, {{"axis", int64_t{1}}})),
        known);
  }
}

// A pad's value and a sum may be anything.
TEST(NeverNegative, IsNotWhatOthersMakeOfThat) {
  Values v;
  EXPECT_FALSE(v.Never(v.b.Op("Add", {v.relu, v.x})));
  Values padded;
  EXPECT_FALSE(padded.Never(padded.b.Op(
      "Pad", {padded.relu, padded.b.IntList({0, 0, 1, 1, 0, 0, 1, 1}), padded.b.Scalar(-1.0F)})));
}

TEST(NeverNegative, FollowsTheLastPostOp) {
  using Kind = PostOp::Kind;
  const auto ends_in = [](const std::vector<PostOp>& post_ops) {
    GraphBuilder b;
    const ValueId y = b.Op("Conv", {b.Input("x", {1, 4, 6, 6}), b.Random({4, 4, 1, 1})});
    b.Output(y);
    Graph graph = b.Build();
    graph.mutable_node(graph.order()[0]).post_ops = post_ops;
    return IsNeverNegative(graph, y);
  };
  EXPECT_FALSE(ends_in({}));
  EXPECT_TRUE(ends_in({{.kind = Kind::kRelu}}));
  EXPECT_TRUE(ends_in({{.kind = Kind::kClip, .alpha = 0, .beta = 6}}));
  EXPECT_FALSE(ends_in({{.kind = Kind::kClip, .alpha = -1, .beta = 1}}));
  EXPECT_FALSE(ends_in({{.kind = Kind::kClip, .alpha = 0, .beta = -1}}));
  EXPECT_FALSE(ends_in({{.kind = Kind::kRelu}, {.kind = Kind::kTanh}}));
}

// A chain of joins that read one value twice each is followed once.
TEST(NeverNegative, TakesManyPathsOnce) {
  Values v;
  ValueId id = v.b.Op("ReduceMean", {v.relu}, {{"axes", Ints{2, 3}}});
  id = v.b.Op("Relu", {id});
  for (int i = 0; i < 12; ++i) id = v.b.Op("Concat", {id, id}, {{"axis", int64_t{0}}});
  EXPECT_TRUE(v.Never(id));
}

}  // namespace never_negative_test
}  // namespace octet
