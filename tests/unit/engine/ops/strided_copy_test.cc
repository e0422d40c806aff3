#include "engine/ops/strided_copy.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace octet {
namespace strided_copy_test {

// The definition, one byte at a time.
void CopyByDefinition(std::span<const CopyLoop> loops, size_t size, const std::byte* src,
                      std::byte* dst) {
  if (loops.empty()) {
    std::memcpy(dst, src, size);
    return;
  }
  const auto step = static_cast<int64_t>(size);
  for (int64_t i = 0; i < loops[0].extent; ++i) {
    CopyByDefinition(loops.subspan(1), size, src + i * loops[0].src_stride * step,
                     dst + i * loops[0].dst_stride * step);
  }
}

// Copies a tensor of `extents` with its axes permuted, both ways, and compares.
void ExpectPermutes(const std::vector<int64_t>& extents, const std::vector<int>& perm,
                    size_t size) {
  const Shape shape{std::span<const int64_t>(extents)};
  const auto strides = shape.strides();
  Shape out;
  std::vector<int64_t> src_strides;
  for (const int axis : perm) {
    out.push_back(shape[axis]);
    src_strides.push_back(strides[axis]);
  }
  const auto loops = DenseDestination(out, src_strides);
  const size_t bytes = static_cast<size_t>(shape.elements()) * size;
  std::vector<std::byte> src(bytes), expected(bytes), actual(bytes);
  for (size_t i = 0; i < bytes; ++i) src[i] = static_cast<std::byte>(i * 131 % 251);
  CopyByDefinition(loops, size, src.data(), expected.data());
  StridedCopy(loops, size).Run(src.data(), actual.data());
  EXPECT_EQ(actual, expected) << shape.ToString() << " to " << out.ToString() << ", element size "
                              << size;
}

TEST(StridedCopyTest, PermutesRandomShapesOfEveryElementSizeAsTheDefinitionDoes) {
  constexpr uint32_t kSeed = 7;
  SCOPED_TRACE(::testing::Message() << "seed " << kSeed);
  std::mt19937 random(kSeed);
  for (int round = 0; round < 200; ++round) {
    const size_t rank = 1 + random() % 5;
    std::vector<int64_t> extents(rank);
    for (int64_t& extent : extents) extent = 1 + random() % 9;
    std::vector<int> perm(rank);
    std::iota(perm.begin(), perm.end(), 0);
    std::shuffle(perm.begin(), perm.end(), random);
    ExpectPermutes(extents, perm, size_t{1} << random() % 4);
  }
}

TEST(StridedCopyTest, TransposesLargeMatricesOnATeamOfThreads) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(2);
  for (const size_t size : {1, 2, 4, 8}) ExpectPermutes({517, 1031}, {1, 0}, size);
  ExpectPermutes({4, 3, 200, 300}, {0, 2, 3, 1}, 1);
  ExpectPermutes({4, 200, 300, 3}, {0, 3, 1, 2}, 4);
  omp_set_num_threads(before);
}

TEST(StridedCopyTest, InterleavesAFewPlanes) {
  for (const size_t size : {1, 2, 4, 8}) {
    for (const int64_t planes : {2, 3, 4, 5}) {
      ExpectPermutes({planes, 131}, {1, 0}, size);
      ExpectPermutes({2, planes, 9, 37}, {0, 2, 3, 1}, size);
    }
  }
}

TEST(StridedCopyTest, InterleavesOnATeamOfThreads) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(2);
  for (const size_t size : {1, 2, 4, 8}) ExpectPermutes({1, 3, 301, 307}, {0, 2, 3, 1}, size);
  omp_set_num_threads(before);
}

/// As a tensor in a request does. UndefinedBehaviorSanitizer sees words that are read there.
TEST(StridedCopyTest, TransposesWordsAtAnyAddress) {
  constexpr int64_t kRows = 18, kColumns = 21;
  std::vector<std::byte> from(kRows * kColumns * 4 + 1), to(from.size()), expected(from.size());
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i % 251);
  const CopyLoop loops[] = {{kRows, kColumns, 1}, {kColumns, 1, kRows}};
  CopyByDefinition(loops, 4, from.data() + 1, expected.data());
  StridedCopy(loops, 4).Run(from.data() + 1, to.data());
  EXPECT_EQ(to, expected);
}

TEST(StridedCopyTest, ReadsBackwardsAndRepeats) {
  const std::vector<uint16_t> src = {1, 2, 3, 4, 5, 6};
  std::vector<uint16_t> dst(6);
  const CopyLoop backwards[] = {{6, -1, 1}};
  StridedCopy(backwards, 2).Run(src.data() + 5, dst.data());
  EXPECT_EQ(dst, (std::vector<uint16_t>{6, 5, 4, 3, 2, 1}));
  const CopyLoop swapped[] = {{2, -3, 1}, {3, 1, 2}};
  StridedCopy(swapped, 2).Run(src.data() + 3, dst.data());
  EXPECT_EQ(dst, (std::vector<uint16_t>{4, 1, 5, 2, 6, 3}));
  const CopyLoop repeated[] = {{2, 1, 3}, {3, 0, 1}};
  StridedCopy(repeated, 2).Run(src.data(), dst.data());
  EXPECT_EQ(dst, (std::vector<uint16_t>{1, 1, 1, 2, 2, 2}));
}

TEST(StridedCopyTest, CopiesNothingWhenAnExtentIsZero) {
  const CopyLoop loops[] = {{3, 0, 0}, {0, 1, 1}};
  const StridedCopy copy(loops, 4);
  EXPECT_EQ(copy.bytes(), 0);
  copy.Run(nullptr, nullptr);
}

TEST(StridedCopyTest, CopiesASingleElementForNoLoops) {
  const double src = 2.5;
  double dst = 0;
  StridedCopy({}, 8).Run(&src, &dst);
  EXPECT_EQ(dst, 2.5);
}

}  // namespace strided_copy_test
}  // namespace octet
