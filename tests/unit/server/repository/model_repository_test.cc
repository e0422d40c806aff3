#include "server/repository/model_repository.h"

#include <numeric>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/repository/model_settings.h"
#include "tests/support/as_nobody.h"
#include "tests/support/repository_test.h"

namespace octet {
namespace model_repository_test {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::string_view kGarbage = "this is no protobuf";

TEST_F(ModelRepositoryTest, ClassesHaveTheLabelsOfTheFolder) {
  folder_.Write("plain/1/fp32.onnx", ScalingModel(2));
  folder_.Write("named/1/fp32.onnx", ScalingModel(2));
  folder_.Write("named/labels.txt", "cat\r\nblack dog\n");
  Open();
  EXPECT_THAT((*repository_->Find("named", ""))->labels, ElementsAre("cat", "black dog"));
  EXPECT_TRUE((*repository_->Find("plain", ""))->labels.empty());
}

TEST_F(ModelRepositoryTest, LabelsAreCutAtAMebibyte) {
  constexpr size_t kMebi = size_t{1} << 20;
  folder_.Write("line/1/fp32.onnx", ScalingModel(2));
  folder_.Write("line/labels.txt", std::string(3 * kMebi, 'x'));
  folder_.Write("lines/1/fp32.onnx", ScalingModel(2));
  folder_.Write("lines/labels.txt", "cat\n" + std::string(kMebi - 6, 'x') + "\ndog\nbird\n");
  Open();
  const auto line = (*repository_->Find("line", ""))->labels;
  ASSERT_EQ(line.size(), 1U);
  EXPECT_EQ(line[0].size(), kMebi) << "however long the line is, which may be no text at all";
  const auto lines = (*repository_->Find("lines", ""))->labels;
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[2], "d");
}

TEST_F(ModelRepositoryTest, LabelsAreFollowedAsModelYamlIs) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  folder_.Write("net/labels.txt", "cat\ndog\n");
  PollTwice();
  EXPECT_THAT((*repository_->Find("net", ""))->labels, ElementsAre("cat", "dog"));
  folder_.Write("net/labels.txt", "dog\ncat\n");
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_THAT((*repository_->Find("net", ""))->labels, ElementsAre("dog", "cat"));
  folder_.Remove("net/labels.txt");
  PollTwice();
  EXPECT_TRUE((*repository_->Find("net", ""))->labels.empty());
  EXPECT_EQ(loads(), 1) << "the model is the same";
}

TEST_F(ModelRepositoryTest, WhatCannotBeLookedAtAnswersOn) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("other/1/fp32.onnx", ScalingModel(3));
  folder_.Write("third/1/fp32.onnx", ScalingModel(4));
  folder_.Show("", true);
  Open();
  folder_.Show("net/1", false);
  folder_.Show("other", false);
  folder_.Remove("third");
  testing::internal::CaptureStderr();
  {
    const AsNobody nobody;
    for (int i = 0; i < 3; ++i) repository_->Poll();
    const absl::Status status = repository_->Load("net");
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(Message(status)), HasSubstr(folder_.path("net/1")));
    EXPECT_EQ(repository_->Load("other").code(), absl::StatusCode::kUnavailable);
    EXPECT_FALSE(repository_->CheckAll().ok());
  }
  const std::string log = testing::internal::GetCapturedStderr();
  const std::string_view event = "level=error event=model_unreadable model=net ";
  ASSERT_THAT(log, HasSubstr(event));
  EXPECT_EQ(log.find(event, log.find(event) + 1), std::string::npos) << "once";
  EXPECT_THAT(Rows(*repository_), ElementsAre("net/1 READY", "other/1 READY"));
  EXPECT_EQ(Ask("net"), 2);
  folder_.Show("net/1", true);
  folder_.Show("other", true);
  folder_.Write("net/1/fp32.onnx", ScalingModel(5));
  PollTwice();
  EXPECT_EQ(Ask("net"), 5);
  EXPECT_TRUE(repository_->CheckAll().ok());
}

