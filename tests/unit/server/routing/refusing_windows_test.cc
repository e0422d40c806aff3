#include "server/routing/refusing_windows.h"

#include <gtest/gtest.h>

namespace octet {
namespace refusing_windows_test {

TEST(RefusingWindowsTest, CountsThoseInWhichTheOthersRefusedNobody) {
  RefusingWindows windows;
  windows.Look({.windows = 1, .refusing = 1, .requests = 100});
  EXPECT_EQ(windows.count(), 1U);
  windows.Look({.windows = 2, .refusing = 1, .requests = 200});
  EXPECT_EQ(windows.count(), 1U) << "it kept to its rules";
  windows.Look({.windows = 3, .refusing = 2, .requests = 299, .refused = 1});
  EXPECT_EQ(windows.count(), 2U) << "one of a hundred is not more than 1 %";
  windows.Look({.windows = 4, .refusing = 3, .requests = 299, .refused = 1});
  EXPECT_EQ(windows.count(), 3U) << "the others were not asked";
}

TEST(RefusingWindowsTest, AnOverloadThatAllShareIsNobodysFault) {
  RefusingWindows windows;
  windows.Look({.windows = 1, .refusing = 1, .requests = 100, .refused = 2});
  EXPECT_EQ(windows.count(), 0U);
  windows.Look({.windows = 2, .refusing = 2, .requests = 200, .refused = 2});
  EXPECT_EQ(windows.count(), 1U) << "it is over, but for the ramped";
}

TEST(RefusingWindowsTest, BeginsWithTheSumsThatThereWere) {
  RefusingWindows windows({.windows = 7, .refusing = 5, .requests = 1000, .refused = 900});
  windows.Look({.windows = 7, .refusing = 5, .requests = 1010, .refused = 900});
  EXPECT_EQ(windows.count(), 0U) << "the window is not over";
  windows.Look({.windows = 8, .refusing = 6, .requests = 1020, .refused = 900});
  EXPECT_EQ(windows.count(), 1U);
}

TEST(RefusingWindowsTest, SumsThatFellAreOthers) {
  RefusingWindows windows;
  windows.Look({.windows = 4, .refusing = 1, .requests = 100});
  EXPECT_EQ(windows.count(), 1U);
  windows.Look({.windows = 1, .refusing = 1, .requests = 100});
  EXPECT_EQ(windows.count(), 1U) << "another guard";
  windows.Look({.windows = 2, .refusing = 2, .requests = 50});
  EXPECT_EQ(windows.count(), 1U) << "another variant";
  windows.Look({.windows = 3, .refusing = 3, .requests = 60});
  EXPECT_EQ(windows.count(), 2U);
}

}  // namespace refusing_windows_test
}  // namespace octet
