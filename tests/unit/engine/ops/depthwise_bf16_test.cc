// Depthwise convolutions of BF16 on a kernel of our own, against the reference kernel, which rounds the same reals once: the sums'
// own rounding may move a result to the next BF16.
#include "engine/ops/depthwise_bf16.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/onednn/isa.h"
#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace depthwise_bf16_test {

using testing::Elements;
using ::testing::HasSubstr;
using testing::Lower;
using ::testing::Not;
using testing::OneNode;
using testing::RandomReals;
using List = std::vector<int64_t>;

constexpr DepthwiseShape kShape = {9, 9, 32, 9, 9, 3, 1, 1, 1};

class DepthwiseBf16Test : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!DepthwiseBf16::Covers(kShape))
      GTEST_SKIP() << "skipped: this CPU has no dot products of BF16";
  }
};

Tensor Narrow(const Tensor& wide) {
  Tensor tensor(DType::kBF16, wide.shape());
  ConvertTensor(wide.view(), tensor.mutable_view());
  return tensor;
}

struct Window {
  int64_t kernel = 3;
  int64_t stride = 1;
  List pads = {1, 1, 1, 1};
};

OneNode Conv(const Shape& x, const Window& window) {
  const int64_t channels = x.back();
  return OneNode("Conv", 13)
      .Set("channels_last", int64_t{1})
      .Set("pads", window.pads)
      .Set("strides", List{window.stride, window.stride})
      .Set("dilations", List{1, 1})
      .Set("group", channels)
      .Input(Narrow(RandomReals(x, 1, -3, 3)))
      .Constant(Narrow(RandomReals({channels, 1, window.kernel, window.kernel}, 2)))
      .Constant(RandomReals({channels}, 3, -2, 2))
      .Declare(DType::kBF16, {});
}

void ExpectReference(const OneNode& node, int threads = 1) {
  const auto lowered = Lower(node, onednn::DetectTarget(threads));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_THAT(lowered->layer.impl, HasSubstr("octet:depthwise"));
  EXPECT_EQ(lowered->layer.runs, "bf16");
  EXPECT_GT(lowered->layer.macs, 0);
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  const auto want = Elements<BFloat16>((*expected)[0]);
  const auto got = Elements<BFloat16>(lowered->outputs[0]);
  ASSERT_EQ(got.size(), want.size());
  int64_t differ = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const float reference = ToFloat(want[i]);
    // A step of BF16, or what the sums of a cancelled result are off by.
    ASSERT_NEAR(ToFloat(got[i]), reference, std::abs(reference) / 128 + 1e-5F) << "element " << i;
    differ += got[i].bits == want[i].bits ? 0 : 1;
  }
  EXPECT_LE(differ, 2 + std::ssize(want) / 50);
}

// Every width of a run of channels, runs that overlap, tiles with remainders, and images narrower than a window.
TEST_F(DepthwiseBf16Test, IsTheReference) {
  const Window kWindows[] = {{3, 1, {1, 1, 1, 1}}, {3, 2, {0, 0, 1, 1}}, {3, 1, {0, 2, 1, 0}},
                             {5, 1, {2, 2, 2, 2}}, {5, 2, {1, 2, 2, 2}}, {5, 1, {4, 4, 4, 4}}};
  for (const Window& window : kWindows) {
    for (const Shape& x : {Shape{2, 6, 40, 33}, Shape{1, 5, 26, 200}, Shape{1, 7, 23, 8},
                           Shape{3, 9, 10, 20}, Shape{1, 4, 3, 48}}) {
      SCOPED_TRACE(x.ToString() + ", kernel " + std::to_string(window.kernel) + ", stride " +
                   std::to_string(window.stride));
      if (x[2] + window.pads[1] + window.pads[3] < window.kernel) continue;
      for (const int threads : {1, 2}) ExpectReference(Conv(x, window), threads);
    }
  }
}

