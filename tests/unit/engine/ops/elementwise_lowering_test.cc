// Elementwise operators on blocks of floats and on tables of bytes, against the reference kernel: bit for bit, because
// both compute the same reals and round once.
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace elementwise_lowering_test {

using testing::Elements;
using ::testing::ElementsAre;
using testing::Lower;
using testing::OneNode;
using testing::PowerOfTwoScales;
using testing::RandomBytes;
using testing::RandomReals;

Tensor Narrowed(const Tensor& reals, DType dtype) {
  Tensor narrow(dtype, reals.shape());
  ConvertTensor(reals.view(), narrow.mutable_view());
  return narrow;
}

void ExpectReference(const OneNode& node, std::string_view impl, std::string_view runs) {
  const auto lowered = Lower(node);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(lowered->layer.impl, impl);
  EXPECT_EQ(lowered->layer.runs, runs);
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  const Tensor& want = (*expected)[0];
  const Tensor& got = lowered->outputs[0];
  ASSERT_EQ(got.spec(), want.spec());
  const std::span<const std::byte> want_bytes(static_cast<const std::byte*>(want.data()),
                                              want.bytes());
  const std::span<const std::byte> got_bytes(static_cast<const std::byte*>(got.data()),
                                             got.bytes());
  const auto [w, g] = std::ranges::mismatch(want_bytes, got_bytes);
  EXPECT_EQ(w, want_bytes.end()) << "first difference in byte " << w - want_bytes.begin();
}

struct UnaryCase {
  const char* op;
  int version;
};
void PrintTo(const UnaryCase& c, std::ostream* out) { *out << c.op; }

class UnaryLoweringTest : public ::testing::TestWithParam<UnaryCase> {
 protected:
  OneNode Node() const { return OneNode(GetParam().op, GetParam().version); }
};
INSTANTIATE_TEST_SUITE_P(Operators, UnaryLoweringTest,
                         ::testing::Values(UnaryCase{"Relu", 14}, UnaryCase{"LeakyRelu", 16},
                                           UnaryCase{"Sigmoid", 13}, UnaryCase{"HardSigmoid", 6},
                                           UnaryCase{"HardSwish", 14}, UnaryCase{"Tanh", 13},
                                           UnaryCase{"Elu", 6}, UnaryCase{"Softplus", 1},
                                           UnaryCase{"Erf", 13}, UnaryCase{"Gelu", 20},
                                           UnaryCase{"Exp", 13}, UnaryCase{"Abs", 13},
                                           UnaryCase{"Neg", 13}, UnaryCase{"Round", 11},
                                           UnaryCase{"Clip", 13}),
                         [](const auto& test) { return std::string(test.param.op); });

TEST_P(UnaryLoweringTest, ComputesFloatsBlockByBlock) {
  // More than two blocks, the last of them not full.
  ExpectReference(Node().Input(RandomReals({3, 7, 131}, 1, -4, 4)), "octet:elementwise", "f32");
}

TEST_P(UnaryLoweringTest, WidensAndRoundsNarrowFloats) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    SCOPED_TRACE(DTypeName(dtype));
    ExpectReference(
        Node().Input(Narrowed(RandomReals({5, 300}, 1, -4, 4), dtype)).Declare(dtype, {}),
        "octet:elementwise", "f32");
  }
}

TEST_P(UnaryLoweringTest, ReadsAndWritesBytes) {
  for (const DType dtype : {DType::kU8, DType::kI8}) {
    SCOPED_TRACE(DTypeName(dtype));
    ExpectReference(Node()
                        .Input(RandomBytes(dtype, {4, 333}, 1), QuantParams::PerTensor(0.031f, 17))
                        .Declare(DType::kU8, {}, QuantParams::PerTensor(0.017f, 90)),
                    "octet:elementwise", "int8");
  }
}

TEST_P(UnaryLoweringTest, ReadsBytesAndWritesFloats) {
  ExpectReference(
      Node()
          .Input(RandomBytes(DType::kU8, {2, 1500}, 1), QuantParams::PerTensor(0.031f, 120))
          .Declare(DType::kF32, {}),
      "octet:elementwise", "f32");
}

struct Shapes {
  const char* name;
  Shape a, b;
};
void PrintTo(const Shapes& s, std::ostream* out) { *out << s.name; }

