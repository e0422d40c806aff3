#include "server/routing/steady_epoch.h"

#include <gtest/gtest.h>

namespace octet {
namespace steady_epoch_test {

TEST(SteadyEpochTest, CountsOnFromItsLookWhateverTheTimeOfDayIsSetTo) {
  const SteadyEpoch::TimePoint began = SteadyEpoch::TimePoint{} + std::chrono::hours(1);
  const SteadyEpoch epoch(began, 1'700'000'000'000);
  EXPECT_EQ(epoch.MsAt(began), 1'700'000'000'000);
  EXPECT_EQ(epoch.MsAt(began + std::chrono::milliseconds(1500)), 1'700'000'001'500);
  EXPECT_EQ(epoch.MsAt(began - std::chrono::seconds(1)), 1'699'999'999'000);
}

TEST(SteadyEpochTest, BeginsAtTheTimeOfDay) {
  const auto now_ms = [] {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  };
  const SteadyEpoch::TimePoint began = std::chrono::steady_clock::now();
  const int64_t before = now_ms();
  const int64_t told = SteadyEpoch(began).MsAt(began);
  EXPECT_GE(told, before);
  EXPECT_LE(told, now_ms());
}

}  // namespace steady_epoch_test
}  // namespace octet
