// What an epoch's file is graded by.
#include "engine/train/exam.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"
#include "tests/support/random_tensor.h"

namespace octet {
namespace exam_test {

constexpr int64_t kSteps = 3;
constexpr int64_t kSamples = 8;

// x [N, T, 6] -> x W + offset -> y [N, T, 5].
Graph Sequence(std::vector<float> offset) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, kSteps, 6});
  const ValueId z = b.Op("MatMul", {x, b.Random({6, 5})});
  b.Output(b.Op("Add", {z, b.Constant<float>({kSteps, 1}, std::move(offset))}), "y");
  return b.Build();
}

const std::vector<std::vector<ChannelGrid>> kNoGrids(1);

// A softmax over the classes of each step knows nothing of what is added to all of them alike; one over all steps would.
TEST(Exam, HasARowOfClassesForEachStepOfASequence) {
  const CalibrationData set = {{"x", testing::RandomReals(Shape{kSamples, kSteps, 6}, TestSeed())}};
  const Graph fp32 = Sequence({0, 0, 0});
  const train::ModelSamples samples(set, fp32);
  std::vector<int64_t> held_back(kSamples);
  for (size_t i = 0; i < held_back.size(); ++i) held_back[i] = static_cast<int64_t>(i);
  auto teacher = train::Runner::Make(fp32, Precision::kFp32, {}, samples, kSamples);
  ASSERT_TRUE(teacher.ok()) << teacher.status();
  for (const TrainLoss loss : {TrainLoss::kDivergence, TrainLoss::kNoise}) {
    TrainOptions options;
    options.loss = loss;
    std::mt19937_64 random(TestSeed());
    auto exam = train::Exam::Make(samples, kNoGrids, held_back, {}, options, /*shares=*/true,
                                  *teacher, random);
    ASSERT_TRUE(exam.ok()) << exam.status();
    ASSERT_TRUE(exam->Begin(std::vector{Sequence({0, 0, 0})}, {}).ok());
    TrainEpoch row;
    ASSERT_TRUE(exam->Measure(Sequence({0, 9, -9}), {}, row).ok());
    EXPECT_NEAR(row.held_back_loss, 0, 1e-6) << TrainLossName(loss);
    EXPECT_EQ(row.agreement, 1) << TrainLossName(loss);
  }
}

// Where one sample is held back, or all gain alike, there is no deviation to hold the gain against.
TEST(Exam, IsSureOfAGainWithoutDeviation) {
  const CalibrationData set = {{"x", testing::RandomReals(Shape{8, kSteps, 6}, TestSeed())}};
  const Graph fp32 = Sequence({0, 0, 0});
  const train::ModelSamples samples(set, fp32);
  const std::vector<int64_t> held_back = {3};
  auto teacher = train::Runner::Make(fp32, Precision::kFp32, {}, samples, 1);
  ASSERT_TRUE(teacher.ok()) << teacher.status();
  TrainOptions options;
  options.loss = TrainLoss::kNoise;
  options.blend = 0;
  std::mt19937_64 random(TestSeed());
  auto exam = train::Exam::Make(samples, kNoGrids, held_back, {}, options, /*shares=*/false,
                                *teacher, random);
  ASSERT_TRUE(exam.ok()) << exam.status();
  ASSERT_TRUE(exam->Begin(std::vector{Sequence({0, 9, -9})}, {}).ok());
  TrainEpoch row;
  ASSERT_TRUE(exam->Measure(Sequence({0, 0, 0}), {}, row).ok());
  EXPECT_GE(row.sureness, train::kSure);
  ASSERT_TRUE(exam->Measure(Sequence({0, 90, -9}), {}, row).ok());
  EXPECT_LE(row.sureness, 0);
}

