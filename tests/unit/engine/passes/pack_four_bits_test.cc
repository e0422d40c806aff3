// Weights that 4 bits hold, in every form that models have them in, and those that stay what they are.
#include <tuple>

#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {
namespace pack_four_bits_test {

constexpr const char* kPacked = "octet:FourBitMatMul";
constexpr Tolerance kSums{.rtol = 1e-4F, .atol = 1e-4F};

// DequantizeLinear of random constants of `shape`.
struct Weights {
  DType dtype = DType::kI8;
  int low = -8;
  int high = 7;
  Shape shape = {40, 6};
  Shape scales = {3, 6};
  int64_t axis = 0;
  int64_t block_size = 16;
  bool zero_points = true;
};

ValueId Add(GraphBuilder& b, const Weights& w) {
  GraphBuilder::Attrs attributes = {{"axis", w.axis}};
  if (w.block_size != 0) attributes["block_size"] = w.block_size;
  std::vector<ValueId> inputs = {b.RandomInts(w.dtype, w.shape, w.low, w.high),
                                 b.Random(w.scales, 0.1F, 0.5F)};
  if (w.zero_points) inputs.push_back(b.RandomInts(w.dtype, w.scales, w.low, w.high));
  return b.Op("DequantizeLinear", inputs, attributes);
}

Graph ProductOf(const Weights& w) {
  GraphBuilder b(21);
  const ValueId reals = Add(b, w);
  b.Output(b.Op("MatMul", {b.Input("x", {2, 3, w.shape[0]}), reals}));
  return b.Build();
}

// The graph as plans are made of it: answers as before, and a second run finds nothing to do.
Graph Planned(const Graph& graph, const PassContext& context = {}) {
  const Graph after = Optimised(graph, context);
  EXPECT_TRUE(SameAnswers(graph, after, kSums));
  EXPECT_EQ(Dump(Optimised(after, context)), Dump(after)) << "a second run changes something";
  return after;
}

size_t ConstantBytes(const Graph& graph) {
  size_t bytes = 0;
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    if (graph.value(id).is_constant() && !graph.consumers(id).empty())
      bytes += graph.value(id).constant.bytes();
  }
  return bytes;
}

TEST(PackFourBits, TakesEveryFormOfScales) {
  for (const auto& [dtype, low, high] :
       {std::tuple(DType::kI8, -8, 7), std::tuple(DType::kU8, 0, 15),
        std::tuple(DType::kU8, 120, 135), std::tuple(DType::kI8, -70, -60)}) {
    for (const bool zero_points : {true, false}) {
      if (!zero_points && low == 120) continue;  // Too far from 0.
      Weights w{.dtype = dtype, .low = low, .high = high, .zero_points = zero_points};
      EXPECT_THAT(Planned(ProductOf(w)), HasOps({kPacked})) << "blocks of 16, the last one of 8";
      w.block_size = 64;
      w.scales = {1, 6};
      EXPECT_THAT(Planned(ProductOf(w)), HasOps({kPacked})) << "a block that is longer than K";
      w.block_size = 0;
      w.axis = 1;
      w.scales = {6};
      EXPECT_THAT(Planned(ProductOf(w)), HasOps({kPacked})) << "per column";
      w.scales = {};
      EXPECT_THAT(Planned(ProductOf(w)), HasOps({kPacked})) << "per tensor";
    }
  }
}

TEST(PackFourBits, KeepsWhatFollowsTheProduct) {
  GraphBuilder b(21);
  const ValueId x = b.Input("x", {5, 32});
  const ValueId reals = Add(b, {.shape = {6, 32}, .scales = {6, 2}, .axis = 1});
  const ValueId y = b.Op("Gemm", {x, reals, b.Random({6})}, {{"transB", int64_t{1}}});
  b.Output(b.Op("Add", {b.Op("Relu", {y}), b.Input("z", {5, 6})}));
  const Graph after = Planned(b.Build());
  ASSERT_THAT(after, HasOps({kPacked}));
  const Node& node = TheOnly(after, kPacked);
  EXPECT_EQ(node.inputs.size(), 6U);
  ASSERT_EQ(node.post_ops.size(), 2U);
  EXPECT_EQ(node.post_ops[1].operand, 5);
  EXPECT_LT(ConstantBytes(after), 6U * 32 / 2 + 6 * 2 * 5 + 6 * 4 + 1);
}

TEST(PackFourBits, LeavesOtherWeights) {
  EXPECT_THAT(Planned(ProductOf({.low = -9, .high = 7})), HasOps({"octet:MatMul"}));
  EXPECT_THAT(Planned(ProductOf({.scales = {10, 6}, .block_size = 4})), HasOps({"octet:MatMul"}))
      << "blocks that are no multiple of 8";
  EXPECT_THAT(Planned(ProductOf({.scales = {40, 1}, .axis = 1})), HasOps({"octet:MatMul"}))
      << "blocks along N";
  EXPECT_THAT(Planned(ProductOf({.scales = {40}, .block_size = 0})), HasOps({"octet:MatMul"}))
      << "scales along K";
}

