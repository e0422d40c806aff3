// Numbers as text and back.
#include "engine/ops/text_numbers.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/strings.h"

namespace octet::testing {
namespace text_numbers_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename T>
std::vector<std::string> TextsOf(std::vector<T> numbers) {
  return Texts(
      TextOfNumbers(Tensor::From<T>(Shape{std::ssize(numbers)}, std::span<const T>(numbers))));
}

template <typename T>
std::vector<T> NumbersOf(const std::vector<std::string_view>& texts) {
  const auto numbers = NumbersInText(Strings({std::ssize(texts)}, texts), DTypeOf<T>);
  EXPECT_TRUE(numbers.ok()) << numbers.status();
  return numbers.ok() ? Elements<T>(*numbers) : std::vector<T>();
}

template <typename T>
std::string Refusal(std::string_view text) {
  const auto numbers = NumbersInText(Strings({2}, {"1", text}), DTypeOf<T>);
  EXPECT_EQ(numbers.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(Message(numbers.status()));
}

TEST(TextOfNumbers, RealsHaveTheirShortestDigits) {
  EXPECT_THAT(
      TextsOf<float>({0.1F, 1, -0.0F, 314.15926F, 0.7229038F, 12345678, 1e8F, 1e-5F, 0.0001F}),
      ElementsAre("0.1", "1", "-0", "314.15927", "0.7229038", "12345678", "1e+08", "1e-05",
                  "0.0001"));
  EXPECT_THAT(TextsOf<double>({0.1, 1e15, 1e16, 5e-324}),
              ElementsAre("0.1", "1000000000000000", "1e+16", "5e-324"));
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_THAT(TextsOf<float>({inf, -inf, std::nanf("")}), ElementsAre("INF", "-INF", "NaN"));
  EXPECT_THAT(Texts(TextOfNumbers(Tensor::From<Half>(Shape{1}, {ToHalf(0.5F)}))),
              ElementsAre("0.5"));
}

TEST(TextOfNumbers, IntegersAndBools) {
  EXPECT_THAT(TextsOf<int64_t>({INT64_MIN, 0}), ElementsAre("-9223372036854775808", "0"));
  EXPECT_THAT(TextsOf<uint8_t>({255}), ElementsAre("255"));
  EXPECT_THAT(Texts(TextOfNumbers(Tensor::From<bool>(Shape{2}, {true, false}))),
              ElementsAre("1", "0"));
}

TEST(NumbersInText, RealsOfEveryForm) {
  EXPECT_THAT(NumbersOf<float>({"3.14", "1e-5", "1E8", " +2\n", "-INF", "+inf", "1e39", "1e-60"}),
              ElementsAre(3.14F, 1e-5F, 1e8F, 2.0F, -INFINITY, INFINITY, INFINITY, 0.0F));
  EXPECT_TRUE(std::isnan(NumbersOf<double>({"nAn"})[0]));
  EXPECT_EQ(ToFloat(NumbersOf<BFloat16>({"1.5"})[0]), 1.5F);
}

TEST(NumbersInText, IntegersTakeTheWholePart) {
  EXPECT_THAT(NumbersOf<int64_t>({"9223372036854775807", "-7", "100.5", "1e3"}),
              ElementsAre(INT64_MAX, -7, 100, 1000));
  EXPECT_THAT(NumbersOf<uint8_t>({"255", "-0.5"}), ElementsAre(255, 0));
  EXPECT_THAT(NumbersOf<bool>({"0", "0.5"}), ElementsAre(false, true));
}

TEST(NumbersInText, RefusesWhatIsNone) {
  EXPECT_EQ(Refusal<float>("Hello"), "element 1 is no number of FP32: 'Hello'");
  EXPECT_THAT(Refusal<float>("1x"), HasSubstr("'1x'"));
  EXPECT_THAT(Refusal<float>(""), HasSubstr("''"));
  EXPECT_THAT(Refusal<float>("+-1"), HasSubstr("'+-1'"));
  EXPECT_THAT(Refusal<int8_t>("128"), HasSubstr("INT8: '128'"));
  EXPECT_THAT(Refusal<int64_t>("9223372036854775808"), HasSubstr("INT64"));
  EXPECT_THAT(Refusal<uint64_t>("NaN"), HasSubstr("UINT64"));
  EXPECT_THAT(Refusal<float>("\xff" + std::string(100, 'x')), HasSubstr("'\\xffxxx"));
}

TEST(Cast, BothWaysAndFromStringsToStrings) {
  OneNode to_text("Cast", 21);
  to_text.Input(Tensor::From<int32_t>(Shape{2}, {-1, 7})).Set("to", int64_t{8});
  auto y = RunAsModel(to_text);
  ASSERT_TRUE(y.ok()) << y.status();
  EXPECT_THAT(Texts((*y)[0]), ElementsAre("-1", "7"));
  OneNode like("CastLike", 15);
  like.Input((*y)[0]).Input(Tensor::Scalar<double>(0));
  y = RunAsModel(like);
  ASSERT_TRUE(y.ok()) << y.status();
  EXPECT_THAT(Elements<double>((*y)[0]), ElementsAre(-1, 7));
  OneNode same("Cast", 13);
  same.Input(Strings({1}, {"a"})).Set("to", int64_t{8});
  y = RunAsModel(same);
  ASSERT_TRUE(y.ok()) << y.status();
  EXPECT_THAT(Texts((*y)[0]), ElementsAre("a"));
  OneNode none("Cast", 13);
  none.Input(Strings({1}, {"a"})).Set("to", int64_t{1});
  EXPECT_THAT(std::string(Message(RunAsModel(none).status())),
              HasSubstr("Cast 'tested' (opset 13): element 0 is no number of FP32: 'a'"));
}

}  // namespace text_numbers_test
}  // namespace octet::testing
