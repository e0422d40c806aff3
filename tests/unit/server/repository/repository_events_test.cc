// What a repository writes into the log.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/repository/model_repository.h"
#include "tests/support/model_folder.h"

namespace octet {
namespace repository_events_test {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class RepositoryEventsTest : public ::testing::Test {
 protected:
  /// What is logged while `act` runs.
  template <typename Act>
  static std::string LogOf(Act act) {
    testing::internal::CaptureStderr();
    act();
    return testing::internal::GetCapturedStderr();
  }
  std::string Open() {
    return LogOf([this] {
      ServerConfig config;
      config.repository.path = folder_.path();
      auto opened = ModelRepository::Open(config, 1, metrics_);
      ASSERT_TRUE(opened.ok()) << opened.status();
      repository_ = *std::move(opened);
    });
  }
  /// Two looks: the second one follows.
  std::string Poll() {
    return LogOf([this] {
      repository_->Poll();
      repository_->Poll();
    });
  }

  ModelFolder folder_;
  MetricsRegistry metrics_{{}};
  std::unique_ptr<ModelRepository> repository_;
};

TEST_F(RepositoryEventsTest, VersionsAndModelsThatComeAndGo) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/fp99.onnx", "what is this");
  EXPECT_THAT(Open(),
              AllOf(HasSubstr("level=info event=variant_loaded model=net version=1"),
                    HasSubstr("event=version_ready model=net version=1"),
                    HasSubstr("event=entry_ignored path=" + folder_.path("net/1/fp99.onnx"))));
  EXPECT_EQ(Poll(), "") << "nothing is said twice";
  folder_.Write("net/2/fp32.onnx", ScalingModel(3));
  EXPECT_THAT(Poll(), AllOf(HasSubstr("event=version_ready model=net version=2"),
                            HasSubstr("event=version_retired model=net version=1")));
  EXPECT_THAT(LogOf([this] { EXPECT_TRUE(repository_->Unload("net").ok()); }),
              HasSubstr("event=model_unloaded model=net"));
  folder_.Remove("net");
  EXPECT_THAT(Poll(), HasSubstr("event=model_removed model=net"));
  folder_.Remove("");
  EXPECT_THAT(Poll(), HasSubstr("level=error event=repository_unreadable error="));
}

TEST_F(RepositoryEventsTest, AFolderThatHasNoModelsNameIsToldOfOnce) {
  folder_.Write("caf\xE9/1/fp32.onnx", ScalingModel(2));
  EXPECT_THAT(Open(), HasSubstr("event=entry_ignored path=\"" + folder_.path("caf\\xe9\"")));
  EXPECT_EQ(Poll(), "");
  EXPECT_EQ(metrics_.Text().find("caf"), std::string::npos);
}

TEST_F(RepositoryEventsTest, ConfigurationsThatWereRead) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/model.yaml", "routing: {default: fp32}");
  EXPECT_THAT(Open(), HasSubstr("level=info event=model_config_read model=net file=" +
                                folder_.path("net/model.yaml")));
  folder_.Write("net/rollout.yaml", "routing: {default: fp32}");
  EXPECT_THAT(Poll(), HasSubstr("level=info event=rollout_config_read model=net file=" +
                                folder_.path("net/rollout.yaml")));
  folder_.Write("net/rollout.yaml", "routing: {default: fp33}");
  EXPECT_THAT(Poll(), HasSubstr("level=error event=model_config_refused model=net error="));
}

