// Einsum as matrix products: expand_functions writes them, and the answers stay.
#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {
namespace einsum_products_test {

struct Case {
  const char* equation;
  std::vector<Shape> shapes;
  std::vector<const char*> ops;  // With every extent known.
};

const Case kProducts[] = {
    {"ij,jk->ik", {{3, 4}, {4, 5}}, {"MatMul"}},
    {"ij,kj->ki", {{3, 4}, {5, 4}}, {"Transpose", "MatMul", "Transpose"}},
    {"bhqd,bhkd->bhqk", {{2, 3, 4, 5}, {2, 3, 6, 5}}, {"Transpose", "MatMul"}},
    {"bqhd,bkhd->bhqk", {{2, 4, 3, 5}, {2, 6, 3, 5}}, {"Transpose", "Transpose", "MatMul"}},
    {"bhqk,bkhd->bqhd", {{2, 3, 4, 6}, {2, 6, 3, 5}}, {"Transpose", "MatMul", "Transpose"}},
    {"bsd,de->bse", {{2, 3, 4}, {4, 5}}, {"MatMul"}},
    {"bsd,dhe->bshe", {{2, 3, 4}, {4, 2, 5}}, {"Reshape", "MatMul", "Reshape"}},
    {"bshe,hed->bsd", {{2, 3, 2, 5}, {2, 5, 4}}, {"Reshape", "Reshape", "MatMul"}},
    {"bij,bjk", {{2, 3, 4}, {2, 4, 5}}, {"Transpose", "Reshape", "Reshape", "MatMul"}},
    {"...ij,...jk->...ik", {{5, 1, 2, 3}, {4, 3, 6}}, {}},
    {"...ij,jk->...ik", {{5, 2, 3}, {3, 6}}, {"MatMul"}},
    {"i,i->", {{4}, {4}}, {"Reshape", "Reshape", "MatMul", "Reshape"}},
    {"ij,j->i", {{3, 4}, {4}}, {"Reshape", "MatMul", "Reshape"}},
    {"i,ij->j", {{3}, {3, 4}}, {"Reshape", "MatMul", "Reshape"}},
    {"i,j->ij", {{3}, {4}}, {"Unsqueeze", "Unsqueeze", "Mul"}},
    {"bi,bj->bji", {{2, 3}, {2, 4}}, {"Unsqueeze", "Unsqueeze", "Mul", "Transpose"}},
    {"ij,ij->ij", {{3, 4}, {3, 4}}, {"Mul"}},
    {"bsd,s->bsd", {{2, 3, 4}, {3}}, {"Unsqueeze", "Mul"}},
    {"ijx,jky->ik", {{3, 4, 2}, {4, 5, 3}}, {"ReduceSum", "ReduceSum", "MatMul"}},
    {"abij,abjk,kl->bil", {{2, 3, 4, 5}, {2, 3, 5, 6}, {6, 7}}, {}},
    {"bhwij,bhwjk->bhwik", {{2, 1, 3, 4, 5}, {2, 3, 1, 5, 2}}, {}},
    {"nc,nchw->nhw", {{2, 3}, {2, 3, 4, 5}}, {"Reshape", "Reshape", "MatMul", "Reshape"}},
    {"ij->ji", {{3, 4}}, {"Transpose"}},
    {"bij->jb", {{2, 3, 4}}, {"ReduceSum", "Transpose"}},
    {"ij->", {{3, 4}}, {"ReduceSum"}},
    {"ij", {{3, 4}}, {"Identity"}},
};

Graph Einsum(const Case& c, bool open_batch) {
  GraphBuilder b;
  std::vector<ValueId> operands;
  for (size_t i = 0; i < c.shapes.size(); ++i) {
    Shape shape = c.shapes[i];
    if (open_batch && shape[0] == 2) shape[0] = kUnknownDim;
    operands.push_back(b.Input("x" + std::to_string(i), shape));
  }
  b.Output(b.Op("Einsum", operands, {{"equation", std::string(c.equation)}}));
  return b.Build();
}

TEST(EinsumProducts, AnswerAsTheEquationDoes) {
  for (const Case& c : kProducts) {
    SCOPED_TRACE(c.equation);
    const Graph graph = Einsum(c, false);
    const Graph after = AfterPass("expand_functions", graph);
    EXPECT_THAT(after, HasNo("Einsum"));
    EXPECT_TRUE(SameAnswers(graph, after));
    if (!c.ops.empty()) {
      EXPECT_THAT(after, HasOps(std::vector<std::string>(c.ops.begin(), c.ops.end())));
    }
    EXPECT_TRUE(SameAnswers(graph, Optimised(graph)));
  }
}

TEST(EinsumProducts, TakeAnOpenBatch) {
  for (const Case& c : kProducts) {
    SCOPED_TRACE(c.equation);
    const Graph open = Einsum(c, true);
    const Graph bound = WithUnknownExtents(open, 2);
    const Graph after = AfterPass("expand_functions", open);
    EXPECT_TRUE(SameAnswers(bound, WithUnknownExtents(after, 2)));
  }
  EXPECT_THAT(AfterPass("expand_functions", Einsum(kProducts[2], true)), HasNo("Einsum"));
  EXPECT_THAT(AfterPass("expand_functions", Einsum(kProducts[6], true)), HasNo("Einsum"));
}

TEST(EinsumProducts, LeaveWhatNoProductSays) {
  for (const Case& c : {Case{"ii->i", {{3, 3}}, {}}, Case{"iij,jk->ik", {{3, 3, 4}, {4, 5}}, {}},
                        Case{"ij,jk->ik", {{3, 0}, {0, 5}}, {}},
                        // Which of the two extents is 1 shows with the request.
                        Case{"ij,jk->ik", {{3, kUnknownDim}, {kUnknownDim, 5}}, {}}}) {
    SCOPED_TRACE(c.equation);
    EXPECT_THAT(AfterPass("expand_functions", Einsum(c, false)), HasExactly(1, "Einsum"));
  }
  GraphBuilder b;
  const ValueId x = b.Input("x", {3, 4}, DType::kI32);
  b.Output(b.Op("Einsum", {x, b.Input("y", {4, 5}, DType::kI32)},
                {{"equation", std::string("ij,jk->ik")}}));
  EXPECT_THAT(AfterPass("expand_functions", b.Build()), HasExactly(1, "Einsum"));
}

TEST(EinsumProducts, HaveTheirConstantOnTheRightAndABias) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 4});
  const ValueId y =
      b.Op("Einsum", {b.Random({4, 5}), x}, {{"equation", std::string("de,bsd->bse")}});
  b.Output(b.Op("Add", {y, b.Random({5})}));
  const Graph graph = b.Build();
  const Graph after = Optimised(graph);
  EXPECT_THAT(after, HasOps({"octet:MatMul"}));
  EXPECT_TRUE(SameAnswers(graph, after));
}

// As exporters write heads where the batch is open: shapes are known when what they follow from has been folded.
TEST(EinsumProducts, AreFoundBehindShapesThatAreComputed) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 8});
  const ValueId batch = b.Op("Gather", {b.Op("Shape", {x}), b.IntList({0})});
  const ValueId target = b.Op("Concat", {batch, b.IntList({-1, 2, 4})}, {{"axis", int64_t{0}}});
  const ValueId heads = b.Op("Reshape", {x, target});
  b.Output(b.Op("Einsum", {heads, heads}, {{"equation", std::string("bihd,bjhd->bhij")}}));
  EXPECT_THAT(Optimised(b.Build()), HasNo("Einsum"));
}

}  // namespace einsum_products_test
}  // namespace octet
