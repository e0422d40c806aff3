// Reals to bytes against the one formula: bit for bit, at every length, whatever the reals are.
#include "engine/ops/quantize_reals.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/random_tensor.h"

namespace octet {
namespace quantize_reals_test {

using testing::RandomReals;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

void ExpectTheFormula(const std::vector<float>& x) {
  const auto count = static_cast<int64_t>(x.size());
  const MinMax want = FindMinMax({x.data(), {DType::kF32, Shape{count}}});
  const MinMax range = RangeOfReals(x.data(), count);
  EXPECT_EQ(range.finite, want.finite);
  const DynamicScale grid = DynamicScaleOf(want);
  EXPECT_EQ(DynamicScaleOf(range).scale, grid.scale);
  EXPECT_EQ(DynamicScaleOf(range).zero_point, grid.zero_point);
  std::vector<uint8_t> y(x.size() + 1, 77);
  const DynamicScale used = QuantizeToOwnRange(x.data(), count, y.data());
  EXPECT_EQ(used.scale, grid.scale);
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(y[i], QuantizeOne(x[i], grid.scale, grid.zero_point, RangeOf(DType::kU8)))
        << x[i] << " at " << i << " of " << x.size();
  }
  EXPECT_EQ(y.back(), 77) << "nothing is written behind the end";
}

std::vector<float> Reals(int64_t count, uint32_t seed, float low, float high) {
  const Tensor reals = RandomReals({count}, seed, low, high);
  const auto span = reals.span<float>();
  return {span.begin(), span.end()};
}

TEST(QuantizeReals, FollowsTheFormulaAtEveryLength) {
  for (int64_t count = 1; count < 70; ++count) {
    ExpectTheFormula(Reals(count, 1, -2, 3));
    ExpectTheFormula(Reals(count, 2, 0, 6));
    ExpectTheFormula(Reals(count, 3, -5, -1));
  }
}

TEST(QuantizeReals, RoundsEveryQuotientAsADivisionDoes) {
  for (uint32_t seed = 1; seed <= 8; ++seed)
    ExpectTheFormula(Reals(20000, seed, -std::ldexp(1.0F, static_cast<int>(seed) * 5 - 20), 1.7F));
}

// Halves of a scale that is a power of two, where a step more or less is one rounding away; both ends of the range are halves, too.
TEST(QuantizeReals, RoundsHalvesToEven) {
  std::vector<float> x;
  for (int i = -255; i <= 255; ++i) x.push_back(static_cast<float>(i) * 0.125F);
  ExpectTheFormula(x);
  for (float& each : x) each = std::nextafter(each, 0.0F);
  ExpectTheFormula(x);
}

TEST(QuantizeReals, TakesWhatIsNoNumber) {
  for (const float odd : {std::nanf(""), kInfinity, -kInfinity}) {
    for (const size_t count : {5U, 40U, 100U}) {
      std::vector<float> x = Reals(static_cast<int64_t>(count), 4, -2, 3);
      x[count / 2] = odd;
      ExpectTheFormula(x);
      ExpectTheFormula(std::vector<float>(count, odd));
    }
  }
}

TEST(QuantizeReals, TakesScalesThatNoReciprocalHas) {
  for (const float reach : {0.0F, 1e-44F, 1e-38F, 1e-28F, 1e30F, 3e38F}) {
    ExpectTheFormula(Reals(100, 5, -reach, reach));
    ExpectTheFormula(std::vector<float>(100, reach));
  }
}

// What a pool leaves in a window that lies in the padding.
TEST(QuantizeReals, CutsAtZeroWhereNothingIsBelowIt) {
  std::vector<float> x = Reals(100, 8, 0, 3);
  x[7] = std::numeric_limits<float>::lowest();
  std::vector<uint8_t> y(100);
  const DynamicScale grid = QuantizeToOwnRange(x.data(), 100, y.data(), true);
  EXPECT_EQ(grid.zero_point, 0);
  EXPECT_LE(grid.scale, 3.0F / 255);
  EXPECT_EQ(y[7], 0);
}

TEST(QuantizeReals, SharesLongRowsAmongThreads) {
  ExpectTheFormula(Reals(300007, 6, -2, 3));
  std::vector<float> x = Reals(300007, 7, 1, 3);
  x.back() = kInfinity;
  ExpectTheFormula(x);
}

}  // namespace quantize_reals_test
}  // namespace octet
