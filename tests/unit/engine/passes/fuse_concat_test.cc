// A normalization of what a Concat joins reads the parts, and the answers stay.
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {
namespace fuse_concat_test {

constexpr Tolerance kExact{.rtol = 0, .atol = 0};

const std::vector<std::string_view> kTyping = {"fold_constants", "fuse_activation", "fuse_residual",
                                               "import_qdq", "absorb_converts"};

Graph Fused(const Graph& graph) {
  const Graph typed = AfterPasses(kTyping, graph);
  Graph after = AfterPass("fuse_concat", typed);
  EXPECT_TRUE(SameAnswers(typed, after, kExact));
  EXPECT_EQ(Dump(AfterPass("fuse_concat", after)), Dump(after)) << "a second run changes something";
  return after;
}

ValueId Joined(GraphBuilder& b, std::vector<ValueId> parts, int64_t axis = -1) {
  return b.Op("Concat", std::move(parts), {{"axis", axis}});
}

ValueId Normalized(GraphBuilder& b, ValueId x, int64_t channels, bool activates = true) {
  const ValueId y = b.Op("Add", {b.Op("Mul", {x, b.Random({channels})}), b.Random({channels})});
  return b.FakeQuantize(activates ? b.Op("Relu", {y}) : y, 0.02F, 3);
}

TEST(FuseConcat, TakesANormalizationIn) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 4, 5});
  const ValueId y = b.Input("y", {2, 3, 4, 7});
  b.Output(Normalized(b, Joined(b, {x, y}), 12));
  const Graph after = Fused(b.Build());
  EXPECT_THAT(after, HasOps({"Concat", "octet:Convert"}));
  EXPECT_EQ(TheOnly(after, "Concat").post_ops.size(), 3U);
}

// Each layer of a DenseNet's block.
TEST(FuseConcat, TakesNestedOnesApart) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 5});
  ValueId all = x;
  for (int64_t layer = 1; layer <= 3; ++layer) {
    const ValueId more = b.Input("more" + std::to_string(layer), {2, 3, 4});
    all = Joined(b, {all, more}, layer == 2 ? 2 : -1);
    b.Output(Normalized(b, all, 5 + 4 * layer, layer != 3));
  }
  const Graph after = Fused(b.Build());
  EXPECT_THAT(after, HasExactly(3, "Concat"));
  EXPECT_THAT(after, HasNo("Mul"));
  std::vector<size_t> inputs;
  for (const NodeId id : after.order()) {
    if (after.node(id).is("Concat")) inputs.push_back(after.node(id).inputs.size());
  }
  EXPECT_THAT(inputs, ::testing::ElementsAre(4, 5, 6));
}

TEST(FuseConcat, TakesNormalizationsOfReals) {
  GraphBuilder b;
  const ValueId joined = Joined(b, {b.Input("x", {2, 6, 3}), b.Input("y", {2, 6, 5})});
  b.Output(b.Op("Relu", {b.Op("Add", {b.Op("Mul", {joined, b.Random({8})}), b.Random({8})})}));
  b.Output(Normalized(b, joined, 8));
  const Graph after = Fused(b.Build());
  EXPECT_THAT(after, HasExactly(2, "Concat"));
  EXPECT_THAT(after, HasNo("Mul"));
}

// Of a variant in BF16, whose values are that around convolutions.
TEST(FuseConcat, TakesNormalizationsOfBFloat16) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 16, 6, 6});
  const ValueId left = b.Op("Relu", {b.Op("Conv", {x, b.Random({16, 16, 1, 1})})});
  const ValueId right = b.Op("Relu", {b.Op("Conv", {x, b.Random({24, 16, 1, 1})})});
  const ValueId scaled = b.Op("Mul", {Joined(b, {left, right}, 1), b.Random({40, 1, 1})});
  const ValueId normalized = b.Op("Relu", {b.Op("Add", {scaled, b.Random({40, 1, 1})})});
  b.Output(b.Op("Conv", {normalized, b.Random({8, 40, 3, 3})}));
  const Graph graph = b.Build();
  PassContext context;
  context.precision = Precision::kBf16;
  context.target.bf16 = true;
  const Graph after = Optimised(graph, context);
  EXPECT_THAT(after, HasNo("Mul"));
  const Node& join = TheOnly(after, "Concat");
  EXPECT_EQ(join.post_ops.size(), 3U);
  EXPECT_EQ(after.value(join.output(0)).dtype, DType::kBF16);
  context.disabled.insert("fuse_concat");
  EXPECT_TRUE(SameAnswers(Optimised(graph, context), after, kExact));
}