TEST_F(ModelRepositoryTest, AFolderThatCannotBeReadAtFirstIsTriedAgainUnlessStrict) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Show("", false);
  ServerConfig config = Config();
  {
    const AsNobody nobody;
    Open(config);
    EXPECT_FALSE(repository_->Ready());
    config.repository.strict = true;
    EXPECT_EQ(ModelRepository::Open(config, 1, metrics_).status().code(),
              absl::StatusCode::kUnavailable);
  }
  folder_.Show("", true);
  repository_->Poll();
  EXPECT_TRUE(repository_->Ready());
  EXPECT_EQ(Ask("net"), 2);
}

TEST_F(ModelRepositoryTest, TheHighestReadyVersionAnswers) {
  folder_.Write("net/model.yaml", "versions: {all: true}");
  folder_.Write("net/2/fp32.onnx", ScalingModel(2));
  folder_.Write("net/10/fp32.onnx", ScalingModel(10));
  folder_.Write("net/11/fp32.onnx", kGarbage);
  Open();
  EXPECT_TRUE(repository_->Ready());
  EXPECT_EQ(Ask("net"), 10);
  EXPECT_EQ(Ask("net", Precision::kFp32, "2"), 2);
  EXPECT_EQ((*repository_->Find("net", ""))->version, "10");
  EXPECT_EQ(repository_->List("net", "")->size(), 2);
  EXPECT_EQ(repository_->List("", "")->size(), 2);
  EXPECT_EQ(repository_->List("net", "2")->front()->number, 2);
  EXPECT_THAT(Rows(*repository_), ElementsAre("net/2 READY", "net/10 READY",
                                              AllOf(HasSubstr("net/11 UNAVAILABLE: fp32: "),
                                                    HasSubstr("net/11/fp32.onnx"))));
  EXPECT_THAT(Rows(*repository_, true), ElementsAre("net/2 READY", "net/10 READY"));
}

TEST_F(ModelRepositoryTest, EveryWrongQuestionHasItsCode) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("broken/1/fp32.onnx", kGarbage);
  folder_.Write("empty/1/notes.txt", "");
  folder_.Write("bare/notes.txt", "");
  Open();
  const auto code = [&](std::string_view model, std::string_view version) {
    EXPECT_EQ(repository_->List(model, version).status().code(),
              repository_->Find(model, version).status().code());
    return repository_->Find(model, version).status().code();
  };
  EXPECT_EQ(code("net", "1"), absl::StatusCode::kOk);
  EXPECT_EQ(code("net", "2"), absl::StatusCode::kNotFound);
  EXPECT_EQ(code("nett", ""), absl::StatusCode::kNotFound);
  EXPECT_EQ(code("net", "one"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("net", "-1"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("net", "1 "), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("net", "99999999999999999999"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("broken", ""), absl::StatusCode::kUnavailable);
  EXPECT_EQ(code("broken", "1"), absl::StatusCode::kUnavailable);
  EXPECT_EQ(code("empty", ""), absl::StatusCode::kUnavailable);
  EXPECT_EQ(code("bare", ""), absl::StatusCode::kUnavailable);
  const std::string unknown(Message(repository_->Find("nett", "").status()));
  EXPECT_TRUE(unknown.starts_with("Request for unknown model")) << unknown;
  EXPECT_THAT(std::string(Message(repository_->Find("broken", "").status())),
              HasSubstr("broken/1/fp32.onnx"));
  EXPECT_THAT(Rows(*repository_),
              ElementsAre(HasSubstr("bare/ UNAVAILABLE: no version"),
                          HasSubstr("broken/1 UNAVAILABLE: fp32: "),
                          HasSubstr("empty/1 UNAVAILABLE: no model file"), "net/1 READY"));
}

TEST_F(ModelRepositoryTest, AMissingFolderIsNamed) {
  ServerConfig config;
  config.repository.path = folder_.path("nowhere");
  const auto opened = ModelRepository::Open(config, 1, metrics_);
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Message(opened.status())), HasSubstr("nowhere"));
}

