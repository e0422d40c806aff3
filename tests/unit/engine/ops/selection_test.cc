// NonZero, as the program that runs it sees it.
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/tensor/quantize.h"
#include "tests/support/strings.h"

namespace octet::testing {
namespace selection_test {

using ::testing::ElementsAre;

TEST(NonZero, TakesNegativeZerosForZeros) {
  const Tensor reals = Tensor::From<double>({4}, {0.0, -0.0, 1.5, -0.0});
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF32, DType::kF64}) {
    Tensor x(dtype, reals.shape());
    ConvertTensor(reals.view(), x.mutable_view());
    const auto outputs = RunAsModel(OneNode("NonZero", 13).Input(x));
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_THAT(Elements<int64_t>(outputs->front()), ElementsAre(2)) << DTypeName(dtype);
  }
}

TEST(NonZero, ReadsEveryBitOfIntegers) {
  const auto outputs =
      RunAsModel(OneNode("NonZero", 13).Input(Tensor::From<int16_t>({3}, {0, INT16_MIN, 1})));
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Elements<int64_t>(outputs->front()), ElementsAre(1, 2));
}

}  // namespace selection_test
}  // namespace octet::testing