TEST_F(RepositoryEventsTest, WhatCannotBeServedSaysWhy) {
  folder_.Write("refused/1/fp32.onnx", "this is no protobuf");
  folder_.Write("none/README", "no version");
  folder_.Write("empty/1/README", "no file");
  folder_.Write("missing/1/fp32.onnx", ScalingModel(2));
  folder_.Write("missing/model.yaml", "precisions: [fp32, int8]");
  folder_.Write("unfit/1/fp32.onnx", ScalingModel(2));
  folder_.Write("unfit/model.yaml",
                "inputs: {none: {wire: {datatype: UINT8, scale: 1, zero_point: 0}}}");
  folder_.Write("pipe/1/fp32.onnx", ScalingModel(2));
  folder_.Write("pipe/model.yaml", "pipeline: {steps: {a: {model: unfit}}, outputs: {y: a.y}}");
  const std::string log = Open();
  for (const char* event :
       {"variant_refused model=refused", "version_unavailable model=refused version=1",
        "no_version model=none", "version_empty model=empty", "variant_missing model=missing",
        "version_refused model=unfit", "pipeline_refused model=pipe"}) {
    EXPECT_THAT(log, HasSubstr(Format("level=error event={}", event)));
  }
}

TEST_F(RepositoryEventsTest, ARoutedVersionThatIsNotThere) {
  folder_.Write("net/3/fp32.onnx", ScalingModel(3));
  folder_.Write("net/model.yaml",
                "routing: {versions: {3: 1, 5: 1}, guard: {int8: {error_percent: 1}}, ramp: "
                "{version: 9, steps: [20]}}");
  EXPECT_THAT(Open(),
              AllOf(HasSubstr("level=warn event=routed_version_missing model=net version=5"),
                    HasSubstr("level=warn event=routed_version_missing model=net version=9"),
                    Not(HasSubstr("routed_version_missing model=net version=3"))));
}

TEST_F(RepositoryEventsTest, ASelectedVersionThatIsNotThere) {
  folder_.Write("net/3/fp32.onnx", ScalingModel(3));
  folder_.Write("net/model.yaml", "versions: {specific: [3, 7]}");
  EXPECT_THAT(Open(),
              AllOf(HasSubstr("level=warn event=selected_version_missing model=net version=7"),
                    Not(HasSubstr("selected_version_missing model=net version=3"))));
}

TEST_F(RepositoryEventsTest, RampsThatBeginGoOnAndEnd) {
  folder_.Write("net/3/fp32.onnx", ScalingModel(3));
  folder_.Write("net/4/fp32.onnx", ScalingModel(4));
  folder_.Write("net/model.yaml",
                "routing: {versions: {3: 1}, guard: {int8: {error_percent: 1}}, ramp: {version: 4, "
                "steps: [20, 100]}}");
  EXPECT_THAT(Open(), HasSubstr("level=info event=ramp_begun model=net ramped=\"version 4\""));
  EXPECT_THAT(Open(), HasSubstr("level=info event=ramp_resumed model=net ramped=\"version 4\""));
  const auto look = [this] { LookAtRamps(*repository_->List("", ""), Clock::Real().Now()); };
  EXPECT_THAT(LogOf(look),
              HasSubstr("level=warn event=ramp_unguarded model=net ramped=\"version 4\""));
  EXPECT_EQ(LogOf(look), "") << "said once";
  folder_.Write("net/model.yaml", "routing: {versions: {3: 1}}");
  EXPECT_THAT(Poll(), HasSubstr("level=info event=ramp_ended model=net ramped=\"version 4\""));
}

TEST_F(RepositoryEventsTest, ARampThatCannotBeSaved) {
  folder_.Write("net/3/fp32.onnx", ScalingModel(3));
  folder_.Write("net/4/fp32.onnx", ScalingModel(4));
  folder_.Write("net/.ramp/is/a", "folder");
  folder_.Write("net/model.yaml",
                "routing: {versions: {3: 1}, guard: {int8: {error_percent: 1}}, ramp: {version: 4, "
                "steps: [20]}}");
  EXPECT_THAT(Open(), HasSubstr("level=warn event=ramp_not_saved model=net error="));
}

TEST_F(RepositoryEventsTest, APipelineThatIsThere) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("pipe/model.yaml", "pipeline: {steps: {a: {model: net}}, outputs: {y: a.y}}");
  EXPECT_THAT(Open(), HasSubstr("level=info event=pipeline_ready model=pipe"));
}

}  // namespace repository_events_test
}  // namespace octet
