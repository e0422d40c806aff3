// Products with a constant matrix that models write otherwise than the quantizer knows them: the same answers, and in integers.
#include "engine/quantize/plain_products.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/ops/op.h"
#include "engine/quantize/quantizer.h"
#include "engine/quantize/selection.h"
#include "tests/support/graph_builder.h"
#include "tests/support/random_tensor.h"

namespace octet {
namespace plain_products_test {

using Write = std::function<ValueId(GraphBuilder& b, ValueId x)>;

struct Case {
  const char* name;
  Shape x;
  Write write;
  std::vector<std::string> ops;  // Afterwards, without those of constants alone.
};

GraphBuilder::Attrs Scales(float alpha, float beta) { return {{"alpha", alpha}, {"beta", beta}}; }

Case Einsum(const char* equation, Shape x, Shape w, std::vector<std::string> ops) {
  const Write write = [=](GraphBuilder& b, ValueId v) {
    return b.Op("Einsum", {v, b.Random(w)}, {{"equation", std::string(equation)}});
  };
  return {equation, std::move(x), write, std::move(ops)};
}

std::vector<Case> MatMulCases() {
  using V = ValueId;
  return {
      {"matrix behind an axis",
       {2, 4, 6},
       [](auto& b, V x) { return b.Op("MatMul", {x, b.Random({1, 6, 3})}); },
       {"MatMul"}},
      {"matrix behind two axes",
       {2, 6},
       [](auto& b, V x) { return b.Op("MatMul", {x, b.Random({1, 1, 6, 3})}); },
       {"MatMul", "Unsqueeze"}},
      {"matrix on the left",
       {2, 6, 5},
       [](auto& b, V x) { return b.Op("MatMul", {b.Random({3, 6}), x}); },
       {"Transpose", "MatMul", "Transpose"}},
      {"matrix on the left, behind an axis",
       {2, 2, 6, 5},
       [](auto& b, V x) { return b.Op("MatMul", {b.Random({1, 3, 6}), x}); },
       {"Transpose", "MatMul", "Transpose"}},
      {"matrix on the left of fewer axes",
       {6, 5},
       [](auto& b, V x) { return b.Op("MatMul", {b.Random({1, 3, 6}), x}); },
       {"Transpose", "MatMul", "Transpose", "Unsqueeze"}},
      {"matrix on the left of a vector",
       {6},
       [](auto& b, V x) { return b.Op("MatMul", {b.Random({3, 6}), x}); },
       {"MatMul"}},
  };
}

std::vector<Case> GemmCases() {
  using V = ValueId;
  return {
      {"alpha",
       {4, 6},
       [](auto& b, V x) { return b.Op("Gemm", {x, b.Random({6, 3})}, Scales(0.5F, 1)); },
       {"Gemm"}},
      {"alpha and beta",
       {4, 6},
       [](auto& b, V x) {
         return b.Op("Gemm", {x, b.Random({6, 3}), b.Random({3})}, Scales(0.5F, -3));
       },
       {"Gemm"}},
      {"a C for all channels",
       {4, 6},
       [](auto& b, V x) {
         return b.Op("Gemm", {x, b.Random({6, 3}), b.Random({1})}, Scales(1, 2));
       },
       {"Gemm"}},
      {"a C of the product's shape",
       {4, 6},
       [](auto& b, V x) {
         return b.Op("Gemm", {x, b.Random({6, 3}), b.Random({4, 3})}, Scales(2, 0.5F));
       },
       {"Gemm", "Add"}},
      {"a C per row",
       {4, 6},
       [](auto& b, V x) { return b.Op("Gemm", {x, b.Random({6, 3}), b.Random({4, 1})}); },
       {"Gemm", "Add"}},
      {"a computed C",
       {4, 6},
       [](auto& b, V x) {
         return b.Op("Gemm", {x, b.Random({6, 6}), b.Op("Relu", {x})}, Scales(2, 0.5F));
       },
       {"Relu", "Gemm", "Mul", "Add"}},
      {"transposed A and B",
       {6, 4},
       [](auto& b, V x) {
         return b.Op("Gemm", {x, b.Random({3, 6}), b.Random({3})},
                     {{"transA", int64_t{1}}, {"transB", int64_t{1}}, {"alpha", 2.0F}});
       },
       {"Transpose", "Gemm"}},
      {"a Gemm's matrix on the left",
       {6, 4},
       [](auto& b, V x) {
         return b.Op("Gemm", {b.Random({3, 6}), x, b.Random({3, 1})}, Scales(0.5F, -3));
       },
       {"Transpose", "Gemm", "Transpose"}},
      {"the same, both transposed",
       {4, 6},
       [](auto& b, V x) {
         return b.Op("Gemm", {b.Random({6, 3}), x},
                     {{"transA", int64_t{1}}, {"transB", int64_t{1}}});
       },
       {"Gemm", "Transpose"}},
      {"the same with a C per column",
       {6, 4},
       [](auto& b, V x) {
         return b.Op("Gemm", {b.Random({3, 6}), x, b.Random({4})}, Scales(1, 2));
       },
       {"Transpose", "Gemm", "Transpose", "Add"}},
      {"the same with a C that is computed",
       {6, 6},
       [](auto& b, V x) { return b.Op("Gemm", {b.Random({6, 6}), x, b.Op("Relu", {x})}); },
       {"Relu", "Transpose", "Gemm", "Transpose", "Add"}},
  };
}

std::vector<Case> FusedMatMulCases() {
  using V = ValueId;
  return {
      {"a plain FusedMatMul",
       {2, 4, 6},
       [](auto& b, V x) { return b.Op("com.microsoft:FusedMatMul", {x, b.Random({6, 3})}); },
       {"MatMul"}},
      {"FusedMatMul of a turned matrix, scaled",
       {2, 4, 6},
       [](auto& b, V x) {
         return b.Op("com.microsoft:FusedMatMul", {x, b.Random({3, 6})},
                     {{"transB", int64_t{1}}, {"alpha", 0.5F}});
       },
       {"MatMul"}},
      {"FusedMatMul of what is turned",
       {2, 6, 4},
       [](auto& b, V x) {
         return b.Op("com.microsoft:TransposeMatMul", {x, b.Random({6, 3})},
                     {{"transA", int64_t{1}}});
       },
       {"Transpose", "MatMul"}},
      {"FusedMatMul of what is turned in its batch",
       {2, 4, 6},
       [](auto& b, V x) {
         return b.Op("com.microsoft:FusedMatMul", {x, b.Random({6, 3})},
                     {{"transBatchA", int64_t{1}}});
       },
       {"Transpose", "MatMul"}},
      {"FusedMatMul with the matrix on the left",
       {2, 5, 6},
       [](auto& b, V x) {
         return b.Op("com.microsoft:FusedMatMul", {b.Random({6, 3}), x},
                     {{"transA", int64_t{1}}, {"transB", int64_t{1}}, {"alpha", 2.0F}});
       },
       {"MatMul", "Transpose"}},
  };
}

std::vector<Case> EinsumCases() {
  return {
      Einsum("bsd,de->bse", {2, 4, 6}, {6, 3}, {"MatMul"}),
      Einsum("bsd,ed->bse", {2, 4, 6}, {3, 6}, {"MatMul"}),
      Einsum("bsd,dhe->bshe", {2, 4, 6}, {6, 2, 3}, {"MatMul", "Reshape"}),
      Einsum("bshe,hed->bsd", {2, 4, 2, 3}, {2, 3, 5}, {"Reshape", "MatMul"}),
      Einsum("bds,de->bse", {2, 6, 4}, {6, 3}, {"Transpose", "MatMul"}),
  };
}

std::vector<Case> Cases() {
  std::vector<Case> all;
  for (const auto& cases : {MatMulCases(), GemmCases(), FusedMatMulCases(), EinsumCases()})
    all.insert(all.end(), cases.begin(), cases.end());
  return all;
}

Graph Built(const Case& c, bool open) {
  GraphBuilder b;
  Shape shape = c.x;
  if (open) shape[0] = kUnknownDim;
  b.Output(c.write(b, b.Input("x", shape)), "y");
  return b.Build();
}

// With constants folded.
Graph Rewritten(Graph graph, int expected = 1) {
  const auto count = WritePlainProducts(graph);
  EXPECT_TRUE(count.ok()) << count.status();
  EXPECT_EQ(count.value_or(0), expected);
  EXPECT_TRUE(Verify(graph).ok()) << Verify(graph);
  return AfterPass("fold_constants", std::move(graph));
}

int CountWeighted(const Graph& graph) {
  int count = 0;
  for (const NodeId id : graph.order()) count += AsWeighted(graph, id) ? 1 : 0;
  return count;
}

TEST(PlainProducts, AreWhatTheQuantizerKnows) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.name);
    const Graph graph = Built(c, false);
    EXPECT_EQ(CountWeighted(graph), 0);
    Graph after = Rewritten(graph);
    EXPECT_EQ(OpNames(after), c.ops);
    EXPECT_EQ(CountWeighted(after), 1);
    EXPECT_TRUE(SameAnswers(graph, after));
    const auto again = WritePlainProducts(after);
    EXPECT_EQ(again.value_or(-1), 0) << "a second look finds something";
  }
}

