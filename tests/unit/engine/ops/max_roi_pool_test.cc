// MaxRoiPool on an image whose pixels are their numbers.
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/one_node.h"

namespace octet::testing {
namespace max_roi_pool_test {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

OneNode Pool(std::vector<float> region) {
  OneNode node("MaxRoiPool", 1);
  node.Input(Iota<float>({2, 1, 4, 4}))
      .Input(Tensor::From<float>(Shape{1, 5}, std::span<const float>(region)))
      .Set("pooled_shape", std::vector<int64_t>{2, 2});
  return node;
}

std::vector<float> Answer(const OneNode& node) {
  const auto outputs = node.Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? Elements<float>(outputs->front()) : std::vector<float>{};
}

TEST(MaxRoiPool, TakesTheLargestPixelOfEachBin) {
  EXPECT_EQ(Pool({0, 0, 0, 3, 3}).InferredShape(), "[1,1,2,2]");
  EXPECT_THAT(Answer(Pool({0, 0, 0, 3, 3})), ElementsAre(5, 7, 13, 15));
  EXPECT_THAT(Answer(Pool({1, 0, 0, 3, 3})), ElementsAre(21, 23, 29, 31));
  EXPECT_THAT(Answer(Pool({0, 0, 0, 6, 6}).Set("spatial_scale", 0.5F)), ElementsAre(5, 7, 13, 15));
  // 5 times 0.7 is 3.5 in floats, and less in doubles.
  EXPECT_THAT(Answer(Pool({0, 0, 0, 5, 5}).Set("spatial_scale", 0.7F)),
              ElementsAre(10, 11, 14, 15));
  // Three pixels in two bins: both have the one in between.
  EXPECT_THAT(Answer(Pool({0, 1, 1, 3, 3})), ElementsAre(10, 11, 14, 15));
  EXPECT_THAT(Answer(Pool({0, 2, 1, 2, 1})), Each(6)) << "one pixel is each bin's";
}

TEST(MaxRoiPool, BinsOutsideOfTheImageAreEmpty) {
  EXPECT_THAT(Answer(Pool({0, 10, 10, 12, 12})), Each(0));
  EXPECT_THAT(Answer(Pool({0, 2, 2, 5, 5})), ElementsAre(15, 0, 0, 0));
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_THAT(Answer(Pool({0, -infinity, -infinity, infinity, infinity})),
              ElementsAre(::testing::_, ::testing::_, ::testing::_, 15));
}

TEST(MaxRoiPool, RefusesWhatIsNoRegion) {
  for (const float image : {-1.0F, 2.0F, std::numeric_limits<float>::quiet_NaN()}) {
    const auto outputs = Pool({image, 0, 0, 3, 3}).Run();
    EXPECT_THAT(std::string(outputs.status().message()), HasSubstr("there are 2"));
  }
  EXPECT_THAT(Pool({0, 0, 0, 3, 3}).Set("pooled_shape", std::vector<int64_t>{2}).InferredShape(),
              HasSubstr("impossible 'pooled_shape': [2]"));
}

}  // namespace max_roi_pool_test
}  // namespace octet::testing