TEST_F(ModelRepositoryTest, StrictRefusesWhatDoesNotLoad) {
  folder_.Write("good/1/fp32.onnx", ScalingModel(2));
  ServerConfig config = Config();
  config.repository.strict = true;
  Open(config);
  folder_.Write("bad/1/fp32.onnx", kGarbage);
  const auto opened = ModelRepository::Open(config, 1, metrics_);
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(opened.status())),
              AllOf(HasSubstr("bad: "), Not(HasSubstr("good"))));
}

TEST_F(ModelRepositoryTest, NothingIsReadyBeforeTheFirstPoll) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  repository_ = *ModelRepository::Create(Config(), 1, metrics_);
  EXPECT_FALSE(repository_->Ready());
  EXPECT_EQ(repository_->Find("net", "").status().code(), absl::StatusCode::kUnavailable);
  std::stop_source stop;
  stop.request_stop();
  repository_->Poll(stop.get_token());
  EXPECT_FALSE(repository_->Ready());
  repository_->Poll();
  EXPECT_TRUE(repository_->Ready());
  EXPECT_EQ(Ask("net"), 2);
}

TEST_F(ModelRepositoryTest, AVariantThatCannotAnswerSaysWhyAndLeavesTheOthers) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", kGarbage);
  folder_.Write("net/1/int8.onnx", ScalingModel(3, {kUnknownDim, 4}, "image"));
  folder_.Write("net/1/fp16.onnx", ScalingModel(3, {1, 4}));
  folder_.Write("net/model.yaml", "routing: {split: {fp32: 1, int8-dynamic: 1}}");
  Open();
  const auto version = *repository_->Find("net", "");
  EXPECT_THAT(version->Find(Precision::kBf16)->reason, HasSubstr("net/1/bf16.onnx"));
  EXPECT_THAT(version->Find(Precision::kInt8)->reason,
              AllOf(HasSubstr("signature"), HasSubstr("'x'"), HasSubstr("'image'")));
  EXPECT_THAT(version->Find(Precision::kFp16)->reason,
              AllOf(HasSubstr("signature"), HasSubstr("shape")));
  EXPECT_THAT(version->Find(Precision::kInt8Dynamic)->reason, HasSubstr("does not exist"));
  EXPECT_EQ(version->Find(Precision::kInt8Dynamic)->queue, nullptr);
  EXPECT_TRUE(version->signature.batches) << "that fp16 does not is nobody's matter";
  EXPECT_EQ(Ask("net"), 2);
  EXPECT_THAT(Rows(*repository_), ElementsAre(AllOf(HasSubstr("net/1 READY: "), HasSubstr("bf16: "),
                                                    HasSubstr("; int8-dynamic: "))));
  EXPECT_EQ(version->routes.candidates.size(), 5);
  EXPECT_FALSE(repository_->CheckAll().ok());
}

TEST_F(ModelRepositoryTest, AChangedFileIsFollowedAtTheSecondLookAndAlone) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/1/bf16.onnx", ScalingModel(3));
  folder_.Write("other/1/fp32.onnx", ScalingModel(4));
  Open();
  EXPECT_EQ(loads(), 3);
  folder_.Write("net/1/fp32.onnx", ScalingModel(5));
  repository_->Poll();
  EXPECT_EQ(Ask("net"), 2);
  repository_->Poll();
  EXPECT_EQ(Ask("net"), 5);
  EXPECT_EQ(loads(), 4);
  repository_->Poll();
  EXPECT_EQ(loads(), 4);
  folder_.Write("net/1/fp32.onnx", ScalingModel(6));
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_EQ(Ask("net"), 6);
  EXPECT_EQ(loads(), 5);
}