TEST(PlainProducts, KnowTheirWeightsWhateverTheBatch) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.name);
    if (c.x.rank() == 1 || std::string_view(c.name).starts_with("transposed A")) continue;
    const Graph graph = Built(c, true);
    const Graph after = Rewritten(graph);
    EXPECT_EQ(CountWeighted(after), 1);
    EXPECT_TRUE(SameAnswers(WithUnknownExtents(graph, c.x[0]), WithUnknownExtents(after, c.x[0])));
  }
}

TEST(PlainProducts, MultiplyIntegersInTheFile) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.name);
    if (c.x.rank() == 1) continue;
    const Graph graph = Built(c, false);
    Shape samples = c.x;
    samples[0] *= 4;
    const CalibrationSet set = {{"x", testing::RandomReals(samples, TestSeed(), -2, 2)}};
    const auto made = Quantize(
        graph, {.method = RangeMethod::kMinMax, .floor = {AccuracyFloor::Kind::kAllInt8, 0}}, set,
        {});
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_EQ(std::ranges::count(made->records, "weights", &QuantizeRecord::what), 1);
    EXPECT_TRUE(SameAnswers(graph, made->graph, {.rtol = 0.05F, .atol = 0.15F}));
  }
}

TEST(PlainProducts, LeaveTheRest) {
  const float large = std::numeric_limits<float>::max();
  const std::vector<Case> cases = {
      {"a matrix for each of two",
       {2, 4, 6},
       [](auto& b, ValueId x) { return b.Op("MatMul", {x, b.Random({2, 6, 3})}); },
       {"MatMul"}},
      {"a plain one",
       {2, 4, 6},
       [](auto& b, ValueId x) { return b.Op("MatMul", {x, b.Random({6, 3})}); },
       {"MatMul"}},
      {"two activations",
       {4, 4},
       [](auto& b, ValueId x) { return b.Op("MatMul", {x, b.Op("Relu", {x})}); },
       {"Relu", "MatMul"}},
      {"a plain Gemm",
       {4, 6},
       [](auto& b, ValueId x) { return b.Op("Gemm", {x, b.Random({6, 3}), b.Random({3})}); },
       {"Gemm"}},
      {"an infinite product",
       {4, 6},
       [=](auto& b, ValueId x) {
         return b.Op("Gemm", {x, b.Random({6, 3}, 2, 3)}, Scales(large, 1));
       },
       {"Gemm"}},
      {"an infinite product of a matrix on the left",
       {6, 4},
       [=](auto& b, ValueId x) {
         return b.Op("Gemm", {b.Random({3, 6}, 2, 3), x}, Scales(large, 1));
       },
       {"Gemm"}},
      {"a FusedMatMul with a matrix for each of two",
       {2, 4, 6},
       [](auto& b, ValueId x) {
         return b.Op("com.microsoft:FusedMatMul", {x, b.Random({2, 6, 3})}, {{"alpha", 2.0F}});
       },
       {"com.microsoft:FusedMatMul"}},
      Einsum("bsd,bde->bse", {2, 4, 6}, {2, 6, 3}, {"Einsum"}),
      Einsum("bsd,d->bsd", {2, 4, 6}, {6}, {"Einsum"}),
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const Graph after = Rewritten(Built(c, false), 0);
    EXPECT_EQ(OpNames(after), c.ops);
  }
}

}  // namespace plain_products_test
}  // namespace octet
