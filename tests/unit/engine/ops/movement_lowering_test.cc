// The production forms of data movement: octet:copy and octet:concat.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace movement_lowering_test {

using testing::Elements;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Iota;
using testing::Lower;
using testing::OneNode;

const QuantParams kHalf = QuantParams::PerTensor(0.5f, 10);
const QuantParams kQuarter = QuantParams::PerTensor(0.25f, 0);

TEST(MovementLoweringTest, MovesStoredBytesWithoutTheReferenceWrapper) {
  const auto lowered = Lower(
      OneNode("Transpose", 13).Input(Iota<uint8_t>({2, 3}), kHalf).Declare(DType::kU8, {}, kHalf));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_THAT(Elements<uint8_t>(lowered->outputs[0]), ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_EQ(lowered->layer.impl, "octet:copy");
  EXPECT_EQ(lowered->layer.runs, "none");
}

TEST(MovementLoweringTest, ReadsConstantOperandsWhereThePlanKeepsThem) {
  const auto lowered = Lower(OneNode("Gather", 13).Input(Iota<float>({3, 2})).Ints({2, 0}));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_THAT(Elements<float>(lowered->outputs[0]), ElementsAre(4, 5, 0, 1));
}

TEST(MovementLoweringTest, LeavesRequantizationToOthers) {
  const auto lowered = Lower(OneNode("Transpose", 13)
                                 .Input(Iota<uint8_t>({2, 3}), kHalf)
                                 .Declare(DType::kU8, {}, kQuarter));
  EXPECT_EQ(lowered.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Message(lowered.status())), HasSubstr("cannot requantize"));
}

TEST(PadLoweringTest, FillsIntegersWithTheirZeroPoint) {
  const auto lowered = Lower(OneNode("Pad", 13)
                                 .Input(Tensor::From<uint8_t>({1, 2}, {1, 2}), kHalf)
                                 .Ints({0, 1, 0, 2})
                                 .Declare(DType::kU8, {}, kHalf));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_THAT(Elements<uint8_t>(lowered->outputs[0]), ElementsAre(10, 1, 2, 10, 10));
  EXPECT_EQ(lowered->layer.impl, "octet:copy");
}

TEST(PadLoweringTest, RoundsTheFillValueToTheStoredType) {
  const auto bytes = Lower(OneNode("Pad", 13)
                               .Input(Tensor::From<uint8_t>({1}, {1}), kHalf)
                               .Ints({1, 0})
                               .Constant(Tensor::Scalar(2.2f))
                               .Declare(DType::kU8, {}, kHalf));
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_THAT(Elements<uint8_t>(bytes->outputs[0]), ElementsAre(14, 1)) << "2.2 / 0.5 rounds to 4";
  const auto narrow = Lower(OneNode("Pad", 13)
                                .Input(Tensor::From<BFloat16>({1}, {ToBFloat16(1.0f)}))
                                .Ints({1, 0})
                                .Constant(Tensor::Scalar(-3.0f))
                                .Declare(DType::kBF16, {}));
  ASSERT_TRUE(narrow.ok()) << narrow.status();
  EXPECT_EQ(ToFloat(narrow->outputs[0].span<BFloat16>()[0]), -3.0f);
}

TEST(PadLoweringTest, ConvertsAFillValueOfAnotherReal) {
  const auto as = [](DType dtype, const Tensor& reals) {
    Tensor tensor(dtype, reals.shape());
    ConvertTensor(reals.view(), tensor.mutable_view());
    return tensor;
  };
  const auto pad = [&](DType data, DType fill) {
    return OneNode("Pad", 13)
        .Input(as(data, Tensor::From<float>({2}, {5, 6})))
        .Ints({1, 2})
        .Constant(as(fill, Tensor::Scalar(-1.5F)));
  };
  constexpr DType kReals[] = {DType::kF32, DType::kF16, DType::kBF16};
  for (const DType data : kReals) {
    for (const DType fill : kReals) {
      const auto lowered = Lower(pad(data, fill));
      ASSERT_TRUE(lowered.ok()) << lowered.status();
      EXPECT_EQ(lowered->outputs[0].dtype(), data);
      EXPECT_THAT(Elements<float>(as(DType::kF32, lowered->outputs[0])),
                  ElementsAre(-1.5F, 5, 6, -1.5F, -1.5F))
          << DTypeName(data) << " filled with " << DTypeName(fill);
    }
  }
  // What is known only when it runs is the reference kernel's, which widens both.
  const OneNode late = OneNode("Pad", 13)
                           .Input(Tensor::From<float>({1}, {5}))
                           .Ints({1, 0})
                           .Input(as(DType::kF16, Tensor::Scalar(-1.5F)));
  EXPECT_EQ(Lower(late).status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(testing::Reference(late), ElementsAre(-1.5F, 5));
}

TEST(ConcatLoweringTest, MovesInputsOfOneQuantization) {
  const auto lowered = Lower(OneNode("Concat", 13)
                                 .Input(Tensor::From<uint8_t>({2, 1}, {1, 2}), kHalf)
                                 .Input(Tensor::From<uint8_t>({2, 2}, {3, 4, 5, 6}), kHalf)
                                 .Set("axis", int64_t{1})
                                 .Declare(DType::kU8, {}, kHalf));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_THAT(Elements<uint8_t>(lowered->outputs[0]), ElementsAre(1, 3, 4, 2, 5, 6));
  EXPECT_EQ(lowered->layer.impl, "octet:concat");
  EXPECT_EQ(lowered->layer.runs, "none");
}

TEST(ConcatLoweringTest, RequantizesAsTheReferenceDoesForEveryByte) {
  for (const DType from : {DType::kU8, DType::kI8}) {
    Tensor all(from, {2, 128});
    for (int i = 0; i < 256; ++i)
      static_cast<uint8_t*>(all.mutable_data())[i] = static_cast<uint8_t>(i);
    const OneNode node = OneNode("Concat", 13)
                             .Input(all, QuantParams::PerTensor(0.3f, 5))
                             .Input(Tensor::From<uint8_t>({2, 1}, {9, 8}), kHalf)
                             .Set("axis", int64_t{1})
                             .Declare(DType::kU8, {}, kHalf);
    const auto lowered = Lower(node);
    const auto reference = node.Run();
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    ASSERT_TRUE(reference.ok()) << reference.status();
    EXPECT_EQ(Elements<uint8_t>(lowered->outputs[0]), Elements<uint8_t>((*reference)[0]));
    EXPECT_EQ(lowered->layer.runs, "int8");
  }
}

TEST(ConcatLoweringTest, LeavesMixedTypesToTheReference) {
  const auto lowered = Lower(OneNode("Concat", 13)
                                 .Input(Tensor::From<uint8_t>({1}, {1}), kHalf)
                                 .Input(Tensor::From<float>({1}, {1}))
                                 .Set("axis", int64_t{0})
                                 .Declare(DType::kU8, {}, kHalf));
  EXPECT_EQ(lowered.status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace movement_lowering_test
}  // namespace octet
