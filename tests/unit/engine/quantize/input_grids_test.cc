// Inputs with a grid per channel: the same answers in fp32, and integers where the first convolution reads.
#include "engine/quantize/input_grids.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/ops/reference_step.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace input_grids_test {

constexpr float kSteps[] = {0.0171F, 0.0175F, 0.0174F};
constexpr float kOffsets[] = {123.675F, 116.28F, 103.53F};

// Bytes as images are normalized: x = step[c] * (q - offset[c]).
CalibrationSet Images(int64_t count, bool per_channel = true) {
  Tensor samples(DType::kF32, Shape{count, 3, 6, 6});
  std::mt19937 random(TestSeed());
  for (size_t i = 0; i < samples.span<float>().size(); ++i) {
    const size_t c = per_channel ? i / 36 % 3 : 0;
    const auto q = static_cast<float>(i < 108 ? (i % 2 == 0 ? 0 : 255) : random() % 256);
    samples.mutable_span<float>()[i] = kSteps[c] * (q - kOffsets[c]);
  }
  return {{"x", std::move(samples)}};
}

Graph OneConv(bool has_bias, int64_t batch = 40, bool read_twice = false) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {batch, 3, 6, 6});
  std::vector<ValueId> inputs = {x, b.Random({4, 3, 3, 3})};
  if (has_bias) inputs.push_back(b.Random({4}));
  const ValueId y = b.Op("Conv", inputs, {{"pads", Ints{1, 0, 1, 2}}, {"strides", Ints{2, 1}}});
  b.Output(b.Op("Relu", {y}));
  if (read_twice) b.Output(b.Op("Relu", {x}));
  return b.Build();
}

int Separated(Graph& graph, const CalibrationData& set) {
  const auto changed = SeparateInputGrids(graph, set);
  EXPECT_TRUE(changed.ok()) << changed.status();
  return changed.value_or(-1);
}

TEST(InputGrids, TheConvolutionReadsTheSensorsIntegersAndAnswersTheSame) {
  for (const bool has_bias : {false, true}) {
    const Graph before = OneConv(has_bias);
    const CalibrationSet set = Images(40);
    Graph after = before;
    ASSERT_EQ(Separated(after, set), 1);
    ASSERT_TRUE(Verify(after).ok()) << Verify(after);
    ASSERT_TRUE(InferShapes(after).ok());
    const std::vector<Tensor> inputs = {set.at("x")};
    const auto expected = Evaluate(before, inputs);
    ASSERT_TRUE(expected.ok()) << expected.status();
    for (const NodeId id : after.order()) {
      if (after.node(id).is("Conv")) after.outputs.push_back(after.node(id).inputs[0]);
    }
    const auto got = Evaluate(after, inputs);
    ASSERT_TRUE(got.ok()) << got.status();
    for (size_t i = 0; i < (*expected)[0].span<float>().size(); ++i)
      ASSERT_NEAR((*got)[0].span<float>()[i], (*expected)[0].span<float>()[i], 1e-3);
    const Tensor& read = (*got)[1];  // [40, 3, 8, 8]: the borders hold what 0 is.
    ASSERT_EQ(read.shape(), (Shape{40, 3, 8, 8}));
    int inside = 0;
    for (size_t i = 0; i < read.span<float>().size(); ++i) {
      const float q = read.span<float>()[i];
      if (std::abs(q - kOffsets[i / 64 % 3]) < 1e-2) continue;
      ASSERT_NEAR(q, std::nearbyint(q), 0.01) << i;
      ASSERT_TRUE(q > -0.01 && q < 255.01) << q;
      ++inside;
    }
    EXPECT_GT(inside, 40 * 3 * 34);
  }
}

std::vector<ChannelGrid> GridsOf(const CalibrationData& set) {
  const auto grids = SensorGrids(set, "x");
  EXPECT_TRUE(grids.ok()) << grids.status();
  return grids.value_or(std::vector<ChannelGrid>());
}

