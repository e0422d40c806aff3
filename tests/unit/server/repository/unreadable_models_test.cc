#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/repository/model_repository.h"
#include "tests/support/as_nobody.h"
#include "tests/support/model_folder.h"

namespace octet {
namespace unreadable_models_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class UnreadableModelsTest : public ::testing::Test {
 protected:
  ServerConfig Config() {
    ServerConfig config;
    config.repository.path = folder_.path();
    return config;
  }
  void Open() { Open(Config()); }
  void Open(const ServerConfig& config) {
    auto opened = ModelRepository::Open(config, 1, metrics_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    repository_ = *std::move(opened);
  }
  /// "net/1 READY", "net/ UNAVAILABLE: reason".
  std::vector<std::string> Rows(bool ready_only = false) {
    std::vector<std::string> rows;
    for (const IndexEntry& entry : repository_->Index(ready_only)) {
      rows.push_back(Format("{}/{} {}{}{}", entry.model, entry.version,
                            VersionStateName(entry.state), entry.reason.empty() ? "" : ": ",
                            entry.reason));
    }
    return rows;
  }

  ModelFolder folder_;
  MetricsRegistry metrics_{{}};
  std::unique_ptr<ModelRepository> repository_;
};

TEST_F(UnreadableModelsTest, AFolderBehindOneThatCannotBeReadIsNoMissingOne) {
  folder_.Write("on/models/net/1/fp32.onnx", ScalingModel(2));
  folder_.Show("", true);
  folder_.Show("on", false);
  ServerConfig config = Config();
  config.repository.path = folder_.path("on/models");
  {
    const AsNobody nobody;
    Open(config);
    EXPECT_FALSE(repository_->Ready());
  }
  folder_.Show("on", true);
  repository_->Retry({});
  EXPECT_TRUE(repository_->Ready());
  EXPECT_THAT(Rows(), ElementsAre("net/1 READY"));
  config.repository.path = folder_.path("on/models/net/1/fp32.onnx");
  EXPECT_EQ(ModelRepository::Create(config, 1, metrics_).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(UnreadableModelsTest, AReloadTellsAgainWhatCannotBeRead) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Show("", true);
  folder_.Show("net", false);
  const AsNobody nobody;
  Open();
  const auto logged = [](const auto& look) {
    ::testing::internal::CaptureStderr();
    look();
    return ::testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(logged([&] { repository_->Poll(); }), "");
  const auto reload = [&] { EXPECT_TRUE(repository_->Reload({}).ok()); };
  EXPECT_THAT(logged(reload), HasSubstr("event=model_unreadable model=net error="));
  EXPECT_THAT(Rows(), ElementsAre(HasSubstr("net/ UNAVAILABLE: cannot look at")));
}

TEST_F(UnreadableModelsTest, AModelThatCannotBeReadAtFirstSaysSoAndIsTriedAgain) {
  for (const char* model : {"net", "other", "gone", "out"}) {
    folder_.Write(Format("{}/1/fp32.onnx", model), ScalingModel(2));
  }
  folder_.Show("", true);
  for (const char* model : {"net", "gone", "out"}) folder_.Show(model, false);
  {
    const AsNobody nobody;
    Open();
    for (int i = 0; i < 2; ++i) repository_->Retry({});
  }
  EXPECT_TRUE(repository_->Ready());
  const auto net = HasSubstr("net/ UNAVAILABLE: cannot look at (Permission denied): '");
  EXPECT_THAT(Rows(), ElementsAre(HasSubstr("gone/ UNAVAILABLE: "), net, "other/1 READY",
                                  HasSubstr("out/ UNAVAILABLE: ")));
  EXPECT_THAT(Rows(true), ElementsAre("other/1 READY"));
  const absl::Status refused = repository_->Find("net", "").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(Message(refused)), HasSubstr(folder_.path("net")));
  EXPECT_FALSE(repository_->CheckAll().ok());
  EXPECT_TRUE(repository_->Unload("out").ok());
  for (const char* model : {"net", "gone", "out"}) folder_.Show(model, true);
  folder_.Remove("gone");
  folder_.Write("other/1/fp32.onnx", ScalingModel(3));
  folder_.Write("new/1/fp32.onnx", ScalingModel(4));
  repository_->Retry({});
  EXPECT_FALSE(repository_->Find("net", "").ok()) << "it may still be written";
  repository_->Retry({});
  EXPECT_EQ(metrics_.server().loads.value(), 2) << "nobody looks for changes of the other one";
  EXPECT_THAT(Rows(), ElementsAre("net/1 READY", "other/1 READY", "out/ UNAVAILABLE: unloaded"));
  EXPECT_TRUE(repository_->Load("out").ok());
  EXPECT_TRUE(repository_->Find("out", "").ok());
  EXPECT_TRUE(repository_->CheckAll().ok());
}

TEST_F(UnreadableModelsTest, AModelThatAppearsAndCannotBeReadIsInTheIndexUntilItIsGone) {
  folder_.Show("", true);
  Open();
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Show("net", false);
  {
    const AsNobody nobody;
    for (int i = 0; i < 2; ++i) repository_->Poll();
  }
  EXPECT_THAT(Rows(), ElementsAre(HasSubstr("net/ UNAVAILABLE: cannot look at")));
  folder_.Show("net", true);
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_TRUE(repository_->CheckAll().ok()) << "it has been read since";
  folder_.Remove("net");
  for (int i = 0; i < 2; ++i) repository_->Poll();
  EXPECT_THAT(Rows(), ElementsAre());
}

}  // namespace unreadable_models_test
}  // namespace octet
