#include "server/routing/shadow.h"

#include <gtest/gtest.h>

namespace octet {
namespace shadow_test {

using Rule = ModelConfig::Routing::Shadow;

TEST(ShadowTest, ComparesTheNamedPrecisionOrAnyOther) {
  const Rule named = {.precision = Precision::kInt8, .against = Precision::kFp32, .percent = 100};
  EXPECT_TRUE(Compares(named, Precision::kFp32));
  EXPECT_FALSE(Compares(named, Precision::kBf16));
  EXPECT_FALSE(Compares(named, Precision::kInt8));
  const Rule any = {.precision = Precision::kInt8, .percent = 100};
  EXPECT_TRUE(Compares(any, Precision::kFp32));
  EXPECT_TRUE(Compares(any, Precision::kInt8Dynamic));
  EXPECT_FALSE(Compares(any, Precision::kInt8)) << "a precision is not compared with itself";
}

TEST(ShadowTest, ADrawBelowTheShareIsCopied) {
  const Rule rule = {.precision = Precision::kInt8, .percent = 5};
  EXPECT_TRUE(WantsCopy(rule, {.answered = Precision::kFp32, .draw = 0}));
  EXPECT_TRUE(WantsCopy(rule, {.answered = Precision::kFp32, .draw = 0.0499}));
  EXPECT_FALSE(WantsCopy(rule, {.answered = Precision::kFp32, .draw = 0.05}));
  EXPECT_FALSE(WantsCopy(rule, {.answered = Precision::kFp32, .draw = 0.999}));
  EXPECT_FALSE(WantsCopy(rule, {.answered = Precision::kInt8, .draw = 0}));
}

TEST(ShadowTest, NoneAndAllAreExact) {
  constexpr double kLargest = 0x1.fffffffffffffp-1;
  const Rule none = {.precision = Precision::kInt8, .percent = 0};
  EXPECT_FALSE(WantsCopy(none, {.answered = Precision::kFp32, .draw = 0}));
  const Rule all = {.precision = Precision::kInt8, .percent = 100};
  EXPECT_TRUE(WantsCopy(all, {.answered = Precision::kFp32, .draw = kLargest}));
}

}  // namespace shadow_test
}  // namespace octet
