// Resize and Upsample: how extents follow from scales and sizes, and which elements are taken.
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/one_node.h"

namespace octet::testing {
namespace resize_test {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;

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

OneNode Early(Tensor x, std::vector<float> scales) {
  return OneNode("Resize", 10).Input(std::move(x)).Constant(Floats(std::move(scales)));
}

TEST(Resize, ExtentsAreProductsInFloat) {
  EXPECT_EQ(Scaled(Iota<float>({1, 1, 10, 10}), {1, 1, 1.4F, 0.7F}).InferredShape(), "[1,1,14,7]");
  for (const float scale : {0.7F, 0.9F, 1.4F, 1.8F, 1.9F}) {
    for (const int64_t extent : {5, 10, 20}) {
      const auto want = static_cast<int64_t>(std::floor(static_cast<float>(extent) * scale));
      for (const char* mode : {"nearest", "linear"}) {
        for (const OneNode& node :
             {Scaled(Iota<float>({extent}), {scale}),
              Scaled(Iota<float>({extent}), {scale})
                  .Set("coordinate_transformation_mode", std::string("asymmetric")),
              Early(Iota<float>({extent}), {scale})}) {
          const auto y = Answer(OneNode(node).Set("mode", std::string(mode)));
          EXPECT_EQ(std::ssize(y), want) << extent << " by " << scale;
          EXPECT_THAT(y, Each(AllOf(Ge(0), Le(static_cast<float>(extent - 1)))));
        }
      }
    }
  }
  // 2^24 + 1 is no float.
  EXPECT_EQ(OneNode("Resize", 13)
                .Spec(DType::kF32, Shape{1, (1 << 24) + 1})
                .Absent()
                .Constant(Floats({2, 1}))
                .InferredShape(),
            "[2,16777217]");
}

// ONNX's case test_resize_downsample_nearest of opset 10, and ONNX Runtime's rule for it.
TEST(Resize, NearestRoundsUpWhereAnEarlyAxisShrinks) {
  const Tensor x = Tensor::From<float>({1, 1, 2, 4}, {1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_THAT(Answer(Early(x, {1, 1, 0.6F, 0.6F})), ElementsAre(1, 3));
  // Per axis: rows lie at 0, 0.4, 0.8, 1.2, 1.6, columns at 0 and 1.67.
  EXPECT_THAT(Answer(Early(x, {1, 1, 2.5F, 0.6F})), ElementsAre(1, 3, 1, 3, 1, 3, 5, 7, 5, 7));
  EXPECT_THAT(Answer(OneNode("Upsample", 9).Input(Iota<float>({2})).Constant(Floats({2.5F}))),
              ElementsAre(0, 0, 0, 1, 1));
  // Output 7 lies at 7 / 0.7 = 10, not a little behind it.
  EXPECT_THAT(Answer(Early(Iota<float>({20}), {0.7F})),
              ElementsAre(0, 2, 3, 5, 6, 8, 9, 10, 12, 13, 15, 16, 18, 19));
}

TEST(Resize, CropsFillWithTheExtrapolationValueOfEveryType) {
  const auto fill = [](Tensor x, float value) {
    const auto outputs =
        OneNode("Resize", 13)
            .Input(std::move(x))
            .Constant(Floats({0, 2}))
            .Constant(Floats({1}))
            .Set("mode", std::string("nearest"))
            .Set("coordinate_transformation_mode", std::string("tf_crop_and_resize"))
            .Set("extrapolation_value", value)
            .Run();
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return outputs.ok() ? outputs->front() : Tensor(DType::kU8, Shape{0});
  };
  EXPECT_THAT(Elements<float>(fill(Tensor::From<float>({4}, {1, 2, 3, 4}), 10.5F)),
              ElementsAre(1, 3, 10.5F, 10.5F));
  EXPECT_THAT(Elements<double>(fill(Tensor::From<double>({4}, {1, 2, 3, 4}), 10.5F)),
              ElementsAre(1, 3, 10.5, 10.5));
  const Tensor bytes = Tensor::From<uint8_t>({4}, {1, 2, 3, 4});
  EXPECT_THAT(Elements<uint8_t>(fill(bytes, 10.5F)), ElementsAre(1, 3, 10, 10));
  EXPECT_THAT(Elements<uint8_t>(fill(bytes, 300)), ElementsAre(1, 3, 255, 255));
  EXPECT_THAT(Elements<int8_t>(fill(Tensor::From<int8_t>({4}, {1, 2, 3, 4}), -300)),
              ElementsAre(1, 3, -128, -128));
  EXPECT_THAT(Elements<int32_t>(fill(Tensor::From<int32_t>({4}, {1, 2, 3, 4}), -7)),
              ElementsAre(1, 3, -7, -7));
  EXPECT_THAT(Elements<int64_t>(fill(Tensor::From<int64_t>({4}, {1, 2, 3, 4}), 1e30F)),
              ElementsAre(1, 3, INT64_MAX, INT64_MAX));
  EXPECT_THAT(Elements<bool>(fill(Tensor::From<bool>({4}, {false, true, false, true}), 2)),
              ElementsAre(false, false, true, true));
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
