// Resize's kernels against the reference kernel: copies bit for bit, sums within rounding.
#include <algorithm>
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace resize_lowering_test {

using testing::Elements;
using testing::Lower;
using testing::OneNode;
using testing::RandomBytes;
using testing::RandomReals;

struct Case {
  const char* name;
  Shape x;
  std::vector<float> scales;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

const Case kCases[] = {
    {"Twice", {2, 3, 5, 7}, {1, 1, 2, 2}},
    {"TwiceChannelsLast", {2, 5, 7, 3}, {1, 2, 2, 1}},
    {"Thrice", {1, 2, 4, 3}, {1, 1, 3, 3}},
    {"Fraction", {1, 3, 6, 9}, {1, 1, 1.5F, 0.7F}},
    {"Smaller", {2, 9, 8, 4}, {1, 0.5F, 0.5F, 1}},
    {"OneAxis", {2, 3, 10}, {1, 1, 2.3F}},
    {"OneAxisChannelsLast", {2, 10, 3}, {1, 2, 1}},
    {"ThreeAxes", {1, 2, 3, 4, 5}, {1, 1, 2, 1.5F, 2}},
    {"FourAxes", {2, 3, 4, 3}, {2, 2, 0.5F, 2}},
    {"AxesApart", {2, 3, 4, 5}, {1, 2, 1, 2}},
    {"Same", {2, 3, 4, 5}, {1, 1, 1, 1}},
    {"ManyRows", {4, 33, 40, 17}, {1, 1, 2, 2}},
};

const char* const kCoordinates[] = {"half_pixel", "pytorch_half_pixel",   "align_corners",
                                    "asymmetric", "half_pixel_symmetric", "tf_half_pixel_for_nn"};

OneNode Resize(const Tensor& x, std::optional<QuantParams> quant, const Case& c,
               const std::string& mode, const std::string& coordinates) {
  return OneNode("Resize", 19)
      .Input(x, std::move(quant))
      .Absent()
      .Constant(Tensor::From<float>({std::ssize(c.scales)}, std::span<const float>(c.scales)))
      .Set("mode", mode)
      .Set("coordinate_transformation_mode", coordinates);
}

class ResizeLoweringTest : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Shapes, ResizeLoweringTest, ::testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(ResizeLoweringTest, CopiesNearestNeighboursOfAnyType) {
  for (const char* coordinates : kCoordinates) {
    for (const char* rounding : {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"}) {
      SCOPED_TRACE(std::string(coordinates) + " " + rounding);
      for (const int threads : {1, 2}) {
        const OneNode node =
            Resize(RandomReals(GetParam().x, 1), {}, GetParam(), "nearest", coordinates)
                .Set("nearest_mode", std::string(rounding));
        const auto lowered = Lower(node, {.isa = "test", .threads = threads});
        ASSERT_TRUE(lowered.ok()) << lowered.status();
        EXPECT_EQ(lowered->layer.impl, "octet:nearest");
        EXPECT_EQ(Elements<float>(lowered->outputs[0]), testing::Reference(node));
      }
    }
  }
  const QuantParams quant = QuantParams::PerTensor(0.02F, 7);
  const OneNode bytes =
      Resize(RandomBytes(DType::kU8, GetParam().x, 1), quant, GetParam(), "nearest", "asymmetric")
          .Declare(DType::kU8, {}, quant);
  const auto lowered = Lower(bytes);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(lowered->layer.runs, "none");
  EXPECT_EQ(Elements<uint8_t>(lowered->outputs[0]), testing::Reference<uint8_t>(bytes));
}

TEST_P(ResizeLoweringTest, InterpolatesInFloat) {
  for (const char* mode : {"linear", "cubic"}) {
    for (const char* coordinates : kCoordinates) {
      for (const int64_t antialias : {0, 1}) {
        SCOPED_TRACE(Format("{} {} antialias {}", mode, coordinates, antialias));
        const OneNode node = Resize(RandomReals(GetParam().x, 1), {}, GetParam(), mode, coordinates)
                                 .Set("antialias", antialias);
        const auto lowered = Lower(node, {.isa = "test", .threads = 2});
        ASSERT_TRUE(lowered.ok()) << lowered.status();
        EXPECT_EQ(lowered->layer.impl, "octet:interpolate");
        const std::vector<float> expected = testing::Reference(node);
        const std::vector<float> got = Elements<float>(lowered->outputs[0]);
        ASSERT_EQ(got.size(), expected.size());
        for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 2e-6F) << i;
      }
    }
  }
}

TEST_P(ResizeLoweringTest, RoundsOnceWhereValuesAreStoredInBytes) {
  const OneNode node =
      Resize(RandomBytes(DType::kU8, GetParam().x, 1), QuantParams::PerTensor(0x1p-5F, 7),
             GetParam(), "linear", "half_pixel")
          .Declare(DType::kI8, {}, QuantParams::PerTensor(0.03F, -4));
  const auto lowered = Lower(node, {.isa = "test", .threads = 2});
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const std::vector<int8_t> expected = testing::Reference<int8_t>(node);
  const std::vector<int8_t> got = Elements<int8_t>(lowered->outputs[0]);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1) << i;
}

/// What ONNX Runtime makes of rows [h, w] of bytes: positions, products and sums in float, in its order.
std::vector<int> BlendedBytes(const Tensor& x, int64_t h, int64_t w, float by_h, float by_w,
                              const QuantParams& in, const QuantParams& out) {
  struct Taps {
    int64_t at[2];
    float weight[2];
  };
  const auto taps = [](int64_t extent, float scale) {
    std::vector<Taps> all;
    for (int64_t o = 0; o < static_cast<int64_t>(static_cast<float>(extent) * scale); ++o) {
      float at = (static_cast<float>(o) + 0.5F) / scale - 0.5F;
      at = std::clamp(at, 0.0F, static_cast<float>(extent - 1));
      const auto low = static_cast<int64_t>(at);
      const int64_t high = std::min(low + 1, extent - 1);
      Taps t{{low, high}, {static_cast<float>(high) - at, at - static_cast<float>(low)}};
      if (low == high) t.weight[0] = t.weight[1] = 0.5F;
      all.push_back(t);
    }
    return all;
  };
  std::vector<int> bytes;
  const int64_t planes = x.elements() / (h * w);
  for (int64_t p = 0; p < planes; ++p) {
    for (const Taps& y : taps(h, by_h)) {
      for (const Taps& z : taps(w, by_w)) {
        float sum = 0;
        for (const int i : {0, 1}) {
          for (const int k : {0, 1}) {
            const int q = x.span<uint8_t>()[(p * h + y.at[i]) * w + z.at[k]];
            const float real = static_cast<float>(q - in.zero_points[0]) * in.scales[0];
            const volatile float share = z.weight[k] * y.weight[i] * real;  // Not fused.
            sum += share;
          }
        }
        const float step = std::nearbyint(sum / out.scales[0]);
        bytes.push_back(std::clamp(static_cast<int>(step) + out.zero_points[0], 0, 255));
      }
    }
  }
  return bytes;
}

// Ties by the hundred: each falls as it does there.
TEST(ResizeLowering, RoundsBytesAsOnnxRuntime) {
  const QuantParams in = QuantParams::PerTensor(0.01855892F, 71);
  const Tensor x = RandomBytes(DType::kU8, {2, 3, 7, 9}, 5);
  const std::pair<float, float> scales[] = {{3, 2}, {2, 2}, {1.5F, 3}, {1.7F, 2.3F}};
  for (const auto& [h, w] : scales) {
    SCOPED_TRACE(Format("{} {}", h, w));
    const Case scaled{"", {2, 3, 7, 9}, {1, 1, h, w}};
    const OneNode node = Resize(x, in, scaled, "linear", "half_pixel").Declare(DType::kU8, {}, in);
    const auto lowered = Lower(node, {.isa = "test", .threads = 2});
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    const std::vector<uint8_t> got = Elements<uint8_t>(lowered->outputs[0]);
    EXPECT_EQ(std::vector<int>(got.begin(), got.end()), BlendedBytes(x, 7, 9, h, w, in, in));
  }
}

TEST(ResizeLowering, LeavesRegionsToTheReference) {
  const OneNode node =
      OneNode("Resize", 19)
          .Input(RandomReals({1, 1, 4, 4}, 1))
          .Constant(RandomReals({8}, 2))
          .Constant(Tensor::From<float>({4}, {1, 1, 2, 2}))
          .Set("coordinate_transformation_mode", std::string("tf_crop_and_resize"));
  EXPECT_EQ(Lower(node).status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace resize_lowering_test
}  // namespace octet
