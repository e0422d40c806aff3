// GridSample's kernel against the reference kernel, in both layouts.
#include <limits>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace grid_sample_lowering_test {

using testing::Elements;
using testing::Lower;
using testing::OneNode;
using testing::RandomBytes;
using testing::RandomReals;

struct Case {
  const char* name;
  Shape x;  ///< As it lies in memory.
  Shape grid;
  bool last;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

const Case kCases[] = {
    {"Planes", {2, 3, 5, 7}, {2, 4, 6, 2}, false},
    {"ChannelsLast", {2, 5, 7, 19}, {2, 4, 6, 2}, true},
    {"ManyPositions", {2, 3, 8, 9}, {2, 17, 31, 2}, false},
    {"OneChannelLast", {1, 8, 9, 1}, {1, 17, 11, 2}, true},
    {"Volume", {1, 2, 3, 4, 5}, {1, 5, 6, 7, 3}, false},
    {"VolumeChannelsLast", {2, 3, 4, 5, 8}, {2, 2, 3, 4, 3}, true},
    {"OnePixel", {1, 2, 1, 1}, {1, 3, 3, 2}, false},
};

class GridSampleLoweringTest : public ::testing::TestWithParam<Case> {
 protected:
  static OneNode Sample(const char* mode, const char* padding, int64_t align) {
    return OneNode("GridSample", 20)
        .Set("mode", std::string(mode))
        .Set("padding_mode", std::string(padding))
        .Set("align_corners", align)
        .Set("channels_last", int64_t{GetParam().last});
  }
};
INSTANTIATE_TEST_SUITE_P(Shapes, GridSampleLoweringTest, ::testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(GridSampleLoweringTest, SamplesAsTheReference) {
  for (const char* mode : {"nearest", "linear", "cubic"}) {
    for (const char* padding : {"zeros", "border", "reflection"}) {
      for (const int64_t align : {0, 1}) {
        for (const int threads : {1, 2}) {
          SCOPED_TRACE(Format("{} {} align {} threads {}", mode, padding, align, threads));
          const OneNode node = Sample(mode, padding, align)
                                   .Input(RandomReals(GetParam().x, 1))
                                   .Input(RandomReals(GetParam().grid, 2, -1.6F, 1.6F));
          const auto lowered = Lower(node, {.isa = "test", .threads = threads});
          ASSERT_TRUE(lowered.ok()) << lowered.status();
          EXPECT_EQ(lowered->layer.impl, "octet:grid_sample");
          const std::vector<float> expected = testing::Reference(node);
          const std::vector<float> got = Elements<float>(lowered->outputs[0]);
          ASSERT_EQ(got.size(), expected.size());
          for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-5F) << i;
        }
      }
    }
  }
}

TEST_P(GridSampleLoweringTest, RoundsOnceWhereValuesAreStoredInBytes) {
  const OneNode node =
      Sample("linear", "border", 0)
          .Input(RandomBytes(DType::kU8, GetParam().x, 1), QuantParams::PerTensor(0x1p-5F, 7))
          .Input(RandomReals(GetParam().grid, 2))
          .Declare(DType::kI8, {}, QuantParams::PerTensor(0.03F, -4));
  const auto lowered = Lower(node, {.isa = "test", .threads = 2});
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const std::vector<int8_t> expected = testing::Reference<int8_t>(node);
  const std::vector<int8_t> got = Elements<int8_t>(lowered->outputs[0]);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1) << i;
}

// What lies outside is a zero, not a product with one: an infinity in the first element spoils nothing.
TEST(GridSampleLowering, ReadsNothingOutside) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const int64_t last : {0, 1}) {
    const OneNode node = OneNode("GridSample", 16)
                             .Set("channels_last", last)
                             .Input(Tensor::From<float>({1, 1, 1, 1}, {kInfinity}))
                             .Input(Tensor::From<float>({1, 1, 1, 2}, {5, 5}));
    const auto lowered = Lower(node);
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    EXPECT_THAT(Elements<float>(lowered->outputs[0]), ::testing::ElementsAre(0.0F));
  }
}

TEST(AffineGridLoweringTest, MapsPositionsAsTheReference) {
  const std::pair<Shape, std::vector<int64_t>> forms[] = {
      {{2, 2, 3}, {2, 3, 5, 70}}, {{1, 2, 3}, {1, 1, 1, 1}}, {{3, 3, 4}, {3, 2, 4, 1, 9}}};
  for (const auto& [theta, size] : forms) {
    for (const int64_t align : {0, 1}) {
      SCOPED_TRACE(Format("{} align {}", theta.ToString(), align));
      const OneNode node = OneNode("AffineGrid", 20)
                               .Input(RandomReals(theta, 1))
                               .Ints(size)
                               .Set("align_corners", align);
      const auto lowered = Lower(node);
      ASSERT_TRUE(lowered.ok()) << lowered.status();
      EXPECT_EQ(lowered->layer.impl, "octet:affine_grid");
      const std::vector<float> expected = testing::Reference(node);
      const std::vector<float> got = Elements<float>(lowered->outputs[0]);
      ASSERT_EQ(got.size(), expected.size());
      for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-6F) << i;
    }
  }
}

}  // namespace grid_sample_lowering_test
}  // namespace octet
