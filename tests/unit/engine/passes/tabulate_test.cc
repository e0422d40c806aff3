// Elementwise functions of one 8-bit value become one table, and every bit of the answer stays.
#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {
namespace tabulate_test {

constexpr Tolerance kExact{.rtol = 0, .atol = 0};

const std::vector<std::string_view> kTyping = {"fold_constants", "import_qdq", "absorb_converts"};

Graph Tabulated(const Graph& graph) {
  const Graph typed = AfterPasses(kTyping, graph);
  Graph after = AfterPass("tabulate", typed);
  EXPECT_TRUE(SameAnswers(typed, after, kExact));
  EXPECT_EQ(Dump(AfterPass("tabulate", after)), Dump(after)) << "a second run changes something";
  return after;
}

TEST(Tabulate, TakesASwishThatIsRoundedInBetween) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {2, 3, 4, 5}), 0.02F, 100);
  const ValueId s = b.FakeQuantize(b.Op("Sigmoid", {x}), 1.0F / 256, 0);
  b.Output(b.FakeQuantize(b.Op("Mul", {x, s}), 0.015F, 20));
  EXPECT_THAT(Tabulated(b.Build()), HasOps({"octet:Convert", "octet:Table", "octet:Convert"}));
}

TEST(Tabulate, TakesScalarsAndRequantization) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {2, 3}), 0.02F, 100);
  const ValueId shifted = b.FakeQuantize(b.Op("Add", {x, b.Scalar(0.3F)}), 0.04F, 90);
  const ValueId clipped = b.FakeQuantize(b.Op("Relu", {shifted}), 0.02F, 0);
  b.Output(b.FakeQuantize(clipped, 0.07F, 3));
  EXPECT_THAT(Tabulated(b.Build()), HasOps({"octet:Convert", "octet:Table", "octet:Convert"}));
}

TEST(Tabulate, TakesScalarsOfSeveralAxes) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {2, 3, 4}), 0.02F, 100);
  const ValueId sum = b.Op("Add", {x, b.Constant<float>({1, 1, 1}, {0.3F})});
  b.Output(b.FakeQuantize(sum, 0.04F, 90));
  EXPECT_THAT(Tabulated(b.Build()), HasOps({"octet:Convert", "octet:Table", "octet:Convert"}));
}

TEST(Tabulate, KeepsWhatOthersRead) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {2, 3}), 0.02F, 100);
  const ValueId s = b.FakeQuantize(b.Op("Sigmoid", {x}), 1.0F / 256, 0);
  b.Output(s);
  b.Output(b.FakeQuantize(b.Op("Mul", {x, s}), 0.015F, 20));
  EXPECT_THAT(Tabulated(b.Build()), HasExactly(2, "octet:Table"));
}

TEST(Tabulate, LeavesFunctionsOfTwoValuesAndOfPlaces) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {2, 3}), 0.02F, 100);
  const ValueId y = b.FakeQuantize(b.Input("y", {2, 3}), 0.02F, 100);
  b.Output(b.FakeQuantize(b.Op("Mul", {x, y}), 0.03F, 128));
  b.Output(b.FakeQuantize(b.Op("Mul", {x, b.Random({3})}), 0.03F, 128));
  b.Output(b.FakeQuantize(b.Op("Mul", {x, b.Constant<float>({1, 1, 1}, {0.5F})}), 0.03F, 128));
  EXPECT_THAT(Tabulated(b.Build()), HasNo("octet:Table"));
}

TEST(Tabulate, LeavesReals) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3});
  b.Output(b.Op("Sigmoid", {b.FakeQuantize(x, 0.02F, 100)}));
  b.Output(b.FakeQuantize(b.Op("Tanh", {x}), 0.01F, 128));
  EXPECT_THAT(Tabulated(b.Build()), HasNo("octet:Table"));
}

}  // namespace tabulate_test
}  // namespace octet
