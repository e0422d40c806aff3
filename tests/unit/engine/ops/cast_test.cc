// Changes of element type.
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace cast_test {

using testing::Answer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::OneNode;

// ONNX's numbers of element types.
constexpr int64_t kFloat = 1, kInt32 = 6, kInt64 = 7, kBool = 9, kFloat16 = 10, kBFloat16 = 16;

OneNode Cast(const Tensor& x, int64_t to) { return OneNode("Cast", 13).Input(x).Set("to", to); }

TEST(CastTest, CutsFractionsOffTowardsZero) {
  EXPECT_THAT(Answer<int32_t>(Cast(Tensor::From<float>({4}, {1.9f, -1.9f, 0.5f, -0.5f}), kInt32)),
              ElementsAre(1, -1, 0, 0));
}

TEST(CastTest, KeepsIntegersThatFloatsWouldRound) {
  const int64_t large = (int64_t{1} << 53) + 1;
  EXPECT_THAT(Answer<int64_t>(Cast(Tensor::From<int64_t>({1}, {large}), kInt64)),
              ElementsAre(large));
  EXPECT_THAT(Answer<int64_t>(Cast(Tensor::From<uint32_t>({1}, {4000000000U}), kInt64)),
              ElementsAre(4000000000));
}

TEST(CastTest, MakesTruthOfEverythingButZero) {
  EXPECT_THAT(Answer<bool>(Cast(Tensor::From<float>({4}, {0, -0.0f, 0.25f, std::nanf("")}), kBool)),
              ElementsAre(false, false, true, true));
  EXPECT_THAT(Answer<float>(Cast(Tensor::From<bool>({2}, {false, true}), kFloat)),
              ElementsAre(0, 1));
}

TEST(CastTest, RoundsToNarrowFloatsByTheNearestEvenOne) {
  // 1 + 2^-11 lies between two neighbours in FP16, 1 + 2^-8 in BF16.
  const Tensor x = Tensor::From<float>({4}, {1, 1 + 0x1p-11f, 1 + 3 * 0x1p-11f, 1 + 0x1p-8f});
  const auto back = [](const OneNode& narrow) {
    const auto outputs = narrow.Run();
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return Answer<float>(Cast((*outputs)[0], kFloat));
  };
  EXPECT_THAT(back(Cast(x, kFloat16)), ElementsAre(1, 1, 1 + 0x1p-9f, 1 + 0x1p-8f));
  EXPECT_THAT(back(Cast(x, kBFloat16)), ElementsAre(1, 1, 1, 1));
}

TEST(CastTest, NamesATypeThatItDoesNotKnow) {
  EXPECT_THAT(Cast(Tensor::From<float>({1}, {1}), 99).InferredShape(),
              HasSubstr("unsupported element type 99"));
}

TEST(CastLikeTest, TakesTheTypeOfTheOtherInput) {
  EXPECT_THAT(Answer<int32_t>(OneNode("CastLike", 15)
                                  .Input(Tensor::From<float>({2}, {2.5f, -7}))
                                  .Input(Tensor::From<int32_t>({1}, {0}))),
              ElementsAre(2, -7));
}

}  // namespace cast_test
}  // namespace octet