// Rows of an array, more than one piece of a pass.
class Rows : public SampleSource {
 public:
  explicit Rows(Tensor samples) : samples_(std::move(samples)) {}
  const TensorSpec& spec() const override { return samples_.spec(); }
  absl::Status Read(int64_t first, int64_t rows, void* to) const override {
    if (first + rows > readable) return InvalidArgument("the disk is gone");
    const size_t row_bytes = samples_.bytes() / static_cast<size_t>(samples_.shape()[0]);
    std::memcpy(
        to, static_cast<const std::byte*>(samples_.data()) + static_cast<size_t>(first) * row_bytes,
        static_cast<size_t>(rows) * row_bytes);
    return absl::OkStatus();
  }
  int64_t readable = 1 << 20;

 private:
  Tensor samples_;
};

TEST(SensorGrids, AreTheSameWhereverTheSamplesLie) {
  const CalibrationSet images = Images(6000);
  const std::vector<ChannelGrid> expected = GridsOf(images);
  ASSERT_EQ(expected.size(), 3U);
  CalibrationData parts;
  const auto rows = std::make_shared<Rows>(images.at("x"));
  parts.Add({{"x", rows}});
  const std::vector<ChannelGrid> grids = GridsOf(parts);
  ASSERT_EQ(grids.size(), 3U);
  for (size_t c = 0; c < 3; ++c) {
    EXPECT_EQ(grids[c].step, expected[c].step);
    EXPECT_EQ(grids[c].offset, expected[c].offset);
  }
  rows->readable = 5999;
  EXPECT_EQ(Message(SensorGrids(parts, "x").status()), "the disk is gone");
  Graph graph = OneConv(true);
  EXPECT_EQ(Message(SeparateInputGrids(graph, parts).status()), "the disk is gone");
}

TEST(SensorGrids, AreThoseThatTheSamplesLieOn) {
  const std::vector<ChannelGrid> grids = GridsOf(Images(40));
  ASSERT_EQ(grids.size(), 3U);
  for (size_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(grids[c].step, kSteps[c], 1e-6);
    EXPECT_NEAR(grids[c].offset, kOffsets[c], 1e-2);
  }
  EXPECT_TRUE(GridsOf(Images(20)).empty()) << "so few lie on a grid by chance";
  CalibrationSet reals = Images(40);
  std::mt19937 random(TestSeed());
  for (float& x : reals.at("x").mutable_span<float>())
    x = std::uniform_real_distribution<float>(-1, 1)(random);
  EXPECT_TRUE(GridsOf(reals).empty());
  EXPECT_TRUE(GridsOf({{"x", Tensor(DType::kU8, Shape{4096, 1, 4})}}).empty());
  EXPECT_TRUE(GridsOf({{"x", Tensor(DType::kF32, Shape{4096, 4})}}).empty()) << "no spatial axes";
  EXPECT_TRUE(GridsOf({{"y", Tensor(DType::kF32, Shape{4096, 1, 4})}}).empty()) << "another input";
}

TEST(InputGrids, LeavesAloneWhatItCannotBetter) {
  Graph graph = OneConv(true);
  EXPECT_EQ(Separated(graph, Images(40, false)), 0) << "one grid for all channels";
  CalibrationSet reals = Images(40);
  std::mt19937 random(TestSeed());
  for (float& x : reals.at("x").mutable_span<float>())
    x = std::uniform_real_distribution<float>(-1, 1)(random);
  EXPECT_EQ(Separated(graph, reals), 0) << "no grid";
  EXPECT_EQ(Separated(graph, {}), 0) << "no samples";
  EXPECT_EQ(Separated(graph, Images(20)), 0) << "so few lie on a grid by chance";
  CalibrationSet blank = Images(40);
  CalibrationSet far = Images(40);
  for (size_t i = 0; i < size_t{40} * 108; ++i) {
    if (i / 36 % 3 != 2) continue;
    blank.at("x").mutable_span<float>()[i] = i % 2 == 0 ? 0.25F : std::nextafter(0.25F, 1.0F);
    far.at("x").mutable_span<float>()[i] += 9;
  }
  EXPECT_EQ(Separated(graph, blank), 0) << "a constant, computed in two ways";
  EXPECT_EQ(Separated(graph, far), 0) << "zeros at the borders are far from its integers";
  graph = OneConv(true, 40, true);
  EXPECT_EQ(Separated(graph, Images(40)), 0) << "another reader";
}

}  // namespace input_grids_test
}  // namespace octet
