// InstanceNormalization and GroupNormalization: the kernel against the reference one, in both layouts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace group_norm_test {

using testing::Elements;
using testing::Lower;
using testing::OneNode;
using testing::RandomBytes;
using testing::RandomReals;

struct Case {
  const char* op;
  int version;
  Shape x;  ///< Channels first.
  int64_t groups;
};

const Case kCases[] = {
    {"InstanceNormalization", 6, {2, 5, 7, 3}, 5},
    {"InstanceNormalization", 22, {1, 64, 56, 56}, 64},
    {"InstanceNormalization", 6, {3, 130, 9}, 130},
    {"InstanceNormalization", 6, {2, 3, 2, 4, 5}, 3},
    {"GroupNormalization", 18, {2, 6, 4, 5}, 3},
    {"GroupNormalization", 21, {2, 6, 4, 5}, 2},
    {"GroupNormalization", 21, {1, 96, 14, 14}, 32},
    {"GroupNormalization", 21, {2, 150, 5}, 1},
};

Shape LayoutOf(const Shape& x, bool last) {
  if (!last) return x;
  Shape shape{x[0]};
  for (int i = 2; i < x.rank(); ++i) shape.push_back(x[i]);
  shape.push_back(x[1]);
  return shape;
}

OneNode Norm(const Case& c, bool last, Tensor x, std::optional<QuantParams> quant = {}) {
  const bool instance = std::string_view(c.op) == "InstanceNormalization";
  const int64_t parameters = instance || c.version >= 21 ? c.x[1] : c.groups;
  OneNode node(c.op, c.version);
  node.Input(std::move(x), std::move(quant))
      .Constant(RandomReals({parameters}, 2))
      .Constant(RandomReals({parameters}, 3))
      .Set("epsilon", 1e-3F);
  if (!instance) node.Set("num_groups", c.groups);
  if (last) node.Set("channels_last", int64_t{1});
  return node;
}

TEST(GroupNorm, AgreesWithTheReferenceInBothLayouts) {
  for (const Case& c : kCases) {
    for (const bool last : {false, true}) {
      for (const int threads : {1, 2}) {
        SCOPED_TRACE(Format("{}-{} of {}, last {}, threads {}", c.op, c.version, c.x.ToString(),
                            last, threads));
        // Beside a mean that floats of few bits would lose the deviations from.
        Tensor x = RandomReals(LayoutOf(c.x, last), 1);
        for (float& f : x.mutable_span<float>()) f += 100;
        const OneNode node = Norm(c, last, std::move(x));
        const auto lowered = Lower(node, {.isa = "test", .threads = threads});
        ASSERT_TRUE(lowered.ok()) << lowered.status();
        EXPECT_EQ(lowered->layer.impl, "octet:group_norm");
        const std::vector<float> expected = testing::Reference(node);
        const std::vector<float> got = Elements<float>(lowered->outputs[0]);
        ASSERT_EQ(got.size(), expected.size());
        for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-4F) << i;
      }
    }
  }
}

TEST(GroupNorm, ReadsAndWritesBytes) {
  for (const Case& c : kCases) {
    for (const bool last : {false, true}) {
      SCOPED_TRACE(Format("{} of {}, last {}", c.op, c.x.ToString(), last));
      const OneNode node = Norm(c, last, RandomBytes(DType::kU8, LayoutOf(c.x, last), 1),
                                QuantParams::PerTensor(0x1p-5F, 120))
                               .Declare(DType::kI8, {}, QuantParams::PerTensor(0.03F, 4));
      const auto lowered = Lower(node, {.isa = "test", .threads = 2});
      ASSERT_TRUE(lowered.ok()) << lowered.status();
      const std::vector<int8_t> expected = testing::Reference<int8_t>(node);
      const std::vector<int8_t> got = Elements<int8_t>(lowered->outputs[0]);
      for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1) << i;
    }
  }
}

TEST(GroupNorm, HasTheMeanOfEachGroupForItsBias) {
  // One group of two channels: -1, 1, 3, 5 have the mean 2 and the variance 5.
  const OneNode node = OneNode("GroupNormalization", 21)
                           .Input(Tensor::From<float>({1, 2, 2}, {-1, 1, 3, 5}))
                           .Constant(Tensor::From<float>({2}, {1, 2}))
                           .Constant(Tensor::From<float>({2}, {0, 10}))
                           .Set("num_groups", int64_t{1})
                           .Set("epsilon", 0.0F);
  const float step = 1 / std::sqrt(5.0F);
  EXPECT_THAT(testing::Reference(node),
              ::testing::ElementsAre(::testing::FloatNear(-3 * step, 1e-6F),
                                     ::testing::FloatNear(-step, 1e-6F),
                                     ::testing::FloatNear(10 + 2 * step, 1e-6F),
                                     ::testing::FloatNear(10 + 6 * step, 1e-6F)));
}

}  // namespace group_norm_test
}  // namespace octet