TEST_F(ModelRepositoryTest, AReloadFollowsAtTheFirstLookAndTriesAgainWhatFailed) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("gone/1/fp32.onnx", ScalingModel(2));
  folder_.Write("out/1/fp32.onnx", ScalingModel(2));
  folder_.Write("bad/1/fp32.onnx", kGarbage);
  Open();
  EXPECT_EQ(loads(), 3);
  const auto version = *repository_->Find("net", "");
  EXPECT_TRUE(repository_->Unload("out").ok());
  const auto failures = [&] { return metrics_.server().load_failures.value(); };
  const uint64_t before = failures();
  repository_->Poll();
  EXPECT_EQ(failures(), before);
  EXPECT_TRUE(repository_->Reload({}).ok());
  EXPECT_GT(failures(), before) << "the same garbage";
  EXPECT_EQ(loads(), 3) << "and nothing that had not changed";
  EXPECT_EQ(*repository_->Find("net", ""), version);
  folder_.Write("net/1/fp32.onnx", ScalingModel(3));
  folder_.Write("new/1/fp32.onnx", ScalingModel(4));
  folder_.Write("bad/1/fp32.onnx", ScalingModel(5));
  folder_.Remove("gone");
  EXPECT_TRUE(repository_->Reload({}).ok());
  EXPECT_EQ(Ask("net"), 3);
  EXPECT_EQ(Ask("new"), 4);
  EXPECT_EQ(Ask("bad"), 5);
  EXPECT_EQ(repository_->Find("gone", "").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(repository_->Find("out", "").status().code(), absl::StatusCode::kUnavailable)
      << "somebody unloaded it";
}

TEST_F(ModelRepositoryTest, AReloadOfAFolderThatIsAwaySaysSoAndUnloadsNothing) {
  folder_.Write("models/net/1/fp32.onnx", ScalingModel(2));
  ServerConfig config = Config();
  config.repository.path = folder_.path("models");
  Open(config);
  std::filesystem::rename(folder_.path("models"), folder_.path("away"));
  EXPECT_EQ(repository_->Reload({}).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Ask("net"), 2);
  std::filesystem::rename(folder_.path("away"), folder_.path("models"));
  folder_.Write("models/net/1/fp32.onnx", ScalingModel(3));
  EXPECT_TRUE(repository_->Reload({}).ok());
  EXPECT_EQ(Ask("net"), 3);
}

TEST_F(ModelRepositoryTest, AFileThatIsStillBeingWrittenIsLeftAlone) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  for (int i = 0; i < 3; ++i) {
    folder_.Write("net/1/fp32.onnx", kGarbage);
    repository_->Poll();
  }
  folder_.Write("net/1/fp32.onnx", ScalingModel(3));
  PollTwice();
  EXPECT_EQ(Ask("net"), 3);
  EXPECT_EQ(metrics_.server().load_failures.value(), 0);
}

TEST_F(ModelRepositoryTest, AnotherMaxBatchCompilesAnew) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  folder_.Write("net/model.yaml", "batching: {max_batch: 16}");
  PollTwice();
  EXPECT_EQ(loads(), 2);
  EXPECT_EQ((*repository_->Find("net", ""))->batching.max_batch, 16);
}

TEST_F(ModelRepositoryTest, WhatBatchesTookIsForgottenWithWhatTheyRanOn) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  const auto before = *repository_->Find("net", "");
  const auto metrics = before->Find(Precision::kFp32)->metrics;
  Ask("net");
  metrics->batch_time.Set(BatchSizeIndex(8), 0.25);
  EXPECT_GT(metrics->batch_time.value(BatchSizeIndex(1)), 0);
  folder_.Write("net/1/fp32.onnx", ScalingModel(3));
  folder_.Write("net/model.yaml", "batching: {max_batch: 2}");
  PollTwice();
  EXPECT_EQ(metrics->batch_time.value(BatchSizeIndex(8)), 0) << "no batch is so large any more";
  EXPECT_EQ(metrics->batch_time.value(BatchSizeIndex(1)), 0) << "and none has run";
  EXPECT_EQ(Ask(*before), 2) << "who was accepted before";
  EXPECT_EQ(metrics->batch_time.value(BatchSizeIndex(1)), 0) << "its times are not the new file's";
  EXPECT_EQ(Ask("net"), 3);
  EXPECT_GT(metrics->batch_time.value(BatchSizeIndex(1)), 0);
}

