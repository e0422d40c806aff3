// Resize and Upsample: how extents follow from scales and sizes, and which elements are taken.
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/one_node.h"

namespace octet::testing {
namespace resize_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Tensor Floats(std::vector<float> values) {
  return Tensor::From<float>(Shape{std::ssize(values)}, std::span<const float>(values));
}

OneNode Scaled(Tensor x, std::vector<float> scales) {
  return OneNode("Resize", 13).Input(std::move(x)).Absent().Constant(Floats(std::move(scales)));
}
OneNode Sized(Tensor x, std::vector<int64_t> sizes) {
  return OneNode("Resize", 18).Input(std::move(x)).Absent().Absent().Ints(std::move(sizes));
}

std::vector<float> Answer(const OneNode& node) {
  const auto outputs = node.Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? Elements<float>(outputs->front()) : std::vector<float>{};
}

TEST(Resize, ExtentsFollowFromScales) {
  EXPECT_EQ(Scaled(Iota<float>({1, 3, 5}), {1, 2, 1.5F}).InferredShape(), "[1,6,7]");
  EXPECT_EQ(Sized(Iota<float>({1, 3, 5}), {1, 2, 9}).InferredShape(), "[1,2,9]");
  EXPECT_EQ(Sized(Iota<float>({1, 3, 5}), {2, 9})
                .Set("axes", std::vector<int64_t>{1, -1})
                .InferredShape(),
            "[1,2,9]");
  EXPECT_EQ(OneNode("Upsample", 7)
                .Input(Iota<float>({1, 2}))
                .Set("scales", std::vector<float>{1, 3})
                .InferredShape(),
            "[1,6]");
}

TEST(Resize, KeepsTheAspectRatio) {
  const auto kept = [](std::string policy) {
    return Sized(Iota<float>({4, 8}), {8, 8})
        .Set("keep_aspect_ratio_policy", std::move(policy))
        .InferredShape();
  };
  EXPECT_EQ(kept("stretch"), "[8,8]");
  EXPECT_EQ(kept("not_larger"), "[4,8]");
  EXPECT_EQ(kept("not_smaller"), "[8,16]");
}

TEST(Resize, NearestRoundsAsItIsTold) {
  const auto nearest = [](std::string rounding) {
    return Answer(Scaled(Iota<float>({4}), {0.5F})
                      .Set("coordinate_transformation_mode", std::string("half_pixel"))
                      .Set("nearest_mode", std::move(rounding)));
  };
  // The outputs lie at 0.5 and 2.5.
  EXPECT_THAT(nearest("floor"), ElementsAre(0, 2));
  EXPECT_THAT(nearest("ceil"), ElementsAre(1, 3));
  EXPECT_THAT(nearest("round_prefer_floor"), ElementsAre(0, 2));
  EXPECT_THAT(nearest("round_prefer_ceil"), ElementsAre(1, 3));
}

TEST(Resize, LinearGoesBetweenElements) {
  const auto linear = [](std::string mode) {
    return Answer(Scaled(Tensor::From<float>(Shape{2}, {0, 8}), {2})
                      .Set("mode", std::string("linear"))
                      .Set("coordinate_transformation_mode", std::move(mode)));
  };
  EXPECT_THAT(linear("half_pixel"), ElementsAre(0, 2, 6, 8));
  EXPECT_THAT(linear("asymmetric"), ElementsAre(0, 4, 8, 8));
  const auto corners = linear("align_corners");
  ASSERT_EQ(corners.size(), 4);
  EXPECT_NEAR(corners[1], 8 / 3.0, 1e-5);
}

TEST(Resize, RefusesImpossibleGrids) {
  const Tensor x = Iota<float>({1, 3});
  EXPECT_THAT(Scaled(x, {1}).InferredShape(), HasSubstr("has 1 scales or sizes for 2 axes"));
  EXPECT_THAT(Scaled(x, {1, 0}).InferredShape(), HasSubstr("cannot be resized"));
  EXPECT_THAT(Scaled(x, {1, std::nanf("")}).InferredShape(), HasSubstr("cannot be resized"));
  EXPECT_THAT(Scaled(x, {1, 1e30F}).InferredShape(), HasSubstr("cannot be resized"));
  EXPECT_THAT(Sized(x, {1, -1}).InferredShape(), HasSubstr("cannot be resized"));
  EXPECT_THAT(OneNode("Resize", 13).Input(x).InferredShape(),
              HasSubstr("has neither scales nor sizes"));
  EXPECT_THAT(Scaled(x, {1, 2}).Set("mode", std::string("sharp")).InferredShape(),
              HasSubstr("unknown 'mode': 'sharp'"));
}

}  // namespace resize_test
}  // namespace octet::testing