// Gains learned from few samples can make a start that leaves more noise than one without them.
TEST(Exam, BeginsWithWhatLeavesTheLeastNoise) {
  const CalibrationData set = {{"x", testing::RandomReals(Shape{8, kSteps, 6}, TestSeed())}};
  const Graph fp32 = Sequence({0, 0, 0});
  const train::ModelSamples samples(set, fp32);
  const std::vector<int64_t> held_back = {1, 3};
  auto teacher = train::Runner::Make(fp32, Precision::kFp32, {}, samples, 2);
  ASSERT_TRUE(teacher.ok()) << teacher.status();
  TrainOptions options;
  options.loss = TrainLoss::kNoise;
  std::mt19937_64 random(TestSeed());
  auto exam = train::Exam::Make(samples, kNoGrids, held_back, {}, options, /*shares=*/false,
                                *teacher, random);
  ASSERT_TRUE(exam.ok()) << exam.status();
  const Graph near = Sequence({0, 1, 0});
  const Graph far = Sequence({0, 2, 0});
  const auto begin = [&](std::vector<Graph> starts) {
    const auto best = exam->Begin(starts, {});
    EXPECT_TRUE(best.ok()) << best.status();
    TrainEpoch row;
    EXPECT_TRUE(exam->Measure(near, {}, row).ok());
    EXPECT_EQ(row.sureness, 0) << "of what it began with";
    return best.value_or(starts.size());
  };
  EXPECT_EQ(begin({near, far}), 0U);
  EXPECT_EQ(begin({far, near}), 1U);
  EXPECT_EQ(begin({near, near}), 0U);
}

// x [N, 1, 128] -> Round, or not -> x W -> y [N, 1, 5].
Graph OfIntegers(bool rounds) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 1, 128});
  b.Output(b.Op("MatMul", {rounds ? b.Op("Round", {x}) : x, b.Random({128, 5})}), "y");
  return b.Build();
}

// What a sensor never gives is no error of the file: a model that rounds to the sensor's integers is without one.
TEST(Exam, BlendsAreWhatASensorMayGive) {
  Tensor x(DType::kF32, Shape{16, 1, 128});
  std::mt19937 integers(TestSeed());
  for (float& value : x.mutable_span<float>()) value = static_cast<float>(integers() % 256);
  const CalibrationData set = {{"x", x}};
  const Graph fp32 = OfIntegers(false);
  const train::ModelSamples samples(set, fp32);
  const int64_t held_back[] = {0, 3, 5};
  auto teacher = train::Runner::Make(fp32, Precision::kFp32, {}, samples, 8);
  ASSERT_TRUE(teacher.ok()) << teacher.status();
  const auto found = samples.Grids();
  ASSERT_TRUE(found.ok()) << found.status();
  const std::vector<std::vector<ChannelGrid>>& grids = *found;
  ASSERT_EQ(grids[0].size(), 1U);
  for (const bool on_grids : {false, true}) {
    std::mt19937_64 random(TestSeed());
    auto exam = train::Exam::Make(samples, on_grids ? grids : kNoGrids, held_back, {}, {},
                                  /*shares=*/false, *teacher, random);
    ASSERT_TRUE(exam.ok()) << exam.status();
    ASSERT_TRUE(exam->Begin(std::vector{OfIntegers(true)}, {}).ok());
    TrainEpoch row;
    ASSERT_TRUE(exam->Measure(OfIntegers(true), {}, row).ok());
    if (on_grids)
      EXPECT_LT(row.held_back_loss, 1e-9);
    else
      EXPECT_GT(row.held_back_loss, 1e-7);
  }
}

// Epochs that are better without being surely so keep training going.
TEST(Patience, CountsEpochsWithoutALowerLoss) {
  const auto rows = [](std::initializer_list<double> losses) {
    std::vector<TrainEpoch> epochs;
    for (const double loss : losses) {
      epochs.push_back({.epoch = static_cast<int>(epochs.size()), .held_back_loss = loss});
    }
    return epochs;
  };
  EXPECT_FALSE(train::IsOutOfPatience({}, 1));
  EXPECT_FALSE(train::IsOutOfPatience(rows({1}), 1));
  EXPECT_FALSE(train::IsOutOfPatience(rows({1, 0.99, 0.98}), 1));
  EXPECT_TRUE(train::IsOutOfPatience(rows({1, 0.99, 0.99}), 1));
  EXPECT_FALSE(train::IsOutOfPatience(rows({1, 0.99, 1.2, 1.1}), 3));
  EXPECT_TRUE(train::IsOutOfPatience(rows({1, 0.99, 1.2, 1.1, 1}), 3));
}

}  // namespace exam_test
}  // namespace octet