TEST_F(ModelRepositoryTest, ABrokenModelYamlKeepsWhatServes) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  for (const char* broken :
       {"routing: [", "name: other", "batching: {max_batch: 100000}", "colour: red",
        "inputs: {y: {wire: {datatype: UINT8, scale: 1, zero_point: 0}}}",
        "inputs: {x: {wire: {datatype: UINT8, scale: [1, 2], zero_point: [0, 0]}}}"}) {
    folder_.Write("net/model.yaml", broken);
    PollTwice();
    EXPECT_EQ(Ask("net"), 2) << broken;
    EXPECT_THAT(Rows(*repository_),
                ElementsAre(AllOf(HasSubstr("net/1 READY: "), HasSubstr("model.yaml"))))
        << broken;
    EXPECT_FALSE(repository_->Load("net").ok()) << broken;
  }
  folder_.Write("net/model.yaml", "");
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_THAT(Rows(*repository_), ElementsAre("net/1 READY"));
  EXPECT_EQ(loads(), 1);
}

TEST_F(ModelRepositoryTest, AModelYamlBrokenFromTheStartIsTheModelsReason) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/model.yaml", "colour: red");
  Open();
  EXPECT_THAT(Rows(*repository_), ElementsAre(AllOf(HasSubstr("net/ UNAVAILABLE: "),
                                                    HasSubstr("model.yaml:1:1: colour"))));
  EXPECT_EQ(repository_->Find("net", "1").status().code(), absl::StatusCode::kUnavailable);
  folder_.Remove("net/model.yaml");
  PollTwice();
  EXPECT_EQ(Ask("net"), 2);
}

TEST_F(ModelRepositoryTest, AModelWhoseConfigurationIsRefusedCounts) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("net/model.yaml", "no such key: 1\n");
  Open();
  EXPECT_EQ(metrics_.server().load_failures.value(), 1);
  PollTwice();
  EXPECT_EQ(metrics_.server().load_failures.value(), 1) << "an unchanged file is not read again";
}

TEST_F(ModelRepositoryTest, ABrokenFileKeepsTheModelThatServes) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  folder_.Write("net/1/fp32.onnx", kGarbage);
  PollTwice();
  EXPECT_EQ(Ask("net"), 2);
  EXPECT_THAT(Rows(*repository_),
              ElementsAre(AllOf(HasSubstr("net/1 READY: fp32: "), HasSubstr("before"))));
  PollTwice();
  EXPECT_EQ(metrics_.server().load_failures.value(), 1) << "an unchanged file is not tried again";
  EXPECT_FALSE(repository_->Load("net").ok());
  EXPECT_EQ(metrics_.server().load_failures.value(), 2) << "unless somebody asks for it";
}

TEST_F(ModelRepositoryTest, ANewVersionReplacesTheOldOneOnceItIsReady) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(1));
  Open();
  folder_.Write("net/2/fp32.onnx", kGarbage);
  PollTwice();
  EXPECT_EQ(Ask("net"), 1);
  EXPECT_THAT(Rows(*repository_), ElementsAre(HasSubstr("net/1 READY: answers until"),
                                              HasSubstr("net/2 UNAVAILABLE: ")));
  folder_.Write("net/2/fp32.onnx", ScalingModel(2));
  PollTwice();
  EXPECT_EQ(Ask("net"), 2);
  EXPECT_THAT(Rows(*repository_), ElementsAre("net/2 READY"));
  EXPECT_EQ(repository_->Find("net", "1").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelRepositoryTest, ModelsComeAndGo) {
  folder_.Write("a/1/fp32.onnx", ScalingModel(1));
  Open();
  folder_.Write("b/1/fp32.onnx", ScalingModel(2));
  PollTwice();
  EXPECT_EQ(Ask("b"), 2);
  folder_.Remove("a");
  repository_->Poll();
  EXPECT_EQ(Ask("a"), 1);
  repository_->Poll();
  EXPECT_EQ(repository_->Find("a", "").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Rows(*repository_), ElementsAre("b/1 READY"));
  EXPECT_EQ(repository_->Load("a").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(repository_->Load("../b").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(repository_->Load(std::string(256, 'a')).code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelRepositoryTest, AnUnloadedModelIsFreedWithItsLastHolderAndStaysOut) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  auto held = *repository_->Find("net", "");
  const std::weak_ptr<const Model> model = held->Find(Precision::kFp32)->queue->target().model;
  EXPECT_TRUE(repository_->Unload("net").ok());
  EXPECT_EQ(Ask(*held), 2);
  EXPECT_THAT(Rows(*repository_), ElementsAre("net/1 UNLOADING: unloaded"));
  const auto refused = repository_->Find("net", "").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(Message(refused)), HasSubstr("unloaded"));
  held.reset();
  EXPECT_TRUE(model.expired());
  EXPECT_THAT(Rows(*repository_), ElementsAre("net/1 UNAVAILABLE: unloaded"));
  folder_.Write("net/1/fp32.onnx", ScalingModel(3));
  PollTwice();
  EXPECT_EQ(Ask("net"), -1);
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_EQ(Ask("net"), 3);
  EXPECT_EQ(repository_->Unload("nett").code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelRepositoryTest, AReplacedModelIsFreed) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  const std::weak_ptr<const Model> model =
      (*repository_->Find("net", ""))->Find(Precision::kFp32)->queue->target().model;
  folder_.Write("net/1/fp32.onnx", ScalingModel(3));
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_TRUE(model.expired());
}

TEST_F(ModelRepositoryTest, PrecisionsAndVersionsAreThoseOfModelYaml) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(1));
  folder_.Write("net/2/fp32.onnx", ScalingModel(2));
  folder_.Write("net/2/bf16.onnx", ScalingModel(3));
  folder_.Write("net/model.yaml", "precisions: [bf16, fp16]\nversions: {specific: [2]}");
  Open();
  const auto version = *repository_->Find("net", "");
  EXPECT_EQ(version->Find(Precision::kFp32), nullptr);
  EXPECT_EQ(Ask(*version, Precision::kBf16), 3);
  EXPECT_THAT(version->Find(Precision::kFp16)->reason, HasSubstr("net/2/fp16.onnx"));
  EXPECT_THAT(Rows(*repository_), ElementsAre(HasSubstr("net/2 READY: fp16: ")));
}

