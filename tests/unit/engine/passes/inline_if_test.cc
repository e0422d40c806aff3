// inline_if: what an If with a constant condition leaves.
#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/graph_builder.h"

namespace octet {
namespace inline_if_test {

Subgraph Branch(std::string_view op) {
  GraphBuilder body;
  const ValueId x = body.Input("x_in", {2, 3});
  const ValueId c = body.Constant<float>({1}, {2});
  body.Output(body.Op(op, {x, c}), "answer");
  return std::make_shared<const Graph>(body.Build());
}

Graph Choice(bool constant, bool value = true) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3});
  const ValueId flag = constant ? b.Scalar(value) : b.Input("flag", {}, DType::kBool);
  const ValueId chosen = b.Op("If", {flag, b.Op("Abs", {x})},
                              {{"then_branch", Branch("Mul")},
                               {"else_branch", Branch("Add")},
                               {std::string(kCaptures), int64_t{1}}});
  b.Output(b.Op("Neg", {chosen}));
  b.Output(chosen, "chosen");
  return b.Build();
}

TEST(InlineIfTest, TheBranchOfTheConditionStays) {
  for (const bool value : {true, false}) {
    const Graph graph = AfterPass("inline_if", Choice(true, value));
    EXPECT_THAT(graph, HasNo("If"));
    EXPECT_THAT(graph, HasExactly(1, value ? "Mul" : "Add"));
    EXPECT_THAT(graph, HasNo(value ? "Add" : "Mul"));
    EXPECT_NE(graph.FindValue("chosen"), kNone);
    const Tensor x = Tensor::From<float>({2, 3}, {1, -2, 3, -4, 5, -6});
    EXPECT_TRUE(SameAnswers(AfterPasses({"remove_no_ops"}, graph), graph, std::vector<Tensor>{x}));
  }
}

TEST(InlineIfTest, AnOpenConditionStaysAnIf) {
  EXPECT_THAT(AfterPass("inline_if", Choice(false)), HasExactly(1, "If"));
}

TEST(InlineIfTest, NamesOfTheBranchMayBeTaken) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3});
  const ValueId taken = b.Op("Relu", {x});
  b.Output(taken, "answer");
  b.Output(b.Op("If", {b.Scalar(true), x},
                {{"then_branch", Branch("Mul")},
                 {"else_branch", Branch("Add")},
                 {std::string(kCaptures), int64_t{1}}}));
  const Graph graph = AfterPass("inline_if", b.Build());
  EXPECT_THAT(graph, HasNo("If"));
  EXPECT_EQ(graph.node(graph.producer(graph.FindValue("answer"))).op, "Relu");
}

}  // namespace inline_if_test
}  // namespace octet
