// octet:FourBitMatMul against its reference kernel: both forms, extents around words, panels and strips; what it keeps in memory.
#include "engine/ops/four_bit_product.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/onednn/isa.h"
#include "engine/onednn/runtime.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace four_bit_product_test {

using testing::Elements;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Lower;
using testing::OneNode;
using testing::RandomBytes;
using testing::RandomReals;

struct Problem {
  int64_t rows, k, n, block;
  bool zero_points = false;
  bool bias = false;

  int64_t blocks() const { return (k + block - 1) / block; }
};

OneNode Product(const Problem& p) {
  OneNode node("FourBitMatMul", 1, kOctetDomain);
  node.Set("K", p.k)
      .Set("block", p.block)
      .Input(RandomReals({p.rows, p.k}, 1))
      .Constant(RandomBytes(DType::kU8, {p.n, (p.k + 1) / 2}, 2))
      .Constant(RandomReals({p.n, p.blocks()}, 3, -0.5F, 0.5F));
  if (!p.zero_points && !p.bias) return node;
  if (p.zero_points) {
    Tensor zero_points = RandomBytes(DType::kI8, {p.n, p.blocks()}, 4);
    for (int8_t& z : zero_points.mutable_span<int8_t>()) z = static_cast<int8_t>(z % 9);
    node.Constant(std::move(zero_points));
  } else {
    node.Absent();
  }
  if (p.bias) node.Constant(RandomReals({p.n}, 5));
  return node;
}

// Sums in another order: |got - want| <= tolerance * (1 + |want|).
void ExpectReference(const OneNode& node, std::string_view impl, float tolerance = 1e-4F) {
  const auto lowered = Lower(node, onednn::DetectTarget(1));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_THAT(lowered->layer.impl, HasSubstr(std::string(impl)));
  EXPECT_EQ(lowered->layer.runs, "f32");
  EXPECT_GT(lowered->layer.macs, 0);
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  const std::vector<float> want = Elements<float>((*expected)[0]);
  const std::vector<float> got = Elements<float>(lowered->outputs[0]);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], tolerance * (1 + std::abs(want[i])))
        << "element " << i << " of " << (*expected)[0].shape().ToString();
  }
}

TEST(FourBitProductTest, TheReferenceReadsTwosComplementLowBitsFirst) {
  OneNode node("FourBitMatMul", 1, kOctetDomain);
  // Element 8 is in a block of its own.
  node.Set("K", int64_t{9})
      .Set("block", int64_t{8})
      .Input(Tensor::From<float>({1, 9}, {1, 10, 0, 0, 0, 0, 0, 100, 1000}))
      .Constant(Tensor::From<uint8_t>({1, 5}, {0xF7, 0x00, 0x00, 0x80, 0x03}))
      .Constant(Tensor::From<float>({1, 2}, {0.5F, 2}))
      .Constant(Tensor::From<int8_t>({1, 2}, {-1, 1}))
      .Constant(Tensor::From<float>({1}, {0.25F}));
  const auto outputs = node.Run();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Elements<float>(outputs->front()),
              ElementsAre(0.25F + 0.5F * (8 + 0 * 10 - 7 * 100) + 2 * (3 - 1) * 1000));
}

TEST(FourBitProductTest, MultipliesAFewRows) {
  for (const int64_t rows : {1, 2, 3, 4, 7, 16}) {
    for (const int64_t k : {1, 8, 37, 300}) {
      for (const int64_t n : {1, 17, 32, 70}) {
        for (const int64_t block : {8, 16, 32, 304}) {
          const bool odd = (rows + n) % 2 != 0;
          ExpectReference(Product({rows, k, n, block, odd, k > 8}), "octet:gemv_s4");
        }
      }
    }
  }
}

TEST(FourBitProductTest, MultipliesManyRowsInStrips) {
  for (const int64_t rows : {17, 40}) {
    for (const int64_t k : {1, 37, 300}) {
      for (const int64_t n : {1, 17, 64, 70, 200}) {
        for (const int64_t block : {16, 304}) {
          const bool odd = (rows + n) % 2 != 0;
          ExpectReference(Product({rows, k, n, block, odd, k > 1}), "octet:unpack_s4+");
        }
      }
    }
  }
  // More than one, and a short one behind them.
  ExpectReference(Product({17, 20000, 130, 32, true, true}), "octet:unpack_s4+", 1e-3F);
}