// Something else reads the reals: they are made once, for all.
TEST(PackFourBits, LeavesTables) {
  GraphBuilder b(21);
  const ValueId reals = Add(b, {.shape = {32, 6}, .scales = {2, 6}});
  b.Output(b.Op("MatMul", {b.Input("x", {2, 32}), reals}));
  b.Output(b.Op("Gather", {reals, b.Input("i", {3}, DType::kI64)}));
  const Graph graph = b.Build();
  EXPECT_THAT(Optimised(graph), HasOps({"octet:MatMul", "Gather"}));
}

// 8-bit kernels take the integers.
TEST(PackFourBits, LeavesProductsOfIntegers) {
  for (const bool moved : {false, true}) {
    for (const bool blocks : {false, true}) {
      GraphBuilder b(21);
      Weights w{.zero_points = false};
      if (!blocks) {
        w.scales = {6};
        w.axis = 1;
        w.block_size = 0;
      }
      const ValueId reals = Add(b, w);
      ValueId x = b.FakeQuantize(b.Input("x", {2, 40}), 0.02F, 128);
      if (moved) x = b.Op("Reshape", {x, b.IntList({1, 2, 40})});
      b.Output(b.Op("MatMul", {x, reals}));
      PassContext context;
      context.precision = Precision::kInt8;
      const Graph after = Optimised(b.Build(), context);
      EXPECT_EQ(CountOps(after, kPacked), blocks ? 1 : 0) << Dump(after);
      EXPECT_EQ(CountOps(after, "octet:MatMul"), blocks ? 0 : 1) << Dump(after);
    }
  }
}

TEST(PackFourBits, OneRowMayBeAllThatIsKnown) {
  GraphBuilder b(21);
  const ValueId reals = Add(b, {});
  b.Output(b.Op("MatMul", {b.Input("x", {kUnknownDim, 40}), reals}));
  const Graph graph = b.Build();
  EXPECT_THAT(Optimised(graph), HasOps({kPacked}));
  EXPECT_TRUE(
      SameAnswers(WithUnknownExtents(graph, 3), WithUnknownExtents(Optimised(graph), 3), kSums));
}

TEST(PackFourBits, AVectorHasNoRows) {
  GraphBuilder b(21);
  const ValueId reals = Add(b, {});
  b.Output(b.Op("MatMul", {b.Input("x", {40}), reals}));
  EXPECT_THAT(Planned(b.Build()), HasOps({"Unsqueeze", "octet:MatMul", "Squeeze"}))
      << "of reals, made once";
}

// As before a graph is cut: what reads integers per column may be told only there.
TEST(PackFourBits, TakesMatMulsInBlocksWhereNobodyWritesOctets) {
  PassContext context;
  context.disabled = {"canonical_matmul"};
  EXPECT_THAT(Planned(ProductOf({}), context), HasOps({kPacked}));
  EXPECT_THAT(Planned(ProductOf({.scales = {6}, .axis = 1, .block_size = 0}), context),
              HasNo(kPacked));
  GraphBuilder b(21);
  const ValueId reals = Add(b, {.shape = {32, 6}, .scales = {2, 6}});
  b.Output(b.Op("Gemm", {b.Input("x", {5, 32}), reals}));
  EXPECT_THAT(Planned(b.Build(), context), HasOps({"Gemm"})) << "of reals, made once";
  context.disabled.insert("pack_four_bits");
  EXPECT_THAT(Planned(ProductOf({}), context), HasOps({"MatMul"})) << "of reals, made once";
}

// Scales of 16 bits, bits beside 4, zero points packed and real, rows whose blocks are listed.
TEST(PackFourBits, TakesMatMulNBits) {
  struct Case {
    int64_t bits;
    bool packed_zeros, real_zeros, listed, in_order;
    bool packs;
  };
  for (const Case& c :
       {Case{4, false, false, false, false, true}, Case{4, true, false, false, false, true},
        Case{2, true, false, false, false, true}, Case{4, true, false, true, true, true},
        Case{4, true, false, true, false, false}, Case{4, false, true, false, false, false},
        Case{8, true, false, false, false, false}}) {
    GraphBuilder b;
    const int64_t blocks = 3;
    std::vector<ValueId> inputs = {
        b.Input("x", {2, 40}),
        b.RandomInts(DType::kU8, {5, blocks, 16 * c.bits / 8}, 0, 255),
        b.Random({5 * blocks}, 0.1F, 0.5F),
        kNone,
        kNone,
        b.Random({5}),
    };
    if (c.packed_zeros)
      inputs[3] = b.RandomInts(DType::kU8, {5 * ((blocks * c.bits + 7) / 8)}, 0, 255);
    if (c.real_zeros) inputs[3] = b.Random({5 * blocks}, 0, 15);
    std::vector<int32_t> groups;
    for (int32_t k = 0; k < 40; ++k) groups.push_back(c.in_order ? k / 16 : k % 3);
    if (c.listed) inputs[4] = b.Constant<int32_t>({40}, groups);
    b.Output(b.Op(
        "com.microsoft:MatMulNBits", inputs,
        {{"K", int64_t{40}}, {"N", int64_t{5}}, {"bits", c.bits}, {"block_size", int64_t{16}}}));
    EXPECT_THAT(Planned(b.Build()), HasOps({c.packs ? kPacked : "octet:MatMul"})) << c.bits;
  }
}

}  // namespace pack_four_bits_test
}  // namespace octet