class BinaryLoweringTest : public ::testing::TestWithParam<Shapes> {};
INSTANTIATE_TEST_SUITE_P(Broadcasts, BinaryLoweringTest,
                         ::testing::Values(Shapes{"Alike", {3, 1400}, {3, 1400}},
                                           Shapes{"Scalar", {3, 50}, {}},
                                           Shapes{"ScalarFirst", {}, {3, 50}},
                                           Shapes{"LastAxis", {4, 5, 77}, {77}},
                                           Shapes{"MiddleAxis", {4, 5, 77}, {5, 1}},
                                           Shapes{"BothWays", {4, 1, 9}, {5, 1}}),
                         [](const auto& test) { return std::string(test.param.name); });

constexpr const char* kBinary[] = {"Add", "Sub", "Mul", "Div"};

TEST_P(BinaryLoweringTest, ComputesFloats) {
  for (const char* op : kBinary) {
    SCOPED_TRACE(op);
    ExpectReference(
        OneNode(op, 13).Input(RandomReals(GetParam().a, 1)).Input(RandomReals(GetParam().b, 2)),
        "octet:elementwise", "f32");
  }
}

TEST_P(BinaryLoweringTest, ComputesOnTheRealsOfBytes) {
  for (const std::string_view op : kBinary) {
    // A factor per channel has a kernel of its own (channel_scale_test).
    if (op == "Mul" && GetParam().name == std::string_view("LastAxis")) continue;
    SCOPED_TRACE(op);
    ExpectReference(
        OneNode(std::string(op), 13)
            .Input(RandomBytes(DType::kU8, GetParam().a, 1), QuantParams::PerTensor(0.023f, 128))
            .Input(RandomBytes(DType::kI8, GetParam().b, 2), QuantParams::PerTensor(0.051f, -3))
            .Declare(DType::kU8, {}, QuantParams::PerTensor(0.06f, 131)),
        "octet:elementwise", "int8");
  }
}

TEST_P(BinaryLoweringTest, AppliesPostOpsInOrder) {
  const OneNode sum =
      OneNode("Add", 13).Input(RandomReals(GetParam().a, 1)).Input(RandomReals(GetParam().b, 2));
  ExpectReference(OneNode(sum)
                      .Post({.kind = PostOp::Kind::kRelu})
                      .Post({.kind = PostOp::Kind::kHardSigmoid, .alpha = 0.2f, .beta = 0.5f}),
                  "octet:elementwise", "f32");
}

TEST(BinaryLoweringTypesTest, MixesFloatsAndBytes) {
  ExpectReference(
      OneNode("Add", 13)
          .Input(RandomReals({3, 700}, 1))
          .Input(RandomBytes(DType::kU8, {3, 700}, 2), QuantParams::PerTensor(0.02f, 100))
          .Declare(DType::kBF16, {}),
      "octet:elementwise", "f32");
}

TEST(BinaryLoweringTypesTest, LeavesScalesPerChannelToTheReference) {
  const auto lowered = Lower(OneNode("Add", 13)
                                 .Input(RandomBytes(DType::kI8, {4, 3}, 1), PowerOfTwoScales(3, 1))
                                 .Input(RandomReals({4, 3}, 2))
                                 .Declare(DType::kF32, {}));
  EXPECT_EQ(lowered.status().code(), absl::StatusCode::kUnimplemented);
}

TEST(BinaryLoweringTypesTest, ComputesIntegersInTheirOwnType) {
  const auto lowered = Lower(OneNode("Add", 13)
                                 .Input(Tensor::From<int64_t>({2}, {int64_t{1} << 40, -7}))
                                 .Input(Tensor::From<int64_t>({2}, {1, 2})));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_THAT(Elements<int64_t>(lowered->outputs[0]), ElementsAre((int64_t{1} << 40) + 1, -5));
}

OneNode Convert() { return OneNode("Convert", 1, kOctetDomain); }

TEST(ConvertLoweringTest, QuantizesHalvesToEvenAndSaturates) {
  const auto lowered = Lower(Convert()
                                 .Input(Tensor::From<float>({6}, {0.5f, 1.5f, -0.5f, 300, -300, 2}))
                                 .Declare(DType::kU8, {}, QuantParams::PerTensor(1.0f, 10)));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(lowered->layer.runs, "none");
  EXPECT_THAT(Elements<uint8_t>(lowered->outputs[0]), ElementsAre(10, 12, 10, 255, 0, 12));
}

