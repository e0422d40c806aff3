#include "server/repository/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/accumulating_model.h"
#include "tests/support/model_folder.h"

namespace octet {
namespace pipeline_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// y = x + z, both [?, 4].
Graph AddingModel() {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 4});
  const ValueId z = b.Input("z", {kUnknownDim, 4});
  b.Output(b.Op("Add", {x, z}), "y");
  return b.Build();
}

/// y = |x|, of any rank.
Graph AnyRankModel() {
  GraphBuilder b;
  b.Output(b.Op("Abs", {b.Input("x", {kUnknownDim})}), "y");
  Graph graph = b.Build();
  for (const ValueId id : {graph.inputs[0], graph.outputs[0]})
    graph.mutable_value(id).shape.reset();
  return graph;
}

class PipelineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_.Write("twice/1/fp32.onnx", ScalingModel(2));
    folder_.Write("thrice/1/fp32.onnx", ScalingModel(3));
    folder_.Write("add/1/fp32.onnx", AddingModel());
  }
  /// Writes model.yaml of pipeline "pipe" and opens the repository.
  ModelRepository& Open(std::string_view steps, std::string_view outputs, bool strict = false) {
    folder_.Write("pipe/model.yaml",
                  Format("pipeline: {{steps: {{{}}}, outputs: {{{}}}}}\n", steps, outputs));
    ServerConfig config;
    config.repository.path = folder_.path();
    config.repository.strict = strict;
    auto opened = ModelRepository::Open(config, 1, metrics_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    repository_ = *std::move(opened);
    return *repository_;
  }
  /// What the index says of the pipeline.
  std::string Reason() {
    for (const IndexEntry& entry : repository_->Index(false)) {
      if (entry.model != "pipe") continue;
      return Format("{}: {}", VersionStateName(entry.state), entry.reason);
    }
    return "no such entry";
  }
  std::string ReasonOf(std::string_view steps, std::string_view outputs = "out: a.y") {
    Open(steps, outputs);
    return Reason();
  }
  std::shared_ptr<const ModelVersion> Find(std::string_view model = "pipe") {
    const auto found = repository_->Find(model, "");
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? *found : nullptr;
  }

  ModelFolder folder_;
  MetricsRegistry metrics_{{}};
  std::unique_ptr<ModelRepository> repository_;
};

TEST_F(PipelineTest, ItsSignatureFollowsFromItsSteps) {
  Open(
      "sum: {model: add, inputs: {x: left.y, z: right.y}}, left: {model: twice, inputs: {x: "
      "number}}, "
      "right: {model: thrice, precision: fp32, inputs: {x: number}}",
      "total: sum.y, half: left.y", true);
  EXPECT_EQ(Reason(), "READY: ");
  const auto version = Find();
  EXPECT_EQ(version->version, "1");
  EXPECT_TRUE(version->signature.batches);
  ASSERT_EQ(version->signature.inputs.size(), 1U);
  EXPECT_EQ(version->signature.inputs[0].name, "number");
  EXPECT_EQ(version->signature.inputs[0].shape, (Shape{kUnknownDim, 4}));
  ASSERT_EQ(version->signature.outputs.size(), 2U);
  EXPECT_EQ(version->signature.outputs[0].name, "total");
  EXPECT_EQ(version->signature.outputs[1].name, "half");
  const Pipeline& pipeline = *version->pipeline;
  ASSERT_EQ(pipeline.steps.size(), 3U);
  EXPECT_EQ(pipeline.steps[0].name, "left");
  EXPECT_THAT(pipeline.steps[0].readers, ElementsAre(2));
  EXPECT_EQ(pipeline.steps[2].name, "sum");
  EXPECT_EQ(pipeline.steps[2].waits_for, 2U);
  EXPECT_EQ(pipeline.steps[2].inputs[1].step, 1U);
  EXPECT_EQ(pipeline.outputs[1].step, 0U);
}

