// What makes more samples of those that are there.
#include "engine/train/varied_samples.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {
namespace varied_samples_test {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

Tensor Numbers(const Shape& shape) {
  Tensor tensor(DType::kF32, shape);
  std::iota(tensor.mutable_span<float>().begin(), tensor.mutable_span<float>().end(), 0.0F);
  return tensor;
}

Graph Reader(const Shape& shape) {
  GraphBuilder b;
  b.Output(b.Op("Relu", {b.Input("x", shape)}));
  return b.Build();
}

TEST(BlendRow, MixesOneRowWithAnotherSample) {
  const CalibrationData set = {{"x", Numbers(Shape{4, 2})}};
  const Graph graph = Reader({kUnknownDim, 2});
  std::vector<Tensor> batch = {Numbers(Shape{4, 2})};
  const std::vector<ChannelGrid> none;
  ASSERT_TRUE(train::BlendRow({set, graph}, {&none, 1}, {3, 0.25F}, 2, batch).ok());
  EXPECT_THAT(batch[0].span<float>(), ElementsAre(0, 1, 2, 3, 5.5F, 6.5F, 6, 7));
}

TEST(DrawBlend, TakesAnyOfTheOthersAndAnyShare) {
  const int64_t others[] = {3, 8, 5};
  std::mt19937_64 random(1);
  std::set<int64_t> drawn;
  float least = 1;
  float most = 0;
  for (int i = 0; i < 200; ++i) {
    const train::Blend blend = train::DrawBlend(others, random);
    drawn.insert(blend.other);
    least = std::min(least, blend.t);
    most = std::max(most, blend.t);
  }
  EXPECT_THAT(drawn, ElementsAre(3, 5, 8));
  EXPECT_GE(least, 0);
  EXPECT_LT(least, 0.1F);
  EXPECT_GT(most, 0.9F);
  EXPECT_LT(most, 1);
}

TEST(BlendRow, IsWhatTheSensorMayGive) {
  const std::vector<ChannelGrid> grids = {{0.5, 3}, {0.25, 100.25}};
  Tensor samples(DType::kF32, Shape{2, 2, 40});
  for (size_t i = 0; i < samples.span<float>().size(); ++i) {
    const ChannelGrid& grid = grids[i / 40 % 2];
    const auto q = static_cast<double>(i * 37 % 256);
    samples.mutable_span<float>()[i] = static_cast<float>(grid.step * (q - grid.offset));
  }
  const CalibrationData set = {{"x", samples}};
  const Graph graph = Reader({kUnknownDim, 2, 40});
  std::vector<Tensor> batch = {Tensor::From<float>(samples.shape(), samples.span<float>())};
  ASSERT_TRUE(train::BlendRow({set, graph}, {&grids, 1}, {1, 0.37F}, 0, batch).ok());
  const auto x = batch[0].span<float>();
  int changed = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const ChannelGrid& grid = grids[i / 40 % 2];
    const double q = x[i] / grid.step + grid.offset;
    EXPECT_NEAR(q, std::round(q), 1e-4) << i;
    const float own = samples.span<float>()[i];
    const float its = samples.span<float>()[80 + i % 80];
    const auto half = static_cast<float>(grid.step / 2 + 1e-6);
    EXPECT_GE(x[i], std::min(own, its) - half);
    EXPECT_LE(x[i], std::max(own, its) + half);
    changed += x[i] != own;
  }
  EXPECT_GT(changed, 40);
}

std::set<std::vector<float>> Moved(const train::Moves& moves, const Tensor& sample) {
  std::set<std::vector<float>> seen;
  std::mt19937_64 random(1);
  for (int i = 0; i < 200; ++i) {
    std::vector<Tensor> batch = {Tensor::From<float>(sample.shape(), sample.span<float>())};
    train::MoveSamples(moves, random, batch);
    seen.emplace(batch[0].span<float>().begin(), batch[0].span<float>().end());
  }
  return seen;
}

TEST(MoveSamples, MirrorsHalfOfThem) {
  const Tensor sample = Numbers(Shape{1, 2, 3});
  EXPECT_THAT(Moved({.flip = true}, sample), ElementsAre(std::vector<float>{0, 1, 2, 3, 4, 5},
                                                         std::vector<float>{2, 1, 0, 5, 4, 3}));
}

TEST(MoveSamples, RepeatsTheBorder) {
  const std::set<std::vector<float>> moved = Moved({.shift = 1}, Numbers(Shape{1, 1, 3, 2}));
  EXPECT_EQ(moved.size(), 9U);
  EXPECT_TRUE(moved.contains({0, 1, 2, 3, 4, 5}));
  EXPECT_TRUE(moved.contains({2, 3, 4, 5, 4, 5})) << "up";
  EXPECT_TRUE(moved.contains({0, 1, 0, 1, 2, 3})) << "down";
  EXPECT_TRUE(moved.contains({1, 1, 3, 3, 5, 5})) << "left";
  EXPECT_TRUE(moved.contains({0, 0, 0, 0, 2, 2})) << "down and right";
  // Further than the sample reaches: all of it is one border.
  for (const std::vector<float>& row : Moved({.shift = 9}, Numbers(Shape{1, 1, 2})))
    EXPECT_THAT(row, AnyOf(ElementsAre(0, 1), ElementsAre(0, 0), ElementsAre(1, 1)));
}

TEST(MoveSamples, LeavesInputsWithoutSpatialAxesAlone) {
  const Tensor sample = Numbers(Shape{2, 3});
  EXPECT_THAT(Moved({.flip = true, .shift = 2}, sample),
              ElementsAre(ElementsAreArray(sample.span<float>())));
}

}  // namespace varied_samples_test
}  // namespace octet