TEST(ConvertLoweringTest, DequantizesRequantizesAndCasts) {
  const Tensor bytes = RandomBytes(DType::kU8, {3, 900}, 1);
  const QuantParams quant = QuantParams::PerTensor(0.037f, 77);
  ExpectReference(Convert().Input(bytes, quant).Declare(DType::kF32, {}), "octet:convert", "none");
  ExpectReference(
      Convert().Input(bytes, quant).Declare(DType::kI8, {}, QuantParams::PerTensor(0.05f, -3)),
      "octet:convert", "none");
  const Tensor reals = RandomReals({3, 900}, 2, -8, 8);
  ExpectReference(Convert().Input(reals).Declare(DType::kI8, {}, quant), "octet:convert", "none");
  ExpectReference(Convert().Input(reals).Declare(DType::kBF16, {}), "octet:convert", "none");
  ExpectReference(Convert().Input(Narrowed(reals, DType::kBF16)).Declare(DType::kF32, {}),
                  "octet:convert", "none");
}

struct PeriodCase {
  const char* name;
  Shape a, b;
};
void PrintTo(const PeriodCase& c, std::ostream* out) { *out << c.name; }

class PeriodLoweringTest : public ::testing::TestWithParam<PeriodCase> {};
INSTANTIATE_TEST_SUITE_P(Shapes, PeriodLoweringTest,
                         ::testing::Values(PeriodCase{"PerImage", {3, 40, 5, 33}, {3, 1, 1, 33}},
                                           PeriodCase{"PerChannel", {2, 7, 9, 300}, {300}},
                                           PeriodCase{"PerChannelFirst", {24}, {2, 50, 60, 24}},
                                           PeriodCase{"PerRow", {2, 6, 50, 8}, {2, 6, 1, 8}},
                                           PeriodCase{"InTheMiddle", {2, 3, 4, 5}, {2, 1, 4, 5}},
                                           PeriodCase{"Both", {4, 1, 16}, {1, 70, 16}},
                                           PeriodCase{"LongPeriod", {9, 700}, {700}},
                                           PeriodCase{"OneValue", {5, 6, 7}, {1}}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(PeriodLoweringTest, IsTheReference) {
  const auto [name, a, b] = GetParam();
  ExpectReference(OneNode("Mul", 14).Input(RandomReals(a, 1)).Input(RandomReals(b, 2)),
                  "octet:elementwise", "f32");
}

TEST_P(PeriodLoweringTest, IsTheReferenceBesidePostOps) {
  const auto [name, a, b] = GetParam();
  const OneNode node = OneNode("Mul", 14)
                           .Input(Narrowed(RandomReals(a, 1), DType::kBF16))
                           .Input(RandomReals(b, 2))
                           .Constant(RandomReals({a[a.rank() - 1]}, 3))
                           .Post({.kind = PostOp::Kind::kAdd})
                           .Post({.kind = PostOp::Kind::kRelu});
  ExpectReference(node, "octet:elementwise", "f32");
}

TEST_P(PeriodLoweringTest, IsTheReferenceOnTypedValues) {
  const auto [name, a, b] = GetParam();
  const OneNode node = OneNode("Add", 14)
                           .Input(RandomBytes(DType::kU8, a, 1), QuantParams::PerTensor(0.02f, 100))
                           .Input(RandomBytes(DType::kI8, b, 2), QuantParams::PerTensor(0.01f, 3))
                           .Declare(DType::kU8, {}, QuantParams::PerTensor(0.03f, 120));
  ExpectReference(node, "octet:elementwise", "int8");
}

TEST(PowLoweringTest, SquaresAndOtherPowersAreTheReference) {
  for (const float exponent : {2.0F, 2.5F, -1.0F}) {
    SCOPED_TRACE(exponent);
    ExpectReference(OneNode("Pow", 15)
                        .Input(RandomReals({7, 300}, 1, 0.1F, 3))
                        .Constant(Tensor::Scalar(exponent)),
                    "octet:elementwise", "f32");
  }
}

}  // namespace elementwise_lowering_test
}  // namespace octet
