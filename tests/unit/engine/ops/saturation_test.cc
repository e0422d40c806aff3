// Which weights could leave 16 bits when two products are added there.
#include "engine/ops/saturation.h"

#include <gtest/gtest.h>

namespace octet {
namespace saturation_test {

TEST(Saturation, LooksAtPairsOfInputChannels) {
  // [OC, IC, taps]: 127 beside 1 is safe, beside 2 it is not.
  EXPECT_FALSE(MaySaturate(Tensor::From<int8_t>({1, 2, 2}, {127, -128, 1, 0}), 1));
  EXPECT_TRUE(MaySaturate(Tensor::From<int8_t>({1, 2, 2}, {127, 0, 2, 0}), 1));
  EXPECT_TRUE(MaySaturate(Tensor::From<int8_t>({1, 2, 2}, {0, -128, 0, -1}), 1));
  EXPECT_FALSE(MaySaturate(Tensor::From<int8_t>({1, 3, 1}, {0, 127, 127}), 1))
      << "the second pair has one channel";
}

TEST(Saturation, LooksAtTapsWhereTheChannelsOfAGroupAreOdd) {
  const Tensor one = Tensor::From<int8_t>({1, 1, 4}, {0, 127, 127, 0});
  EXPECT_FALSE(MaySaturate(one, 1));
  EXPECT_FALSE(TapsMaySaturate(one)) << "neighbours are taps 0 and 1, 2 and 3";
  EXPECT_TRUE(TapsMaySaturate(Tensor::From<int8_t>({1, 1, 4}, {127, 127, 0, 0})));
  // Channel 2 of tap 0 beside channel 0 of tap 1.
  const Tensor three = Tensor::From<int8_t>({1, 3, 2}, {0, 100, 0, 0, 100, 0});
  EXPECT_FALSE(MaySaturate(three, 1));
  EXPECT_TRUE(TapsMaySaturate(three));
}

TEST(Saturation, SplitsWeightsIntoPartsThatAddUp) {
  const Tensor whole = Tensor::From<int8_t>({1, 4}, {127, -128, 64, -3});
  const SplitWeights parts = Split(whole);
  EXPECT_FALSE(MaySaturate(parts.safe, 1));
  EXPECT_FALSE(MaySaturate(parts.rest, 1));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(parts.safe.span<int8_t>()[i] + parts.rest.span<int8_t>()[i], whole.span<int8_t>()[i]);
  }
}

}  // namespace saturation_test
}  // namespace octet
