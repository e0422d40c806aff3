#include "cli/answers.h"

#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace octet::cli {
namespace answers_test {

TEST(AnswersTest, ATallyKeepsEverySumOfItsComparisons) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> reference = {1, 2, 3, 4};
  const auto answer = [](const std::vector<float>& values) {
    Answer one;
    one.outputs["y"] = {values.data(), {DType::kF32, {1, 4}}};
    return one;
  };
  std::map<std::string, OutputTally> tallies;
  CompareAnswers(answer({nan, nan, 3, 4.5}), answer(reference), 1, tallies);
  CompareAnswers(answer({1, 2, nan, 2}), answer(reference), 1, tallies);
  const NoiseSums& noise = tallies.at("y").noise;
  EXPECT_EQ(noise.signal, 9 + 16 + 1 + 4 + 16);
  EXPECT_EQ(noise.noise, 0.25 + 4);
  EXPECT_EQ(noise.max_abs, 2);
  EXPECT_EQ(noise.non_finite, 3);
  EXPECT_EQ(noise.lost, 3);
  EXPECT_EQ(tallies.at("y").floats, 8);
}

TEST(AnswersTest, AVectorMayBeTheScoresOfTheOneRowThatWasAsked) {
  const std::vector<float> scores = {1, 5, 3};
  Answer vector;
  vector.outputs["y"] = {scores.data(), {DType::kF32, {3}}};
  std::map<std::string, OutputTally> tallies;
  CompareAnswers(vector, vector, 1, tallies);
  EXPECT_EQ(tallies.at("y").classes.rows, 1);
  EXPECT_EQ(tallies.at("y").classes.top1, 1);
  CompareAnswers(vector, vector, 3, tallies);
  EXPECT_EQ(tallies.at("y").classes.rows, 1) << "a number for each of three";
}

}  // namespace answers_test
}  // namespace octet::cli
