#include "server/scheduling/available_cores.h"

#include <filesystem>
#include <fstream>
#include <string_view>

#include <gtest/gtest.h>

namespace octet {
namespace available_cores_test {

namespace fs = std::filesystem;

class AvailableCoresTest : public ::testing::Test {
 protected:
  AvailableCoresTest() {
    std::string pattern = (fs::temp_directory_path() / "octet-cgroup-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  ~AvailableCoresTest() override { fs::remove_all(root_); }
  void Write(const fs::path& file, std::string_view text) {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  int Cores() const {
    return AvailableCores({.own_cgroup = root_ / "self", .cgroups = root_ / "fs"});
  }
  fs::path root_;
};

TEST_F(AvailableCoresTest, AreThoseOfTheMachineWithoutALimit) {
  const int all = Cores();
  EXPECT_GE(all, 1);
  Write("self", "0::/a\n");
  Write("fs/a/cpu.max", "max 100000\n");
  EXPECT_EQ(Cores(), all);
  Write("fs/a/cpu.max", "no number\n");
  EXPECT_EQ(Cores(), all);
}

TEST_F(AvailableCoresTest, AreNoMoreThanTheGroupsTime) {
  Write("self", "0::/a/b\n");
  Write("fs/a/b/cpu.max", "100000 100000\n");
  EXPECT_EQ(Cores(), 1);
  Write("fs/a/b/cpu.max", "50000 100000\n");
  EXPECT_EQ(Cores(), 1) << "half a core computes, too";
  Write("fs/a/b/cpu.max", "100000000 100000\n");
  Write("fs/a/cpu.max", "199000 100000\n");
  EXPECT_EQ(Cores(), 1) << "a group around it has less";
}

TEST_F(AvailableCoresTest, KnowTheContainersOwnGroup) {
  Write("self", "0::/kubepods/pod1\n");
  Write("fs/cpu.max", "100000 100000\n");
  EXPECT_EQ(Cores(), 1);
}

TEST_F(AvailableCoresTest, KnowTheFirstVersionToo) {
  Write("self", "12:memory:/a\n4:cpu,cpuacct:/a\n");
  Write("fs/cpu/a/cpu.cfs_quota_us", "-1\n");
  Write("fs/cpu/a/cpu.cfs_period_us", "100000\n");
  const int all = Cores();
  Write("fs/cpu/a/cpu.cfs_quota_us", "100000\n");
  EXPECT_EQ(Cores(), 1);
  EXPECT_GE(all, 1);
}

}  // namespace available_cores_test
}  // namespace octet
