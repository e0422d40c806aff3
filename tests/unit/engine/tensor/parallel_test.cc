#include "engine/tensor/parallel.h"

#include <omp.h>

#include <atomic>
#include <new>
#include <stdexcept>
#include <vector>

#include "gtest/gtest.h"

namespace octet {
namespace parallel_test {

class ParallelForTest : public ::testing::Test {
 protected:
  void SetUp() override { omp_set_num_threads(2); }
  void TearDown() override { omp_set_num_threads(before_); }

 private:
  const int before_ = omp_get_max_threads();
};

TEST_F(ParallelForTest, CoversEveryElementOnce) {
  std::vector<std::atomic<int>> visits(1000);
  std::atomic<int> parts = 0;
  ParallelFor(1000, 1, [&](int64_t begin, int64_t end) {
    ++parts;
    for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
  });
  EXPECT_EQ(parts, 2);
  for (const auto& count : visits) EXPECT_EQ(count, 1);
}

TEST_F(ParallelForTest, HandsAnExceptionOfAnyThreadToTheCaller) {
  for (const int64_t failing : {0, 1}) {
    std::atomic<int> parts = 0;
    const auto run = [&] {
      ParallelFor(2, 1, [&](int64_t begin, int64_t /*end*/) {
        ++parts;
        if (begin == failing) throw std::bad_alloc();
      });
    };
    EXPECT_THROW(run(), std::bad_alloc) << failing;
    EXPECT_EQ(parts, 2) << "the other part has ended";
  }
  const auto both = [] {
    ParallelFor(2, 1, [](int64_t, int64_t) { throw std::length_error(""); });
  };
  EXPECT_THROW(both(), std::length_error);
  const auto alone = [] { ParallelFor(1, 1, [](int64_t, int64_t) { throw std::bad_alloc(); }); };
  EXPECT_THROW(alone(), std::bad_alloc);
}

TEST_F(ParallelForTest, PartsHaveScratchOfTheirOwn) {
  std::vector<int64_t> scratch(2);
  std::vector<std::atomic<int>> visits(5);
  ParallelParts(5, 2, 2, [&](int64_t part, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
    scratch[static_cast<size_t>(part)] += end - begin;
  });
  for (const auto& count : visits) EXPECT_EQ(count, 1);
  EXPECT_EQ(scratch, (std::vector<int64_t>{2, 3}));
  const auto parts_of = [](int64_t count, int64_t grain, int64_t threads) {
    std::atomic<int> parts = 0;
    ParallelParts(count, grain, threads, [&](int64_t part, int64_t, int64_t) {
      EXPECT_LT(part, threads);
      ++parts;
    });
    return parts.load();
  };
  EXPECT_EQ(parts_of(1000, 1, 1), 1);
  EXPECT_EQ(parts_of(3, 2, 2), 1) << "too little for two";
  EXPECT_EQ(parts_of(1000, 1, 3), 3) << "more than the team has";
}

}  // namespace parallel_test
}  // namespace octet