// What is read by others, too, is joined once, and what was joined to it is not copied twice.
TEST(FuseConcat, LeavesTheLastOneToWhatIsNoNormalization) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 5});
  const ValueId y = b.Input("y", {2, 3, 4});
  const ValueId z = b.Input("z", {2, 3, 4});
  const ValueId first = Joined(b, {x, y});
  b.Output(Normalized(b, first, 9));
  const ValueId second = Joined(b, {first, z});
  b.Output(Normalized(b, second, 13));
  b.Output(b.Op("Sigmoid", {second}));
  const Graph after = Fused(b.Build());
  EXPECT_THAT(after, HasExactly(2, "Concat"));
  EXPECT_THAT(after, HasExactly(1, "Mul"));
}

TEST(FuseConcat, TakesAPartThatIsThereTwice) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 5});
  const ValueId pair = Joined(b, {x, x});
  b.Output(Normalized(b, pair, 10));
  b.Output(Normalized(b, Joined(b, {pair, pair}), 20));
  EXPECT_THAT(Fused(b.Build()), HasNo("Mul"));
}

TEST(FuseConcat, LeavesOthers) {
  const auto unchanged = [](const auto& build) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {2, 4, 4});
    const ValueId y = b.Input("y", {2, 4, 4});
    b.Output(build(b, x, y));
    const Graph typed = AfterPasses(kTyping, b.Build());
    EXPECT_EQ(Dump(AfterPass("fuse_concat", typed)), Dump(typed));
  };
  // Another axis, a factor per row, another activation, one type of parts and another one of reals, and an output of the model.
  unchanged([](auto& b, ValueId x, ValueId y) { return Normalized(b, Joined(b, {x, y}, 1), 4); });
  unchanged([](auto& b, ValueId x, ValueId y) {
    const ValueId rows = b.Op("Mul", {Joined(b, {x, y}), b.Random({4, 1})});
    return b.FakeQuantize(rows, 0.02F, 3);
  });
  unchanged([](auto& b, ValueId x, ValueId y) {
    const ValueId z = b.Op("Mul", {Joined(b, {x, y}), b.Random({8})});
    return b.FakeQuantize(b.Op("Sigmoid", {b.Op("Add", {z, b.Random({8})})}), 0.02F, 3);
  });
  unchanged([](auto& b, ValueId x, ValueId y) {
    const ValueId joined = Joined(b, {b.Convert(x, DType::kBF16), b.Convert(y, DType::kBF16)});
    return b.Op("Mul", {b.Convert(joined, DType::kF32), b.Random({8})});
  });
  unchanged([](auto& b, ValueId x, ValueId y) {
    const ValueId joined = Joined(b, {x, y});
    b.Output(joined);
    return Normalized(b, joined, 8);
  });
}

TEST(FuseConcat, EndsListsOfParts) {
  GraphBuilder b;
  ValueId all = b.Input("x", {2, 1});
  const ValueId more = b.Input("y", {2, 1});
  for (int64_t layer = 1; layer <= 100; ++layer) {
    all = Joined(b, {all, more});
    b.Output(Normalized(b, all, 1 + layer));
  }
  const Graph after = Fused(b.Build());
  for (const NodeId id : after.order()) EXPECT_LE(after.node(id).inputs.size(), 66U);
  EXPECT_THAT(after, HasExactly(1, "Mul"));
}

}  // namespace fuse_concat_test
}  // namespace octet
