#include "cli/rollout_capture.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/http/capture_mark.h"
#include "tests/support/as_nobody.h"

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
  ~CaptureFolderTest() override { std::filesystem::remove_all(folder_); }

  std::string Check(const json& captures) const {
    return std::string(Message(CheckCaptureFolder({{"captures", captures}}, folder_)));
  }

  std::string folder_;
};

TEST_F(CaptureFolderTest, IsTheServersByItsMarkWhereverItIsMounted) {
  MarkCaptureFolder(folder_);
  const std::string mark = CaptureMark(folder_);
  EXPECT_EQ(mark.size(), 32U);
  EXPECT_EQ(Check({{"path", "/in/a/container"}, {"mark", mark}}), "");
  MarkCaptureFolder(folder_);
  EXPECT_EQ(CaptureMark(folder_), mark) << "another server's, or one that restarted";
}

TEST_F(CaptureFolderTest, IsTheServersByItsPathWhereNoMarkIsTold) {
  EXPECT_EQ(Check({{"path", folder_}, {"mark", nullptr}}), "");
  EXPECT_EQ(Check({{"path", folder_ + "/../" + folder_.substr(folder_.rfind('/') + 1)}}), "");
}

TEST_F(CaptureFolderTest, AnotherOneIsRefused) {
  const std::string other(32, '0');
  EXPECT_THAT(Check({{"path", "/in/a/container"}, {"mark", other}}),
              HasSubstr("its capture.path is '/in/a/container', got '" + folder_));
  EXPECT_THAT(Check({{"path", folder_}, {"mark", other}}), HasSubstr("not the folder"))
      << "of the same path in a container";
  MarkCaptureFolder(folder_);
  EXPECT_THAT(Check({{"path", "/in/a/container"}, {"mark", other}}), HasSubstr("not the folder"));
  EXPECT_THAT(Check({{"path", "/"}, {"mark", nullptr}}), HasSubstr("not the folder"));
  EXPECT_THAT(Check(nullptr), HasSubstr("no capture.path"));
}

TEST_F(CaptureFolderTest, WhatIsNoMarkIsNone) {
  EXPECT_EQ(CaptureMark(folder_), "");
  for (const std::string& text : {std::string(), std::string(33, '0'), std::string(32, 'x')}) {
    std::ofstream(folder_ + "/.octet-captures") << text;
    EXPECT_EQ(CaptureMark(folder_), "") << text;
  }
}

TEST_F(CaptureFolderTest, WhatMayNotBeReadIsNoCaptureThatIsStillToCome) {
  using std::filesystem::perms;
  std::filesystem::permissions(folder_, perms::all);
  const std::string version = folder_ + "/net";
  const std::string file = version + "/fp32-4.npz";
  const auto error = [&] {
    const AsNobody nobody;
    return std::string(
        Message(LargestCapture(version, std::filesystem::file_time_type::min()).status()));
  };
  EXPECT_EQ(error(), "") << "the server has written nothing yet";
  std::filesystem::create_directory(version);
  std::ofstream(file) << "an archive";
  std::filesystem::permissions(file, perms::none);
  EXPECT_EQ(error(), "cannot read " + file + ": Permission denied");
  std::filesystem::permissions(version, perms::none);
  EXPECT_EQ(error(), "cannot read " + version + ": Permission denied");
  std::filesystem::permissions(version, perms::all);
}

}  // namespace rollout_capture_test
}  // namespace octet::cli
