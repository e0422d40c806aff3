#include "engine/tensor/pending_file.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "engine/tensor/status.h"

namespace octet {
namespace pending_file_test {

namespace fs = std::filesystem;

class PendingFileTest : public ::testing::Test {
 protected:
  PendingFileTest() {
    std::string pattern = (fs::temp_directory_path() / "octet-pending-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~PendingFileTest() override { fs::remove_all(folder_); }
  std::string Path() const { return folder_ / "file"; }
  std::string Read() const {
    std::ifstream file(Path());
    return {std::istreambuf_iterator<char>(file), {}};
  }
  size_t Entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), {}));
  }
  fs::path folder_;
};

TEST_F(PendingFileTest, TakesTheOldFilesPlaceWithItsOwnMode) {
  ASSERT_TRUE(WriteWholeFile(Path(), "old").ok());
  ASSERT_TRUE(WriteWholeFile(Path(), std::string("new\0er", 6), 0600).ok());
  EXPECT_EQ(Read(), std::string("new\0er", 6));
  struct stat info{};
  ASSERT_EQ(stat(Path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  EXPECT_EQ(Entries(), 1U);
}

TEST_F(PendingFileTest, DisappearsWithoutCommit) {
  ASSERT_TRUE(WriteWholeFile(Path(), "old").ok());
  {
    PendingFile first(Path());
    PendingFile second(Path());
    ASSERT_TRUE(first.Open().ok());
    ASSERT_TRUE(second.Open().ok()) << "of the same process, too";
    EXPECT_NE(first.temporary(), second.temporary());
    EXPECT_TRUE(fs::path(first.temporary()).filename().string().starts_with(".file."))
        << "who reads the folder passes it over";
    EXPECT_EQ(Entries(), 3U);
  }
  EXPECT_EQ(Read(), "old");
  EXPECT_EQ(Entries(), 1U);
}

TEST_F(PendingFileTest, SaysWhatTheSystemSays) {
  const absl::Status missing = WriteWholeFile(folder_ / "no" / "file", "x");
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Message(missing)),
              testing::HasSubstr("cannot create " + (folder_ / "no" / "file").string() + ":"));
  EXPECT_EQ(WriteWholeFile("/dev/full/file", "x").code(), absl::StatusCode::kNotFound);
  fs::create_directory(Path());
  EXPECT_EQ(WriteWholeFile(Path(), "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Entries(), 1U) << "nothing is left behind";
}

}  // namespace pending_file_test
}  // namespace octet
