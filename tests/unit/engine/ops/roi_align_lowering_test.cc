// RoiAlign's kernel against the reference kernel: small and huge regions, such as lie half outside, and other element types.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace roi_align_lowering_test {

using testing::Elements;
using ::testing::HasSubstr;
using testing::Lower;
using testing::OneNode;
using testing::RandomBytes;
using testing::RandomReals;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// x1 y1 x2 y2 of each, on planes of 11 x 13.
Tensor Regions() {
  return Tensor::From<float>({8, 4}, {1,     1,     4,     3,    //
                                      -9,    -3,    20,    30,   //
                                      12.9F, 10.9F, 14.1F, 13,   //
                                      9,     8,     -3,    -2,   //
                                      100,   100,   200,   200,  //
                                      0,     0,     13,    11,   //
                                      kNan,  0,     2,     2,    //
                                      -4096, -4096, 4096,  4096});
}

OneNode Align(int64_t samples, const char* coordinates, const char* mode = "avg") {
  return OneNode("RoiAlign", 16)
      .Set("output_height", int64_t{3})
      .Set("output_width", int64_t{5})
      .Set("sampling_ratio", samples)
      .Set("spatial_scale", 0.75F)
      .Set("mode", std::string(mode))
      .Set("coordinate_transformation_mode", std::string(coordinates));
}

OneNode& AddRegions(OneNode& node) {
  return node.Input(Regions()).Input(Tensor::From<int64_t>({8}, {0, 1, 1, 0, 1, 1, 0, 1}));
}

TEST(RoiAlignLoweringTest, TakesMeansAsTheReference) {
  for (const int64_t samples : {0, 1, 2, 7}) {
    for (const char* coordinates : {"half_pixel", "output_half_pixel"}) {
      for (const int threads : {1, 2}) {
        SCOPED_TRACE(Format("{} samples, {}, {} threads", samples, coordinates, threads));
        OneNode node = Align(samples, coordinates).Input(RandomReals({2, 19, 11, 13}, 1));
        AddRegions(node);
        const auto lowered = Lower(node, {.isa = "test", .threads = threads});
        ASSERT_TRUE(lowered.ok()) << lowered.status();
        EXPECT_EQ(lowered->layer.impl, "octet:roi_align");
        const std::vector<float> expected = testing::Reference(node);
        const std::vector<float> got = Elements<float>(lowered->outputs[0]);
        ASSERT_EQ(got.size(), expected.size());
        for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 2e-6F) << i;
      }
    }
  }
}

// Two samples in bins of nine pixels.
TEST(RoiAlignLoweringTest, InfinitiesBetweenTheSamplesDoNotCount) {
  Tensor x = RandomReals({1, 2, 40, 50}, 1);
  for (size_t i = 0; i < x.span<float>().size(); i += 23)
    x.mutable_span<float>()[i] = std::numeric_limits<float>::infinity();
  OneNode node = Align(2, "half_pixel").Input(std::move(x));
  node.Input(Tensor::From<float>({1, 4}, {1.3F, 2.2F, 61.9F, 50.7F}));
  node.Input(Tensor::From<int64_t>({1}, {0}));
  const auto lowered = Lower(node);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const std::vector<float> expected = testing::Reference(node);
  const std::vector<float> got = Elements<float>(lowered->outputs[0]);
  EXPECT_GT(std::ranges::count_if(expected, [](float y) { return std::isfinite(y); }), 0);
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_FALSE(std::isnan(expected[i])) << i;
    if (std::isinf(expected[i])) {
      EXPECT_EQ(got[i], expected[i]) << i;
    } else {
      EXPECT_NEAR(got[i], expected[i], 2e-6F) << i;
    }
  }
}

TEST(RoiAlignLoweringTest, ReadsAndWritesBytes) {
  const QuantParams quant = QuantParams::PerTensor(0x1p-5F, 7);
  OneNode node = Align(2, "half_pixel").Input(RandomBytes(DType::kU8, {2, 3, 11, 13}, 1), quant);
  AddRegions(node).Declare(DType::kI8, {}, QuantParams::PerTensor(0.03F, -4));
  const auto lowered = Lower(node);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const std::vector<int8_t> expected = testing::Reference<int8_t>(node);
  const std::vector<int8_t> got = Elements<int8_t>(lowered->outputs[0]);
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1) << i;
}

TEST(RoiAlignLoweringTest, LeavesTheLargestSampleToTheReference) {
  OneNode node = Align(2, "half_pixel", "max").Input(RandomReals({2, 3, 11, 13}, 1));
  const auto lowered = Lower(AddRegions(node));
  EXPECT_EQ(lowered.status().code(), absl::StatusCode::kUnimplemented);
}

TEST(RoiAlignLoweringTest, NamesARegionOfAnImageThatIsNotThere) {
  OneNode node = Align(2, "half_pixel").Input(RandomReals({2, 3, 11, 13}, 1));
  node.Input(Tensor::From<float>({1, 4}, {0, 0, 4, 4})).Input(Tensor::From<int64_t>({1}, {2}));
  const auto lowered = Lower(node);
  EXPECT_EQ(lowered.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(lowered.status().message()), HasSubstr("region 0 is of image 2"));
}

}  // namespace roi_align_lowering_test
}  // namespace octet
