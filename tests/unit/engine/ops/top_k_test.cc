// TopK: order, ties, NaN, the axis, and where k comes from in each opset.
#include <cmath>
#include <limits>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace top_k_test {

using testing::Elements;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::OneNode;

struct Result {
  std::vector<float> values;
  std::vector<int64_t> positions;
};

Result Reference(OneNode node) {
  const auto outputs = node.Outputs(2).Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  if (!outputs.ok()) return {};
  return {Elements<float>((*outputs)[0]), Elements<int64_t>((*outputs)[1])};
}

OneNode TopK(const Tensor& x, int64_t k) { return OneNode("TopK", 11).Input(x).Ints({k}); }

TEST(TopKTest, GivesTheLargestInOrder) {
  const Result result =
      Reference(TopK(Tensor::From<float>({2, 4}, {3, 1, 4, 2, -1, -3, -2, 9}), 2));
  EXPECT_THAT(result.values, ElementsAre(4, 3, 9, -1));
  EXPECT_THAT(result.positions, ElementsAre(2, 0, 3, 0));
}

TEST(TopKTest, GivesTheSmallestAlongAnyAxis) {
  const Result result = Reference(TopK(Tensor::From<float>({3, 2}, {3, 10, 1, 30, 2, 20}), 2)
                                      .Set("axis", int64_t{0})
                                      .Set("largest", int64_t{0}));
  EXPECT_THAT(result.values, ElementsAre(1, 10, 2, 20));
  EXPECT_THAT(result.positions, ElementsAre(1, 0, 2, 2));
}

TEST(TopKTest, PrefersTheFirstOfEqualElements) {
  const Tensor x = Tensor::From<float>({5}, {1, 7, 7, 1, 7});
  EXPECT_THAT(Reference(TopK(x, 3)).positions, ElementsAre(1, 2, 4));
  EXPECT_THAT(Reference(TopK(x, 2).Set("largest", int64_t{0})).positions, ElementsAre(0, 3));
}

TEST(TopKTest, TakesNaNForTheLargest) {
  const Tensor x = Tensor::From<float>({4}, {1, std::nanf(""), 5, 2});
  EXPECT_THAT(Reference(TopK(x, 2)).positions, ElementsAre(1, 2));
  EXPECT_THAT(Reference(TopK(x, 3).Set("largest", int64_t{0})).positions, ElementsAre(0, 3, 2));
}

TEST(TopKTest, TakesKFromAnAttributeInTheFirstOpset) {
  const Result result =
      Reference(OneNode("TopK", 1).Input(Tensor::From<float>({3}, {1, 3, 2})).Set("k", int64_t{1}));
  EXPECT_THAT(result.positions, ElementsAre(1));
}

TEST(TopKTest, RefusesMoreThanTheAxisHas) {
  const Tensor x = Tensor::From<float>({3}, {1, 3, 2});
  EXPECT_THAT(TopK(x, 4).Outputs(2).InferredShape(), HasSubstr("'k' is 4, the axis has 3"));
  EXPECT_THAT(TopK(x, -1).Outputs(2).InferredShape(), HasSubstr("at least 0"));
  EXPECT_EQ(TopK(x, 0).Outputs(2).InferredShape(), "[0]");
}

// ---- The fast form

// Values and positions, bit for bit but for a NaN's.
template <typename T>
void ExpectAsReference(OneNode node) {
  node.Outputs(2);
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  for (const int threads : {1, 2}) {
    const auto lowered = testing::Lower(node, {.isa = "test", .threads = threads});
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    EXPECT_EQ(lowered->layer.impl, "octet:top_k");
    EXPECT_EQ(Elements<int64_t>(lowered->outputs[1]), Elements<int64_t>((*expected)[1]));
    const std::vector<T> want = Elements<T>((*expected)[0]);
    const std::vector<T> got = Elements<T>(lowered->outputs[0]);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      if (want[i] == want[i]) {
        ASSERT_EQ(got[i], want[i]) << i;
      } else {
        ASSERT_NE(got[i], got[i]) << i;
      }
    }
  }
}