TEST_F(PipelineTest, InputsThatAreNotNamedAreItsOwn) {
  Open("sum: {model: add, inputs: {z: first.y}}, first: {model: twice}", "y: sum.y");
  EXPECT_EQ(Reason(), "READY: ");
  EXPECT_EQ(Find()->signature.inputs.size(), 1U);
  EXPECT_EQ(Find()->signature.inputs[0].name, "x");
}

TEST_F(PipelineTest, AnInputOfAnyRankIsOneOfItsOwn) {
  folder_.Write("any/1/fp32.onnx", AnyRankModel());
  Open("a: {model: any, inputs: {x: in}}, b: {model: any, inputs: {x: in}}", "y: a.y, z: b.y");
  EXPECT_EQ(Reason(), "READY: ");
  ASSERT_EQ(Find()->signature.inputs.size(), 1U);
  EXPECT_FALSE(Find()->signature.inputs[0].rank_known) << "else it takes scalars alone";
  EXPECT_THAT(
      ReasonOf("a: {model: any, inputs: {x: in}}, b: {model: twice, inputs: {x: in}}"),
      HasSubstr("input \"in\" of the pipeline is FP32 of any rank for one reader and FP32 [?,4]"));
}

TEST_F(PipelineTest, SaysWhyItCannotBe) {
  EXPECT_THAT(ReasonOf("a: {model: nobody}"),
              HasSubstr("UNAVAILABLE: step \"a\": Request for unknown model: 'nobody'"));
  EXPECT_THAT(ReasonOf("a: {model: twice, version: 7}"), HasSubstr("has no version 7"));
  EXPECT_THAT(ReasonOf("a: {model: twice, precision: int8}"),
              HasSubstr("step \"a\": model \"twice\" version 1: "));
  EXPECT_THAT(ReasonOf("a: {model: twice, inputs: {q: number}}"),
              HasSubstr("step \"a\": there is no input \"q\", expected \"x\""));
  EXPECT_THAT(ReasonOf("a: {model: twice, inputs: {x: b.q}}, b: {model: thrice}"),
              HasSubstr("step \"a\": step \"b\" has no output \"q\", expected \"y\""));
  EXPECT_THAT(ReasonOf("a: {model: twice}", "out: a.q"),
              HasSubstr("output \"out\": step \"a\" has no output \"q\""));
  EXPECT_THAT(ReasonOf("a: {model: twice, inputs: {x: b.y}}, b: {model: thrice, inputs: {x: a.y}}"),
              HasSubstr("steps wait for each other: \"a\", \"b\""));
  EXPECT_THAT(ReasonOf("a: {model: twice}, b: {preprocess: {resize: 0}}"),
              HasSubstr("step \"b\": no step with a model reads its output \"tensor\""));
  EXPECT_THAT(ReasonOf("a: {model: twice, inputs: {x: b.tensor}}, b: {preprocess: {resize: 0}}"),
              HasSubstr("step \"b\": input \"x\": expected a picture, [N,C,H,W] or [N,H,W,C]"));
  EXPECT_THAT(ReasonOf("a: {model: pipe}"), HasSubstr("run each other in a circle: \"pipe\""));
}

TEST_F(PipelineTest, AModelWithStateIsNoStep) {
  folder_.Write("net/model.yaml", "state: {before: {output: total}}\n");
  folder_.Write("net/1/fp32.onnx", AccumulatingGraph(1));
  EXPECT_THAT(ReasonOf("a: {model: net}", "out: a.y"),
              HasSubstr("step \"a\": model \"net\" has state: it answers sequences, no steps"));
}

TEST_F(PipelineTest, TheCheckOfAConfigurationKnowsWhichModelsAreThere) {
  Open("a: {model: nobody}", "y: a.y");
  ServerConfig config;
  config.repository.path = folder_.path();
  EXPECT_EQ(Message(CheckModelSettings(config)),
            folder_.path("pipe/model.yaml") +
                ": pipeline.steps.a.model: the repository has no such model: 'nobody'");
}

