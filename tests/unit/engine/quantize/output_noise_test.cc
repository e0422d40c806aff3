// The noise of a quantized model's outputs, and ranges chosen by it.
#include "engine/quantize/output_noise.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/quantize/quantizer.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace output_noise_test {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Field;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::SizeIs;

Graph Doubler(float factor) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 2});
  b.Output(b.Op("Mul", {x, b.Constant<float>({2}, {factor, factor})}));
  return b.Build();
}

// Boxes and scores of a row each, times 1 and nearly so, and the better half of the boxes.
Graph Detector(float factor, bool topk, bool layer_behind) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {4, 4});
  const ValueId boxes = b.Op("Mul", {x, b.Scalar(1.0F)});
  const ValueId scores =
      b.Op("Mul",
           {b.Op("ReduceSum", {x, b.IntList({1})}, {{"keepdims", int64_t{0}}}), b.Scalar(factor)});
  const ValueId best =
      topk ? b.Ops("TopK", {scores, b.IntList({2})}, 2)[1]
           : b.Op("Unsqueeze",
                  {b.Op("ArgMax", {scores}, {{"keepdims", int64_t{0}}}), b.IntList({0})});
  const ValueId found = b.Op("Gather", {boxes, best}, {{"axis", int64_t{0}}});
  b.Output(layer_behind ? b.Op("MatMul", {found, b.Random({4, 4})}) : found);
  return b.Build();
}

// Scores times -1 choose the boxes that are farthest from the right ones; the boxes have no noise.
TEST(KeptOutputs, AreWhatIsChosenFromWhereRealsChoose) {
  const CalibrationSet set = {
      {"x", Tensor::From<float>(Shape{4, 4}, {100, 0, 0, 0, 0, -100.001F, 0, 0,  //
                                              0, 0, 101, 0, 0, 0, 0, -101.001F})}};
  for (const bool topk : {true, false}) {
    SCOPED_TRACE(topk);
    const Graph fp32 = Detector(1, topk, false);
    KeptOutputs kept(fp32);
    ASSERT_TRUE(Calibrate(fp32, kept.Observations(), set, {}).ok());
    const auto noise = kept.NoiseOf(Detector(-1, topk, false), set, {});
    ASSERT_TRUE(noise.ok()) << noise.status();
    EXPECT_NEAR(*noise, 2, 1e-6) << "of the scores 4, of the boxes none";
  }
}

TEST(KeptOutputs, BehindALayerAreTheOutputsThemselves) {
  const CalibrationSet set = {{"x", Tensor::From<float>(Shape{2, 4}, {1, 0, 0, 0, 0, 2, 0, 0})}};
  const Graph fp32 = Detector(1, true, true);
  KeptOutputs kept(fp32);
  ASSERT_EQ(kept.Observations().size(), 1U);
  EXPECT_EQ(kept.Observations().front().value, fp32.outputs[0]);
}

TEST(KeptOutputs, MeasureNoiseOverSignal) {
  const Graph fp32 = Doubler(2);
  const CalibrationSet set = {{"x", Tensor::From<float>(Shape{3, 2}, {1, 2, 3, 4, 5, 6})}};
  KeptOutputs kept(fp32);
  EXPECT_FALSE(kept.empty());
  ASSERT_TRUE(Calibrate(fp32, kept.Observations(), set, {}).ok());
  const auto same = kept.NoiseOf(fp32, set, {});
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ(*same, 0);
  const auto off = kept.NoiseOf(Doubler(2.2F), set, {});
  ASSERT_TRUE(off.ok()) << off.status();
  EXPECT_NEAR(*off, 0.01, 1e-5);  // (0.2 / 2)^2
}

TEST(KeptOutputs, CallAnswersThatAreNoNumbersInfinitelyNoisy) {
  const Graph fp32 = Doubler(2);
  const CalibrationSet set = {{"x", Tensor::From<float>(Shape{2, 2}, {1, 2, 3, 4})}};
  KeptOutputs kept(fp32);
  ASSERT_TRUE(Calibrate(fp32, kept.Observations(), set, {}).ok());
  const auto noise = kept.NoiseOf(Doubler(std::nanf("")), set, {});
  ASSERT_TRUE(noise.ok()) << noise.status();
  EXPECT_EQ(SqnrDbOf(*noise), -std::numeric_limits<double>::infinity());
}

TEST(KeptOutputs, LeaveOutWhereFp32AnswersWithNoNumber) {
  GraphBuilder b;
  b.Output(b.Op("Log", {b.Input("x", {kUnknownDim, 2})}));
  const Graph fp32 = b.Build();
  const CalibrationSet set = {{"x", Tensor::From<float>(Shape{2, 2}, {0, 2, 3, 4})}};
  KeptOutputs kept(fp32);
  ASSERT_TRUE(Calibrate(fp32, kept.Observations(), set, {}).ok());
  const auto noise = kept.NoiseOf(fp32, set, {});
  ASSERT_TRUE(noise.ok()) << noise.status();
  EXPECT_LT(*noise, 1e-9);
}

TEST(KeptOutputs, AreEmptyWithoutRealOutputs) {
  GraphBuilder b;
  b.Output(b.Op("ArgMax", {b.Input("x", {kUnknownDim, 4})}, {{"axis", int64_t{1}}}));
  EXPECT_TRUE(KeptOutputs(b.Build()).empty());
}

// One element in 40,000 reaches a hundred times as far as the others, and the answer is taken where it is clipped away.
TEST(RangeMethodAuto, TakesTheRangeWithTheLeastNoiseInTheOutputs) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {4, 4});
  const ValueId hidden = b.Op("MatMul", {x, b.Random({4, 4})});
  b.Output(
      b.Op("MatMul", {b.Op("Clip", {hidden, b.Scalar(-1.0F), b.Scalar(1.0F)}), b.Random({4, 2})}));
  Tensor samples(DType::kF32, Shape{20000, 4});
  std::ranges::fill(samples.mutable_span<float>(), 0.0F);
  for (size_t i = 0; i < 80000; ++i)
    samples.mutable_span<float>()[i] =
        static_cast<float>(static_cast<int>(i * 7919 % 201) - 100) / 100;
  samples.mutable_span<float>()[0] = 100;
  const auto made = Quantize(b.Build(), {.to = Precision::kInt8}, {{"x", samples}}, {});
  ASSERT_TRUE(made.ok()) << made.status();
  std::vector<QuantizeRecord> tried;
  std::ranges::copy_if(made->records, std::back_inserter(tried),
                       [](const QuantizeRecord& record) { return record.what == "tried"; });
  EXPECT_THAT(tried, SizeIs(Ge(5U)));
  EXPECT_THAT(made->records,
              Contains(Field(&QuantizeRecord::detail,
                             AllOf(HasSubstr("percentile"), HasSubstr(" range [-1")))));
}

}  // namespace output_noise_test
}  // namespace octet