TEST_F(ModelRepositoryTest, TheCheckOfAConfigurationKnowsWhichVersionsAreThere) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(1));
  folder_.Write("net/model.yaml", "versions: {specific: [1]}");
  EXPECT_EQ(CheckModelSettings(Config()), absl::OkStatus());
  folder_.Write("net/model.yaml", "versions: {specific: [9]}");
  EXPECT_EQ(
      Message(CheckModelSettings(Config())),
      folder_.path("net/model.yaml") + ": versions.specific: the model has no such version: 9");
  folder_.Write("net/model.yaml", "pipeline: {steps: {a: {model: net}}, outputs: {y: a.y}}");
  EXPECT_EQ(Message(CheckModelSettings(Config())),
            folder_.path("net/model.yaml") +
                ": pipeline: expected a folder without versions, got version 1");
}

TEST_F(ModelRepositoryTest, ARequiredInt8ShareHoldsForInt8FilesAlone) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 4});
  b.Output(b.Op("MatMul", {x, b.Random({4, 4})}), "y");
  const Graph dense = b.Build();
  folder_.Write("net/1/fp32.onnx", dense);
  folder_.Write("net/1/int8.onnx", dense);
  ServerConfig config = Config();
  config.engine.require_int8_percent = 95;
  Open(config);
  const auto version = *repository_->Find("net", "");
  EXPECT_TRUE(version->Find(Precision::kFp32)->ready());
  EXPECT_THAT(version->Find(Precision::kInt8)->reason, HasSubstr("too few multiply-adds"));
}

TEST_F(ModelRepositoryTest, AModelThatDoesNotBatchRunsOneRequestAtATime) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2, {4}));
  Open();
  const auto version = *repository_->Find("net", "");
  EXPECT_FALSE(version->signature.batches);
  EXPECT_EQ(version->Find(Precision::kFp32)->queue->target().batch.max_batch, 1);
}

TEST_F(ModelRepositoryTest, OpenExtentsAreServedWithoutACertificate) {
  GraphBuilder b;
  b.Output(b.Op("Relu", {b.Input("x", {kUnknownDim, kUnknownDim})}), "y");
  folder_.Write("net/1/fp32.onnx", b.Build());
  Open();
  EXPECT_EQ(Ask("net"), 1);
  EXPECT_THAT((*repository_->Find("net", ""))->Find(Precision::kFp32)->certificate.layers,
              ElementsAre());
}