TEST_F(DepthwiseBf16Test, TakesBoundsAndCurves) {
  using Kind = PostOp::Kind;
  const std::vector<PostOp> kActivations[] = {
      {{.kind = Kind::kRelu}},
      {{.kind = Kind::kClip, .alpha = -1, .beta = 2.5F}},
      {{.kind = Kind::kRelu}, {.kind = Kind::kClip, .alpha = -6, .beta = -1}},
      {{.kind = Kind::kClip, .alpha = 5, .beta = 9}, {.kind = Kind::kClip, .alpha = 0, .beta = 3}},
      {{.kind = Kind::kSwish, .alpha = 1}},
      {{.kind = Kind::kSwish, .alpha = 1.75F}},
      {{.kind = Kind::kHardSwish}}};
  for (const Shape& x : {Shape{1, 6, 17, 40}, Shape{1, 5, 9, 12}}) {
    for (const std::vector<PostOp>& activations : kActivations) {
      SCOPED_TRACE(std::string(PostOpName(activations.back().kind)));
      OneNode node = Conv(x, {});
      for (const PostOp& op : activations) node.Post(op);
      ExpectReference(node);
    }
  }
}

// Exponents beyond those of a float, and what is none.
TEST_F(DepthwiseBf16Test, TakesAnySumThroughItsActivation) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  const float kCenters[] = {0, 1, -1, 80, -80, 1000, -1000, 3e38F, -3e38F, 0, kNaN};
  Tensor x(DType::kF32, {1, 1, 11, 8});
  for (int64_t i = 0; i < x.elements(); ++i) x.mutable_span<float>()[i] = kCenters[i / 8];
  Tensor w(DType::kF32, {8, 1, 3, 3});
  std::ranges::fill(w.mutable_span<float>(), 0.0F);
  for (int64_t c = 0; c < 8; ++c) w.mutable_span<float>()[c * 9 + 4] = 1;
  for (const PostOp& op :
       {PostOp{.kind = PostOp::Kind::kSwish, .alpha = 1}, PostOp{.kind = PostOp::Kind::kHardSwish},
        PostOp{.kind = PostOp::Kind::kClip, .alpha = -5, .beta = 1e6F}}) {
    SCOPED_TRACE(std::string(PostOpName(op.kind)));
    // A NaN reaches its neighbours, too, though they multiply it by 0: that place is not looked at.
    const auto lowered = Lower(OneNode("Conv", 13)
                                   .Set("channels_last", int64_t{1})
                                   .Set("pads", List{1, 1, 1, 1})
                                   .Set("strides", List{1, 1})
                                   .Set("dilations", List{1, 1})
                                   .Set("group", int64_t{8})
                                   .Input(Narrow(x))
                                   .Constant(Narrow(w))
                                   .Post(op)
                                   .Declare(DType::kBF16, {}),
                               onednn::DetectTarget(1));
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    const auto y = Elements<BFloat16>(lowered->outputs[0]);
    const auto at = [&](size_t place) { return ToFloat(y[place * 8]); };
    const bool clip = op.kind == PostOp::Kind::kClip;
    EXPECT_EQ(at(0), 0);
    EXPECT_NEAR(at(3), 80, 0.5);
    EXPECT_NEAR(at(4), clip ? -5 : 0, 1e-30);
    EXPECT_NEAR(at(5), 1000, 4);
    EXPECT_NEAR(at(6), clip ? -5 : 0, 1e-30);
    EXPECT_NEAR(at(7), clip ? 1e6F : 3e38F, clip ? 4e3F : 2e36F);
    EXPECT_NEAR(at(8), clip ? -5 : 0, 10);
    EXPECT_TRUE(std::isnan(at(10)));
  }
}

std::string ImplOf(const OneNode& node) {
  const auto lowered = Lower(node, onednn::DetectTarget(1));
  return lowered.ok() ? lowered->layer.impl : std::string(Message(lowered.status()));
}

TEST_F(DepthwiseBf16Test, LeavesOthersToOneDnn) {
  const Shape x = {1, 9, 9, 32};
  const auto others = Not(HasSubstr("octet:depthwise"));
  EXPECT_THAT(ImplOf(Conv(x, {7, 1, {3, 3, 3, 3}})), others);
  EXPECT_THAT(ImplOf(Conv(x, {3, 3, {1, 1, 1, 1}})), others);
  EXPECT_THAT(ImplOf(Conv({1, 9, 9, 4}, {})), others);
  EXPECT_THAT(ImplOf(Conv(x, {}).Declare(DType::kF32, {})), others);
  EXPECT_THAT(ImplOf(Conv(x, {}).Post({.kind = PostOp::Kind::kTanh})), others);
  EXPECT_THAT(
      ImplOf(Conv(x, {}).Input(RandomReals({1, 9, 9, 32}, 5)).Post({.kind = PostOp::Kind::kAdd})),
      others);
}

}  // namespace depthwise_bf16_test
}  // namespace octet
