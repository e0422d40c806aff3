// What a repository makes of capture.
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/repository/model_repository.h"
#include "server/repository/model_settings.h"
#include "tests/support/model_folder.h"

namespace octet {
namespace model_capture_test {

using ::testing::HasSubstr;

class ModelCaptureTest : public ::testing::Test {
 protected:
  ModelCaptureTest() {
    folder_.Write("net/model.yaml", "capture: {percent: 100}\n");
    folder_.Write("net/1/fp32.onnx", ScalingModel(2));
    config_.repository.path = folder_.path();
    config_.capture.path = captures_.path();
  }
  void Open() {
    auto opened = ModelRepository::Open(config_, 1, metrics_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    repository_ = *std::move(opened);
  }
  std::shared_ptr<RequestCapture> Capture() { return (*repository_->Find("net", ""))->capture; }
  void Offer(RequestCapture& capture) {
    const std::vector<float> row = {1, 2, 3, 4};
    capture.Offer(0.5, std::vector<WireTensor>{{row.data(), {DType::kF32, {1, 4}}}});
  }
  bool Written(const std::string& file = "net/1/fp32-4.npz") {
    return std::filesystem::exists(captures_.path(file));
  }

  ModelFolder folder_;
  ModelFolder captures_;
  ServerConfig config_;
  MetricsRegistry metrics_{{}};
  std::unique_ptr<ModelRepository> repository_;
};

TEST_F(ModelCaptureTest, WithoutTheKeyThereIsNone) {
  folder_.Write("net/model.yaml", "");
  Open();
  EXPECT_EQ(Capture(), nullptr);
  EXPECT_THAT(metrics_.Text(), Not(HasSubstr("octet_capture")));
}

TEST_F(ModelCaptureTest, WithoutAPathItIsRefusedWithBothNames) {
  config_.capture.path = "";
  Open();
  constexpr std::string_view kError =
      "net/model.yaml: capture: the server's configuration has no capture.path";
  EXPECT_THAT(repository_->Index(false)[0].reason, HasSubstr(kError));
  EXPECT_THAT(std::string(Message(CheckModelSettings(config_))), HasSubstr(kError));
}

TEST_F(ModelCaptureTest, ARuleThatDoesNotFitIsRefusedWithItsFile) {
  folder_.Write("net/model.yaml", "capture: {percent: 100, redact: [y]}\n");
  Open();
  EXPECT_THAT(repository_->Index(false)[0].reason,
              HasSubstr("net/model.yaml: capture.redact: the model has no input 'y', it has x"));
}

TEST_F(ModelCaptureTest, GoesOnWhenAnotherFileIsLoadedAndEndsWithTheKey) {
  Open();
  const auto first = Capture();
  ASSERT_NE(first, nullptr);
  Offer(*first);
  folder_.Write("net/1/bf16.onnx", ScalingModel(3));
  ASSERT_TRUE(repository_->Load("net").ok());
  EXPECT_EQ(Capture(), first);
  EXPECT_FALSE(Written());
  folder_.Write("net/model.yaml", "capture: {percent: 50}\n");
  ASSERT_TRUE(repository_->Load("net").ok());
  EXPECT_NE(Capture(), first) << "another rule, another sample";
  EXPECT_TRUE(Written()) << "the one before is written";
  EXPECT_THAT(metrics_.Text(),
              HasSubstr(R"(octet_captured_requests_total{model="net",version="1"} 1)"));
  folder_.Write("net/model.yaml", "");
  ASSERT_TRUE(repository_->Load("net").ok());
  EXPECT_EQ(Capture(), nullptr);
}

TEST_F(ModelCaptureTest, AReloadThatRedactsRemovesWhatWasKeptAndWritesNoneOfIt) {
  Open();
  Offer(*Capture());
  Capture()->Write();
  EXPECT_TRUE(Written());
  const auto before = Capture();
  Offer(*before);
  folder_.Write("net/model.yaml", "capture: {percent: 100, redact: [x]}\n");
  testing::internal::CaptureStderr();
  ASSERT_TRUE(repository_->Load("net").ok());
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("level=warn event=capture_discarded model=net version=1 folder="));
  EXPECT_FALSE(Written());
  before->Write();
  EXPECT_FALSE(Written());
  Offer(*Capture());
  ASSERT_TRUE(repository_->Unload("net").ok());
  EXPECT_TRUE(Written()) << "zeros alone";
}

TEST_F(ModelCaptureTest, UnloadingWrites) {
  Open();
  Offer(*Capture());
  ASSERT_TRUE(repository_->Unload("net").ok());
  EXPECT_TRUE(Written());
}

TEST_F(ModelCaptureTest, TheEndOfTheRepositoryWrites) {
  Open();
  Offer(*Capture());
  repository_.reset();
  EXPECT_TRUE(Written());
}

}  // namespace model_capture_test
}  // namespace octet
