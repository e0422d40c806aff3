#include "engine/tensor/vector_isa.h"

#include <bit>

#include <gtest/gtest.h>

#include "hwy/targets.h"

namespace octet {
namespace vector_isa_test {

TEST(LimitVectors, LeavesOutWhatIsWider) {
  const int64_t all = hwy::SupportedTargets();
  LimitVectors(VectorIsa::kAvx512);
  const int64_t wide = hwy::SupportedTargets();
  LimitVectors(VectorIsa::kAvx2);
  const int64_t narrow = hwy::SupportedTargets();
  LimitVectors(VectorIsa::kSse4);
  const int64_t least = hwy::SupportedTargets();
  LimitVectors(VectorIsa::kAny);
  EXPECT_EQ(hwy::SupportedTargets(), all);
  EXPECT_EQ(wide, all & ~(HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR));
  EXPECT_EQ(narrow, wide & ~HWY_AVX3);
  EXPECT_EQ(least, narrow & ~HWY_AVX2);
  EXPECT_GT(std::popcount(static_cast<uint64_t>(least)), 0);
}

}  // namespace vector_isa_test
}  // namespace octet
