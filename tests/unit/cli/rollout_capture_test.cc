#include "cli/rollout_capture.h"

#include <unistd.h>

#include <cstdlib>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace rollout_capture_test {

using nlohmann::json;
using ::testing::HasSubstr;

class CaptureFolderTest : public ::testing::Test {
 protected:
  CaptureFolderTest() {
    std::string pattern = ::testing::TempDir() + "octet-captures-XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~CaptureFolderTest() override { rmdir(folder_.c_str()); }

  std::string Check(const json& captures) const {
    return std::string(Message(CheckCaptureFolder({{"captures", captures}}, folder_)));
  }
  uint64_t Inode() const {
    struct stat own = {};
    stat(folder_.c_str(), &own);
    return own.st_ino;
  }

  std::string folder_;
};

TEST_F(CaptureFolderTest, IsTheServersByPathOrWhereverItIsMounted) {
  EXPECT_EQ(Check({{"path", folder_}, {"inode", nullptr}}), "");
  EXPECT_EQ(Check({{"path", folder_ + "/../" + folder_.substr(folder_.rfind('/') + 1)},
                   {"inode", nullptr}}),
            "");
  EXPECT_EQ(Check({{"path", "/in/a/container"}, {"inode", Inode()}}), "");
}

TEST_F(CaptureFolderTest, AnotherOneIsRefused) {
  EXPECT_THAT(Check({{"path", "/in/a/container"}, {"inode", Inode() + 1}}),
              HasSubstr("its capture.path is '/in/a/container', got '" + folder_));
  EXPECT_THAT(Check({{"path", "/"}, {"inode", nullptr}}), HasSubstr("not the folder"));
  EXPECT_THAT(Check(nullptr), HasSubstr("no capture.path"));
}

}  // namespace rollout_capture_test
}  // namespace octet::cli
