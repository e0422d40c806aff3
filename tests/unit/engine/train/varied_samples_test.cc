// What makes more samples of those that are there.
#include "engine/train/varied_samples.h"

#include <cmath>
#include <numeric>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/train/runner.h"

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

TEST(BlendSamples, BlendsRowsBehindTheFirstOnes) {
  const Tensor samples = Numbers(Shape{4, 2});
  const int64_t all[] = {0, 1, 2, 3};
  const int64_t other[] = {3};
  std::vector<Tensor> batch = {Tensor(DType::kF32, Shape{4, 2})};
  train::PickSamples({&samples, 1}, all, batch);
  std::mt19937_64 random(1);
  const std::vector<ChannelGrid> none;
  train::BlendSamples({&samples, 1}, {&none, 1}, other, 2, random, batch);
  const auto rows = batch[0].span<float>();
  EXPECT_THAT(rows.first(4), ElementsAre(0, 1, 2, 3));
  EXPECT_GE(rows[4], 4);
  EXPECT_LE(rows[4], 6);
  EXPECT_FLOAT_EQ(rows[5], rows[4] + 1);
}

TEST(BlendSamples, AreWhatTheSensorMayGive) {
  const std::vector<ChannelGrid> grids = {{0.5, 3}, {0.25, 100.25}};
  Tensor samples(DType::kF32, Shape{2, 2, 40});
  for (size_t i = 0; i < samples.span<float>().size(); ++i) {
    const ChannelGrid& grid = grids[i / 40 % 2];
    const auto q = static_cast<double>(i * 37 % 256);
    samples.mutable_span<float>()[i] = static_cast<float>(grid.step * (q - grid.offset));
  }
  const int64_t both[] = {0, 1};
  const int64_t other[] = {1};
  std::vector<Tensor> batch = {Tensor(DType::kF32, samples.shape())};
  train::PickSamples({&samples, 1}, both, batch);
  std::mt19937_64 random(1);
  train::BlendSamples({&samples, 1}, {&grids, 1}, other, 0, random, batch);
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
  std::vector<int64_t> all(static_cast<size_t>(sample.shape()[0]));
  std::iota(all.begin(), all.end(), 0);
  for (int i = 0; i < 200; ++i) {
    std::vector<Tensor> batch = {Tensor(DType::kF32, sample.shape())};
    train::PickSamples({&sample, 1}, all, batch);
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
