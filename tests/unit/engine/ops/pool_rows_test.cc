// Pools by rows against the reference kernel, in both layouts.
#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace pool_rows_test {

using testing::Elements;
using testing::Lower;
using testing::OneNode;
using testing::RandomBytes;
using testing::RandomReals;
using List = std::vector<int64_t>;

struct Case {
  const char* name;
  Shape x;  ///< [N, C, spatial...]
  List kernel;
  List strides;
  List pads;
  List dilations;
  int64_t ceil_mode = 0;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

const Case kCases[] = {
    {"Dense", {2, 3, 7, 9}, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
    {"Strided", {2, 5, 9, 23}, {3, 2}, {2, 2}, {1, 0, 0, 1}, {1, 1}},
    {"StridedByMore", {1, 33, 7, 40}, {2, 5}, {3, 4}, {0, 2, 1, 0}, {1, 1}, 1},
    {"Dilated", {1, 4, 11, 13}, {3, 3}, {1, 2}, {2, 0, 2, 0}, {3, 2}},
    {"OneAxis", {3, 17, 31}, {4}, {3}, {1, 2}, {1}, 1},
    {"Volume", {1, 2, 5, 6, 7}, {2, 3, 2}, {1, 2, 1}, {0, 1, 1, 1, 1, 0}, {1, 1, 1}},
    {"LongWindows", {2, 3, 4, 50}, {2, 20}, {1, 7}, {0, 3, 0, 3}, {1, 1}},
    {"WindowsInPadding", {1, 3, 4, 4}, {2, 2}, {1, 1}, {2, 3, 2, 0}, {1, 1}},
    {"KernelsLargerThanTheInput", {1, 3, 3, 3}, {7, 6}, {2, 1}, {3, 5, 3, 5}, {1, 1}},
    {"DilationsLargerThanTheInput", {1, 5, 3, 3}, {2, 2}, {1, 1}, {4, 5, 1, 1}, {4, 5}},
    {"ManyRows", {4, 16, 40, 40}, {3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}},
};

Shape Permuted(const Shape& x) {
  Shape last{x[0]};
  for (int i = 2; i < x.rank(); ++i) last.push_back(x[i]);
  last.push_back(x[1]);
  return last;
}

class PoolRowsTest : public ::testing::TestWithParam<Case> {
 protected:
  static OneNode Pool(const char* op, int version, bool last) {
    const Case& c = GetParam();
    OneNode node(op, version);
    node.Set("kernel_shape", c.kernel).Set("strides", c.strides).Set("pads", c.pads);
    if (std::string_view(op) != "LpPool") node.Set("ceil_mode", c.ceil_mode);
    node.Set("dilations", c.dilations);
    if (last) node.Set("channels_last", int64_t{1});
    return node;
  }
  static Shape InputShape(bool last) { return last ? Permuted(GetParam().x) : GetParam().x; }

  static void ExpectNear(const OneNode& node, float tolerance) {
    for (const int threads : {1, 2}) {
      const auto lowered = Lower(node, {.isa = "test", .threads = threads});
      ASSERT_TRUE(lowered.ok()) << lowered.status();
      const std::vector<float> expected = testing::Reference(node);
      const std::vector<float> got = Elements<float>(lowered->outputs[0]);
      ASSERT_EQ(got.size(), expected.size());
      for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], tolerance) << i;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Windows, PoolRowsTest, ::testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(PoolRowsTest, FindsMaximaAndTheirPlaces) {
  for (const bool last : {false, true}) {
    for (const int64_t column_major : {0, 1}) {
      SCOPED_TRACE(Format("channels last {} column major {}", last, column_major));
      // Few values: many maxima are there twice.
      Tensor x = RandomReals(InputShape(last), 3);
      for (float& v : x.mutable_span<float>()) v = std::round(4 * v);
      x.mutable_span<float>()[x.elements() / 2] = std::numeric_limits<float>::quiet_NaN();
      x.mutable_span<float>()[1] = -std::numeric_limits<float>::infinity();
      const OneNode node = Pool("MaxPool", 12, last)
                               .Set("storage_order", column_major)
                               .Input(std::move(x))
                               .Outputs(2);
      for (const int threads : {1, 2}) {
        const auto lowered = Lower(node, {.isa = "test", .threads = threads});
        ASSERT_TRUE(lowered.ok()) << lowered.status();
        EXPECT_EQ(lowered->layer.impl, "octet:pool_rows");
        EXPECT_EQ(Elements<int64_t>(lowered->outputs[1]), testing::Reference<int64_t>(node, 1));
        EXPECT_THAT(Elements<float>(lowered->outputs[0]),
                    ::testing::Pointwise(::testing::NanSensitiveFloatEq(),
                                         testing::Reference<float>(node)));
      }
    }
  }
}

TEST_P(PoolRowsTest, AveragesWhatCounts) {
  for (const int64_t include : {0, 1}) {
    for (const int version : {11, 19}) {
      SCOPED_TRACE(Format("include {} version {}", include, version));
      ExpectNear(Pool("AveragePool", version, false)
                     .Set("count_include_pad", include)
                     .Input(RandomReals(GetParam().x, 5)),
                 2e-6F);
    }
  }
}

TEST_P(PoolRowsTest, TakesRootsOfPowers) {
  for (const bool last : {false, true}) {
    for (const int64_t p : {1, 2}) {
      SCOPED_TRACE(Format("channels last {} p {}", last, p));
      ExpectNear(Pool("LpPool", 18, last).Set("p", p).Input(RandomReals(InputShape(last), 7)),
                 2e-5F);
    }
  }
}

TEST_P(PoolRowsTest, RoundsOnceWhereValuesAreStoredInBytes) {
  const OneNode node =
      Pool("AveragePool", 19, false)
          .Input(RandomBytes(DType::kU8, GetParam().x, 1), QuantParams::PerTensor(0x1p-5F, 7))
          .Declare(DType::kI8, {}, QuantParams::PerTensor(0.03F, -4));
  const auto lowered = Lower(node, {.isa = "test", .threads = 2});
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const std::vector<int8_t> expected = testing::Reference<int8_t>(node);
  const std::vector<int8_t> got = Elements<int8_t>(lowered->outputs[0]);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1) << i;
}

TEST(PoolRows, FoldWholePlanes) {
  for (const char* op : {"GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"}) {
    for (const Shape& shape : {Shape{2, 3, 40, 9}, Shape{1, 5, 3, 2}, Shape{3, 2, 70}}) {
      SCOPED_TRACE(Format("{} {}", op, shape.ToString()));
      const OneNode node = OneNode(op, 2).Input(RandomReals(shape, 9));
      const auto lowered = Lower(node, {.isa = "test", .threads = 2});
      ASSERT_TRUE(lowered.ok()) << lowered.status();
      EXPECT_EQ(lowered->layer.impl, "octet:pool_rows");
      EXPECT_THAT(Elements<float>(lowered->outputs[0]),
                  ::testing::Pointwise(::testing::FloatNear(1e-4F), testing::Reference(node)));
    }
  }
}

TEST(PoolRows, WalkThroughTheInputAloneUnderHugePadding) {
  constexpr int64_t kHuge = int64_t{1} << 28;
  for (const bool last : {false, true}) {
    const Shape shape = last ? Shape{1, 4, 4, 3} : Shape{1, 3, 4, 4};
    OneNode node("MaxPool", 12);
    node.Set("kernel_shape", List{kHuge, kHuge})
        .Set("strides", List{1, 1})
        .Set("pads", List{kHuge / 2, kHuge / 2, kHuge / 2 - 4, kHuge / 2 - 4})
        .Set("channels_last", int64_t{last})
        .Input(RandomReals(shape, 1))
        .Outputs(2);
    const auto lowered = Lower(node);
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    EXPECT_EQ(Elements<float>(lowered->outputs[0]), testing::Reference(node));
    EXPECT_EQ(Elements<int64_t>(lowered->outputs[1]), testing::Reference<int64_t>(node, 1));
  }
}

TEST(PoolRows, LeaveOtherPowersToTheReference) {
  const OneNode node = OneNode("LpPool", 18)
                           .Set("kernel_shape", List{2, 2})
                           .Set("p", int64_t{3})
                           .Input(RandomReals({1, 1, 4, 4}, 1));
  EXPECT_EQ(Lower(node).status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace pool_rows_test
}  // namespace octet