TEST_F(PipelineTest, TensorsThatDoNotFitTheirReaderAreRefused) {
  folder_.Write("wide/1/fp32.onnx", ScalingModel(2, {kUnknownDim, 1, 4}));
  EXPECT_THAT(ReasonOf("a: {model: wide, inputs: {x: b.y}}, b: {model: twice}"),
              HasSubstr("step \"a\": input \"x\": expected FP32 [?,1,4], got FP32 [?,4] from b.y"));
  EXPECT_THAT(
      ReasonOf("a: {model: wide, inputs: {x: in}}, b: {model: twice, inputs: {x: in}}"),
      HasSubstr("input \"in\" of the pipeline is FP32 [?,1,4] for one reader and FP32 [?,4]"));
}

TEST_F(PipelineTest, PipelinesAreModels) {
  folder_.Write("inner/model.yaml", "pipeline: {steps: {a: {model: twice}}, outputs: {y: a.y}}\n");
  Open("one: {model: inner, inputs: {x: number}}, two: {model: inner, inputs: {x: one.y}}",
       "y: two.y");
  EXPECT_EQ(Reason(), "READY: ");
  EXPECT_EQ(Find()->pipeline->steps[1].version, Find("inner"));
  // A circle of two.
  folder_.Write("inner/model.yaml", "pipeline: {steps: {a: {model: pipe}}, outputs: {y: a.y}}\n");
  EXPECT_FALSE(repository_->Load("inner").ok());
  EXPECT_THAT(Reason(), HasSubstr("UNAVAILABLE: "));
  EXPECT_THAT(Reason(), HasSubstr("in a circle"));
}

TEST_F(PipelineTest, ItFollowsItsModels) {
  Open("a: {model: twice, inputs: {x: b.y}}, b: {model: thrice}", "y: a.y");
  const auto first = Find();
  ASSERT_TRUE(repository_->Load("add").ok());
  EXPECT_EQ(Find(), first);  // nothing of it changed
  folder_.Write("twice/1/fp32.onnx", ScalingModel(4));
  ASSERT_TRUE(repository_->Load("twice").ok());
  EXPECT_NE(Find(), first);
  EXPECT_EQ(Find()->pipeline->steps[1].version, Find("twice"));
  EXPECT_EQ(Find()->statistics, first->statistics);

  ASSERT_TRUE(repository_->Unload("thrice").ok());
  EXPECT_EQ(Reason(), "UNAVAILABLE: step \"b\": Model is not ready (unloaded): 'thrice' version 1");
  EXPECT_EQ(repository_->Find("pipe", "").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(repository_->Load("pipe").ok());
  EXPECT_FALSE(repository_->CheckAll().ok());
  ASSERT_TRUE(repository_->Load("thrice").ok());
  EXPECT_EQ(Reason(), "READY: ");
  EXPECT_TRUE(repository_->CheckAll().ok());
}

TEST_F(PipelineTest, AnOrdinaryModelMayBecomeOne) {
  folder_.Write("pipe/1/fp32.onnx", ScalingModel(1));
  ServerConfig config;
  config.repository.path = folder_.path();
  repository_ = *ModelRepository::Open(config, 1, metrics_);
  ASSERT_EQ(Find()->pipeline, nullptr);
  std::filesystem::remove_all(folder_.path("pipe/1"));
  folder_.Write("pipe/model.yaml", "pipeline: {steps: {a: {model: twice}}, outputs: {y: a.y}}\n");
  ASSERT_TRUE(repository_->Load("pipe").ok());
  EXPECT_EQ(Reason(), "READY: ");
  ASSERT_NE(Find()->pipeline, nullptr);
  EXPECT_EQ(Find()->pipeline->steps[0].version, Find("twice"));
  EXPECT_THAT(Find()->events->Read(), testing::IsEmpty());
}

TEST_F(PipelineTest, ClassesHaveNamesWhereAllOutputsHaveTheSame) {
  folder_.Write("twice/labels.txt", "a\nb\nc\nd\n");
  const std::vector<std::string> labels = {"a", "b", "c", "d"};
  constexpr std::string_view kSteps = "one: {model: twice}, other: {model: thrice}";
  Open(kSteps, "y: one.y");
  EXPECT_EQ(Find()->labels, labels);
  Open(kSteps, "y: one.y, z: other.y");
  EXPECT_THAT(Find()->labels, testing::IsEmpty());
  folder_.Write("thrice/labels.txt", "a\nb\nc\nd\n");
  Open(kSteps, "y: one.y, z: other.y");
  EXPECT_EQ(Find()->labels, labels);
  folder_.Write("pipe/labels.txt", "w\nx\ny\nz\n");
  Open(kSteps, "y: one.y, z: other.y");
  EXPECT_EQ(Find()->labels[0], "w");
}

TEST_F(PipelineTest, PicturesTakeTheirSizeFromTheReaderThatKnowsIt) {
  folder_.Write("any/1/fp32.onnx", ScalingModel(1, {kUnknownDim, 3, kUnknownDim, 4}));
  folder_.Write("sized/1/fp32.onnx", ScalingModel(1, {kUnknownDim, 3, 8, 4}));
  for (const auto& [first, last] : {std::pair("any", "sized"), std::pair("sized", "any")}) {
    Open(Format("a: {{model: {}, inputs: {{x: p.tensor}}}}, b: {{model: {}, inputs: {{x: "
                "p.tensor}}}}, p: {{preprocess: {{resize: 0}}}}",
                first, last),
         "y: a.y, z: b.y");
    EXPECT_EQ(Reason(), "READY: ") << first;
    EXPECT_EQ(Find()->pipeline->steps[0].signature.outputs[0].shape, (Shape{kUnknownDim, 3, 8, 4}));
  }
}

TEST_F(PipelineTest, ARolloutBesideOneIsTheRolloutsMistake) {
  folder_.Write("pipe/rollout.yaml", "routing: {default: fp32}\n");
  EXPECT_THAT(ReasonOf("a: {model: twice}"),
              HasSubstr("rollout.yaml: a pipeline has no rollout: its models have"));
}

TEST_F(PipelineTest, OneThatFailsAtTheStartIsLoggedAsAnErrorOnceAllWasTried) {
  testing::internal::CaptureStderr();
  Open("a: {model: nobody}", "y: a.y");
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("level=error event=pipeline_unavailable model=pipe"));
}