// Not so where q and the zero point are multiplied by it before one is taken off the other.
TEST(FourBitProductTest, InfinitiesAreNoNumbersOnlyWhereTheReferenceSaysSo) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const int64_t rows : {1, 3, 16, 17}) {
    for (const float large : {kInfinity, -kInfinity}) {
      const int64_t k = 37;
      Tensor x = RandomReals({rows, k}, 1);
      const auto values = x.mutable_span<float>();
      for (size_t i = 0; i < 16; i += 4) values[i] = large;
      values.back() = large;  // In the last word, which is not full.
      OneNode node("FourBitMatMul", 1, kOctetDomain);
      node.Set("K", k).Set("block", int64_t{16}).Input(std::move(x));
      Tensor integers(DType::kU8, Shape{33, (k + 1) / 2});
      std::ranges::fill(integers.mutable_span<uint8_t>(), uint8_t{0x33});
      Tensor zero_points(DType::kI8, Shape{33, 3});
      for (size_t i = 0; i < 99; ++i)
        zero_points.mutable_span<int8_t>()[i] = static_cast<int8_t>(i / 3 % 2 == 0 ? 5 : 2);
      node.Constant(std::move(integers)).Constant(RandomReals({33, 3}, 3, 0.01F, 0.02F));
      node.Constant(std::move(zero_points));
      const auto lowered = Lower(node, onednn::DetectTarget(1));
      const auto expected = node.Run();
      ASSERT_TRUE(lowered.ok() && expected.ok()) << lowered.status() << expected.status();
      const std::vector<float> want = Elements<float>((*expected)[0]);
      const std::vector<float> got = Elements<float>(lowered->outputs[0]);
      for (size_t i = 0; i < want.size(); ++i) {
        ASSERT_FALSE(std::isnan(want[i])) << i;
        if (std::isinf(want[i])) {
          ASSERT_EQ(got[i], want[i]) << i << " of " << rows << " rows with " << large;
        } else {
          ASSERT_NEAR(got[i], want[i], 1e-4F * (1 + std::abs(want[i]))) << i;
        }
      }
    }
  }
}

TEST(FourBitProductTest, PostOpsFollow) {
  for (const int64_t rows : {2, 20}) {
    OneNode node = Product({rows, 40, 33, 16, true, true});
    node.Post({.kind = PostOp::Kind::kRelu})
        .Input(RandomReals({rows, 33}, 6))
        .Post({.kind = PostOp::Kind::kAdd})
        .Input(RandomReals({33}, 7))
        .Post({.kind = PostOp::Kind::kMul});
    ExpectReference(node, rows == 2 ? "octet:gemv_s4" : "octet:unpack_s4+");
  }
}

TEST(FourBitProductTest, MultipliesOnATeam) {
  for (const int threads : {1, 2, 3}) {
    const onednn::TeamSizeScope team(threads);
    for (const int64_t rows : {1, 17})
      ExpectReference(Product({rows, 512, 1000, 32, true, true}), "octet:");
  }
}

// Half a byte an element, and 4 bytes for the scale of 32; plans for one row and for many share it.
TEST(FourBitProductTest, StaysFourBitsInMemory) {
  constexpr int64_t kDepth = 1024;
  constexpr int64_t kColumns = 256;
  onednn::WeightCache weights;
  std::vector<std::unique_ptr<Step>> steps;
  for (const int64_t rows : {1, 4, 64}) {
    const auto graph = Product({rows, kDepth, kColumns, 32}).Infer();
    ASSERT_TRUE(graph.ok()) << graph.status();
    const Node& node = graph->node(graph->order()[0]);
    const Target target = onednn::DetectTarget(1);
    LayerRecord layer;
    auto step = FindOp(node)->lower({*graph, node, target, Precision::kFp32, weights, {}, layer});
    ASSERT_TRUE(step.ok()) << step.status();
    for (const int i : {1, 2, 3, 4}) EXPECT_FALSE((*step)->reads_input(i)) << i;
    steps.push_back(*std::move(step));
    EXPECT_EQ(weights.resident_bytes(), kDepth * kColumns / 2 + kDepth * kColumns / 32 * 4);
  }
}

TEST(FourBitProductTest, RefusesWhatIsNotOneMatrix) {
  const auto inferred = [](int64_t k, int64_t block, Shape integers, Shape scales) {
    return OneNode("FourBitMatMul", 1, kOctetDomain)
        .Set("K", k)
        .Set("block", block)
        .Spec(DType::kF32, Shape{2, 3, 32})
        .Constant(RandomBytes(DType::kU8, std::move(integers), 1))
        .Constant(RandomReals(std::move(scales), 2))
        .InferredShape();
  };
  EXPECT_EQ(inferred(32, 16, {5, 16}, {5, 2}), "[2,3,5]");
  EXPECT_THAT(inferred(32, 16, {5, 15}, {5, 2}), HasSubstr("must have shape [5,16], got [5,15]"));
  EXPECT_THAT(inferred(32, 16, {5, 16}, {5, 3}), HasSubstr("describe no weights"));
  EXPECT_THAT(inferred(32, 12, {5, 16}, {5, 3}), HasSubstr("describe no weights"));
  EXPECT_THAT(inferred(0, 16, {5, 16}, {5, 2}), HasSubstr("describe no weights"));
  EXPECT_THAT(inferred(24, 8, {5, 12}, {5, 3}), HasSubstr("rows of 24 elements"));
}

}  // namespace four_bit_product_test
}  // namespace octet
