#include "cli/error_counts.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace octet::cli {
namespace error_counts_test {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

TEST(ErrorCountsTest, CountsByWhatTheySay) {
  ErrorCounts counts;
  EXPECT_TRUE(counts.empty());
  EXPECT_EQ(counts.total(), 0);
  counts.Add("8: busy", 3);
  counts.Add("3: bad");
  counts.Add("8: busy");
  EXPECT_THAT(counts.rows(), ElementsAre(Pair("3: bad", 1), Pair("8: busy", 4)));
  EXPECT_EQ(counts.total(), 5);
  EXPECT_THAT(counts.most(), Pair("8: busy", 4));
}

/// As many different ones as there are requests, in several slots.
TEST(ErrorCountsTest, MessagesWithNumbersAreBoundedByCode) {
  constexpr int kSlots = 8, kErrors = 1000;
  ErrorCounts all;
  for (int slot = 0; slot < kSlots; ++slot) {
    ErrorCounts counts;
    for (int i = 0; i < kErrors; ++i)
      counts.Add((i % 2 == 0 ? "3: got " : "8: wait ") + std::to_string(slot * kErrors + i));
    all.Merge(counts);
  }
  EXPECT_LE(all.rows().size(), ErrorCounts::kMostRows + 2);
  EXPECT_EQ(all.total(), kSlots * kErrors);
  EXPECT_GT(all.rows().at("3: other messages"), 0);
  EXPECT_GT(all.rows().at("8: other messages"), 0);
  const std::string known = all.rows().begin()->first;
  const int64_t before = all.rows().begin()->second;
  all.Add(known);
  EXPECT_EQ(all.rows().at(known), before + 1) << "what was seen before goes on being told";
}

}  // namespace
}  // namespace error_counts_test
}  // namespace octet::cli