TEST_F(ModelRepositoryTest, TheShareOfInt8IsANumberWhereItIsKnown) {
  const auto dense = [](Shape shape) {
    GraphBuilder b;
    const ValueId x = b.Input("x", std::move(shape));
    b.Output(b.Op("MatMul", {x, b.Random({4, 4})}), "y");
    return b.Build();
  };
  folder_.Write("fixed/1/int8.onnx", dense({kUnknownDim, 4}));
  folder_.Write("open/1/int8.onnx", dense({kUnknownDim, kUnknownDim, 4}));
  Open();
  const std::string text = metrics_.Text();
  EXPECT_THAT(text, HasSubstr("octet_int8_mac_ratio{model=\"fixed\",version=\"1\","
                              "precision=\"int8\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("octet_variant_ready{model=\"open\",version=\"1\","
                              "precision=\"int8\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("octet_int8_mac_ratio{model=\"open\"")))
      << "an alert asks for little int8";
  const auto arm = [this](std::string_view model) {
    const auto version = *repository_->Find(model, "");
    return version->experiment->Read(*version).arms.at(0);
  };
  EXPECT_EQ(arm("fixed").int8_mac_ratio, 0.0);
  EXPECT_EQ(arm("open").int8_mac_ratio, std::nullopt);
}

TEST_F(ModelRepositoryTest, CompilingForNewShapesIsTimed) {
  GraphBuilder b;
  b.Output(b.Op("Relu", {b.Input("x", {kUnknownDim, kUnknownDim})}), "y");
  folder_.Write("net/1/fp32.onnx", b.Build());
  Open();
  const auto compiled = [&] {
    const HistogramCounts counts =
        metrics_.ForVariant({"net", "1", "fp32"})->plan_compile_duration.Read();
    return std::accumulate(counts.counts.begin(), counts.counts.end(), uint64_t{0});
  };
  EXPECT_EQ(compiled(), 0U) << "no shape is known before a request";
  EXPECT_EQ(Ask("net"), 1);
  EXPECT_EQ(compiled(), 1U);
  EXPECT_EQ(Ask("net"), 1);
  EXPECT_EQ(compiled(), 1U) << "the plan is kept";
}

TEST_F(ModelRepositoryTest, RequestsAreCountedAndCountsSurviveAReload) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  const auto metrics = metrics_.ForVariant({"net", "1", "fp32"});
  EXPECT_EQ(metrics->ready.value(), 1);
  EXPECT_GT(metrics->resident_weight_bytes.value(), 0);
  EXPECT_GT(metrics->load_seconds.value(), 0);
  EXPECT_EQ(Ask("net"), 2);
  folder_.Write("net/1/fp32.onnx", ScalingModel(3));
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_EQ(Ask("net"), 3);
  EXPECT_EQ(metrics->requests.value(0), 2);
  EXPECT_EQ(metrics->rows.value(), 2);
  EXPECT_EQ(metrics->executions.value(), 2);
  EXPECT_EQ(metrics->in_flight.value(), 0);
  EXPECT_EQ(metrics->queue_depth.value(), 0);
  EXPECT_EQ((*repository_->Find("net", ""))->statistics->Read().success.count, 2);
  EXPECT_TRUE(repository_->Unload("net").ok());
  EXPECT_THAT(metrics_.Text(), Not(HasSubstr("octet_variant_ready{"))) << "taken out by intent";
}

TEST_F(ModelRepositoryTest, LookUpsGoOnWhileModelsLoad) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  Open();
  std::jthread reader([this](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const auto found = repository_->Find("net", "");
      ASSERT_TRUE(found.ok()) << found.status();
      ASSERT_GT(Ask(**found), 0);
    }
  });
  for (int i = 1; i <= 20; ++i) {
    folder_.Write("net/1/fp32.onnx", ScalingModel(static_cast<float>(i)));
    EXPECT_TRUE(repository_->Load("net").ok());
    EXPECT_EQ(Ask("net"), i);
  }
}

}  // namespace model_repository_test
}  // namespace octet