// Integers from -high to high: the fewer, the more of them are equal.
template <typename T>
Tensor Whole(Shape shape, int high) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> uniform(-high, high);
  Tensor tensor(DTypeOf<T>, std::move(shape));
  for (T& x : tensor.mutable_span<T>()) x = static_cast<T>(uniform(random));
  return tensor;
}

template <typename T>
void ExpectEveryForm(const Shape& shape, int axis, int64_t k, int high) {
  for (const int64_t largest : {0, 1}) {
    SCOPED_TRACE(Format("{} {} along {}: {} of which up to {}, largest {}", DTypeName(DTypeOf<T>),
                        shape.ToString(), axis, k, high, largest));
    ExpectAsReference<T>(
        TopK(Whole<T>(shape, high), k).Set("axis", int64_t{axis}).Set("largest", largest));
  }
}

TEST(TopKLoweringTest, OrdersEveryTypeOfNumbers) {
  const Shape shape = {3, 700};
  for (const int64_t k : {1, 5, 300, 700}) {
    ExpectEveryForm<float>(shape, 1, k, 100000);
    ExpectEveryForm<double>(shape, 1, k, 100000);
    ExpectEveryForm<int8_t>(shape, 1, k, 120);
    ExpectEveryForm<int16_t>(shape, 1, k, 30000);
    ExpectEveryForm<int32_t>(shape, 1, k, 100000);
    ExpectEveryForm<int64_t>(shape, 1, k, 100000);
    ExpectEveryForm<uint8_t>(shape, 1, k, 255);
    ExpectEveryForm<uint16_t>(shape, 1, k, 65535);
    ExpectEveryForm<uint32_t>(shape, 1, k, 100000);
    ExpectEveryForm<uint64_t>(shape, 1, k, 100000);
  }
}

// Rows that are cut into blocks, and into no whole number of them; few rows and many, along every axis.
TEST(TopKLoweringTest, FindsFewOfMany) {
  for (const int high : {0, 3, 1000000}) {
    ExpectEveryForm<float>({1, 20000}, 1, 300, high);
    ExpectEveryForm<float>({20001}, 0, 1000, high);
    ExpectEveryForm<float>({2, 3000, 3}, 1, 100, high);
    ExpectEveryForm<float>({5000, 2}, 0, 7, high);
    ExpectEveryForm<float>({4000, 8}, 1, 2, high);
  }
}

// Each element comes before all that were seen, or behind them.
TEST(TopKLoweringTest, FindsTheFirstOfWhatIsSorted) {
  Tensor rising = testing::Iota<float>({1, 9000});
  Tensor falling = testing::Iota<float>({1, 9000});
  for (float& x : falling.mutable_span<float>()) x = -x;
  for (const Tensor& x : {rising, falling}) {
    for (const int64_t largest : {0, 1})
      ExpectAsReference<float>(TopK(x, 200).Set("largest", largest));
  }
}

TEST(TopKLoweringTest, OrdersWhatIsNoOrdinaryNumber) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float numbers[] = {0.0F,       -0.0F,  1.0F,          -1.0F,         kInfinity,
                           -kInfinity, 1e-41F, std::nanf(""), -std::nanf("")};
  Tensor x(DType::kF32, {2, 1500});
  std::mt19937 random(3);
  for (float& e : x.mutable_span<float>()) e = numbers[random() % std::size(numbers)];
  for (const int64_t k : {1, 400, 1500}) {
    for (const int64_t largest : {0, 1})
      ExpectAsReference<float>(TopK(x, k).Set("largest", largest));
  }
  Tensor only = Tensor(DType::kF32, {1, 600});
  for (float& e : only.mutable_span<float>()) e = std::nanf("");
  for (const int64_t largest : {0, 1})
    ExpectAsReference<float>(TopK(only, 3).Set("largest", largest));
}

TEST(TopKLoweringTest, LeavesValuesWithAScaleToTheReference) {
  const auto lowered = testing::Lower(
      OneNode("TopK", 11)
          .Input(testing::RandomBytes(DType::kU8, {2, 9}, 1), QuantParams::PerTensor(0.5F, 128))
          .Ints({3})
          .Outputs(2));
  EXPECT_EQ(lowered.status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace top_k_test
}  // namespace octet