TEST_F(PipelineTest, ItIsLoadedAndUnloadedAsAnyModel) {
  Open("a: {model: twice}", "y: a.y");
  ASSERT_TRUE(repository_->Unload("pipe").ok());
  EXPECT_EQ(Reason(), "UNAVAILABLE: unloaded");
  ASSERT_TRUE(repository_->Load("pipe").ok());
  EXPECT_EQ(Reason(), "READY: ");
  folder_.Write("pipe/model.yaml", "pipeline: {steps: {a: {model: twice}}}\n");
  EXPECT_FALSE(repository_->Load("pipe").ok());
  EXPECT_THAT(Reason(), HasSubstr("READY: "));  // as it was
  EXPECT_THAT(Reason(), HasSubstr("outputs are missing"));
  folder_.Write("pipe/model.yaml",
                "precisions: [fp32]\npipeline: {steps: {a: {model: twice}}, outputs: {y: a.y}}\n");
  EXPECT_THAT(std::string(Message(repository_->Load("pipe"))), HasSubstr("beside a pipeline"));
  folder_.Write("pipe/model.yaml", "pipeline: {steps: {a: {model: twice}}, outputs: {y: a.y}}\n");
  folder_.Write("pipe/1/fp32.onnx", ScalingModel(1));
  EXPECT_THAT(std::string(Message(repository_->Load("pipe"))),
              HasSubstr("expected a folder without versions, got version 1"));
  folder_.Write("pipe/model.yaml", "");
  EXPECT_TRUE(repository_->Load("pipe").ok());
  EXPECT_EQ(Find()->pipeline, nullptr);
}

}  // namespace pipeline_test
}  // namespace octet
