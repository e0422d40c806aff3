#include "server/capture/uniform_sample.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <numeric>
#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet {
namespace uniform_sample_test {

using ::testing::ElementsAre;
using Verdict = UniformSample::Verdict;

/// A tensor that tells by its element which request it was.
std::vector<UniformSample::Input> Numbered(int64_t number) {
  return {{{DType::kI64, {1}}, Tensor::From<int64_t>({1}, {number})}};
}

Verdict Offer(UniformSample& sample, double draw, size_t bytes, int64_t number,
              const std::string& shape = "s") {
  auto reservation = sample.Reserve(draw, bytes, 1, shape, {});
  const Verdict verdict = reservation.verdict;
  if (verdict == Verdict::kTaken) sample.Fill(std::move(reservation), Numbered(number));
  return verdict;
}

std::vector<int64_t> NumbersIn(const UniformSample& sample) {
  std::vector<int64_t> numbers;
  for (const auto& entry : sample.Take().entries) {
    numbers.push_back(entry->inputs[0].elements.span<int64_t>()[0]);
  }
  return numbers;
}

TEST(UniformSampleTest, KeepsTheSmallestDrawsInTheirOrder) {
  UniformSample sample(1, 30);
  EXPECT_EQ(Offer(sample, 0.5, 10, 0), Verdict::kTaken);
  EXPECT_EQ(Offer(sample, 0.7, 10, 1), Verdict::kTaken);
  EXPECT_EQ(Offer(sample, 0.1, 10, 2), Verdict::kTaken);
  EXPECT_EQ(Offer(sample, 0.3, 10, 3), Verdict::kTaken);
  EXPECT_THAT(NumbersIn(sample), ElementsAre(2, 3, 0));
  EXPECT_FALSE(sample.MayTake(0.7)) << "0.7 did not fit: nothing behind it can come in any more";
  EXPECT_TRUE(sample.MayTake(0.69));
  EXPECT_EQ(Offer(sample, 0.69, 10, 4), Verdict::kPassed);
  EXPECT_FALSE(sample.MayTake(0.69));
  EXPECT_EQ(sample.totals().requests, 3U);
  EXPECT_EQ(sample.totals().rows, 3);
  EXPECT_EQ(sample.totals().bytes, 30U);
}

TEST(UniformSampleTest, OnlyDrawsBelowTheShareAreInTheStream) {
  UniformSample sample(0.05, 30);
  EXPECT_FALSE(sample.MayTake(0.05));
  EXPECT_EQ(Offer(sample, 0.06, 10, 0), Verdict::kPassed);
  EXPECT_EQ(Offer(sample, 0.04, 10, 1), Verdict::kTaken);
}

TEST(UniformSampleTest, TheFirstThatDoesNotFitEndsTheSample) {
  UniformSample sample(1, 30);
  Offer(sample, 0.1, 10, 0);
  Offer(sample, 0.6, 10, 1);
  EXPECT_EQ(Offer(sample, 0.5, 25, 2), Verdict::kPassed);
  EXPECT_THAT(NumbersIn(sample), ElementsAre(0)) << "1 is behind the end";
  EXPECT_FALSE(sample.MayTake(0.5));
  EXPECT_EQ(Offer(sample, 0.2, 31, 3), Verdict::kTooLarge);
  EXPECT_TRUE(sample.MayTake(0.49)) << "what can never fit ends nothing";
}

TEST(UniformSampleTest, EveryRequestOfAStreamIsEquallyLikely) {
  const uint64_t seed = std::random_device()();
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> draw(0, 1);
  constexpr int kStream = 50;
  constexpr int kKept = 10;
  constexpr int kRounds = 20'000;
  std::vector<int> kept(kStream);
  for (int round = 0; round < kRounds; ++round) {
    UniformSample sample(1, size_t{10} * kKept);
    for (int i = 0; i < kStream; ++i) Offer(sample, draw(random), 10, i);
    const std::vector<int64_t> numbers = NumbersIn(sample);
    ASSERT_EQ(numbers.size(), static_cast<size_t>(kKept));
    for (const int64_t number : numbers) ++kept[static_cast<size_t>(number)];
  }
  // Chi-squared: of a simple random sample each count has the variance n p (1 - p), and the counts a fixed sum. 49
  // degrees of freedom: above 110 once in 10^6 runs.
  constexpr double kShare = double{kKept} / kStream;
  double chi = 0;
  for (const int count : kept) {
    const double off = count - kRounds * kShare;
    chi += off * off / (kRounds * kShare * (1 - kShare)) * (kStream - 1.0) / kStream;
  }
  EXPECT_LT(chi, 110);
  EXPECT_GT(chi, 12) << "more even than chance is no sample either";
}

TEST(UniformSampleTest, OfDifferentSizesItIsTheLongestBeginningOfTheOrderThatFits) {
  const uint64_t seed = std::random_device()();
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> draw(0, 1);
  for (int round = 0; round < 200; ++round) {
    UniformSample sample(1, 1000);
    std::vector<std::pair<double, size_t>> stream;
    for (int i = 0; i < 100; ++i) {
      stream.emplace_back(draw(random), 1 + random() % 300);
      Offer(sample, stream.back().first, stream.back().second, i);
      ASSERT_LE(sample.totals().bytes, 1000U);
    }
    std::vector<int64_t> order(stream.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::sort(order, {}, [&](int64_t i) { return stream[static_cast<size_t>(i)].first; });
    std::vector<int64_t> expected;
    size_t bytes = 0;
    for (const int64_t i : order) {
      bytes += stream[static_cast<size_t>(i)].second;
      if (bytes > 1000) break;
      expected.push_back(i);
    }
    ASSERT_EQ(NumbersIn(sample), expected);
  }
}

TEST(UniformSampleTest, WhatIsReadOrFilledIsNotReplaced) {
  UniformSample sample(1, 20);
  Offer(sample, 0.5, 10, 0);
  auto filling = sample.Reserve(0.6, 10, 1, "s", {});
  EXPECT_EQ(Offer(sample, 0.1, 10, 1), Verdict::kBusy) << "0.6 is being filled";
  EXPECT_THAT(NumbersIn(sample), ElementsAre(0)) << "what is not filled is not shown";
  sample.Fill(std::move(filling), Numbered(2));
  {
    const auto snapshot = sample.Take();
    EXPECT_EQ(Offer(sample, 0.1, 10, 3), Verdict::kBusy) << "0.6 is being read";
    EXPECT_EQ(sample.totals().bytes, 20U);
  }
  EXPECT_EQ(Offer(sample, 0.1, 10, 3), Verdict::kTaken);
  EXPECT_THAT(NumbersIn(sample), ElementsAre(3, 0));
  sample.Abandon(sample.Reserve(0.05, 10, 1, "s", {}));
  EXPECT_THAT(NumbersIn(sample), ElementsAre(3)) << "it has made room before it was given up";
  EXPECT_EQ(sample.totals().bytes, 10U);
}

/// Of 100 bytes of memory, 400 in files.
TEST(UniformSampleTest, FilesAreBoundedByTheLongestString) {
  UniformSample sample(1, 100);
  const auto offer = [&](double draw, uint64_t fixed, uint64_t longest, const char* shape = "s") {
    auto reservation = sample.Reserve(
        draw, 1, 1, shape, {.fixed = fixed, .texts = {{.count = 1, .longest = longest}}});
    const Verdict verdict = reservation.verdict;
    if (verdict == Verdict::kTaken) sample.Fill(std::move(reservation), Numbered(0));
    return verdict;
  };
  for (int i = 0; i < 10; ++i) EXPECT_EQ(offer(0.1 + 0.01 * i, 0, 3), Verdict::kTaken);
  EXPECT_EQ(offer(0.5, 0, 127), Verdict::kPassed) << "11 rows of 127 bytes";
  EXPECT_FALSE(sample.MayTake(0.5));
  EXPECT_EQ(offer(0.05, 0, 401), Verdict::kTooLarge);
  EXPECT_EQ(offer(0.05, 400, 1), Verdict::kTooLarge);
  EXPECT_EQ(offer(0.05, 0, 127), Verdict::kTaken) << "it comes before the others in the order";
  EXPECT_EQ(sample.totals().requests, 3U) << "3 rows of 127 bytes";
  EXPECT_EQ(offer(0.04, 380, 0, "other"), Verdict::kTaken) << "the bound is that of all files";
  EXPECT_EQ(sample.totals().requests, 1U);
  EXPECT_EQ(offer(0.03, 0, 15), Verdict::kTaken) << "the long one has gone, and its width";
  EXPECT_EQ(sample.totals().requests, 2U);
  {
    const auto reading = sample.Take();
    EXPECT_EQ(offer(0.01, 0, 255), Verdict::kBusy);
  }
  sample.Abandon(sample.Reserve(0.035, 1, 1, "s", {.fixed = 0, .texts = {{1, 1}}}));
  EXPECT_EQ(sample.totals().requests, 1U) << "380 and 2 * 15 bytes were too many";
}

TEST(UniformSampleTest, ShapesAreCountedAndBounded) {
  UniformSample sample(1, 1'000'000);
  for (size_t i = 0; i < UniformSample::kMostShapes; ++i) {
    EXPECT_EQ(Offer(sample, 0.5, 10, 0, std::to_string(i)), Verdict::kTaken);
  }
  EXPECT_EQ(Offer(sample, 0.5, 10, 0, "more"), Verdict::kTooManyShapes);
  EXPECT_EQ(Offer(sample, 0.5, 10, 0, "7"), Verdict::kTaken);
  const auto snapshot = sample.Take();
  ASSERT_EQ(snapshot.shapes.size(), UniformSample::kMostShapes);
  EXPECT_EQ(snapshot.shapes[7].name, "7");
  EXPECT_EQ(snapshot.shapes[7].changes, 2U);
  EXPECT_EQ(snapshot.shapes[8].changes, 1U);
}

TEST(UniformSampleTest, ThreadsNeverExceedTheBound) {
  const uint64_t seed = std::random_device()();
  std::cout << "seed " << seed << '\n';
  constexpr size_t kBytes = 5000;
  UniformSample sample(1, kBytes);
  std::atomic<bool> done{false};
  std::jthread reader([&] {
    while (!done) {
      size_t bytes = 0;
      for (const auto& entry : sample.Take().entries) bytes += entry->bytes;
      EXPECT_LE(bytes, kBytes);
      EXPECT_LE(sample.totals().bytes, kBytes);
    }
  });
  {
    std::vector<std::jthread> threads;
    for (uint64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&sample, seed, t] {
        std::mt19937_64 random(seed + t);
        std::uniform_real_distribution<double> draw(0, 1);
        for (int i = 0; i < 5000; ++i) Offer(sample, draw(random), 1 + random() % 500, i);
      });
    }
  }
  done = true;
  EXPECT_GT(sample.totals().requests, 0U);
}

}  // namespace uniform_sample_test
}  // namespace octet
