// Models that read or answer strings, from graph to answers.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/onednn/weight_cache.h"
#include "engine/plan/compiler.h"
#include "engine/plan/cut.h"
#include "tests/support/graph_builder.h"
#include "tests/support/strings.h"

namespace octet {
namespace program_strings_test {

using octet::testing::AnswerOf;
using octet::testing::Strings;
using octet::testing::Texts;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kOpset = 20;
constexpr int64_t kOnnxString = 8;

Subgraph Body(const std::function<void(GraphBuilder&)>& build) {
  GraphBuilder builder(kOpset);
  build(builder);
  return std::make_shared<const Graph>(builder.Build());
}

ValueId Word(GraphBuilder& b, std::string value) {
  return b.Op("Constant", {}, {{"value_string", std::move(value)}});
}

TEST(ProgramStringsTest, NumbersBetweenStringsRunInASegment) {
  GraphBuilder b(kOpset);
  const ValueId x = b.Input("x", {kUnknownDim}, DType::kString);
  const ValueId number = b.Op("Cast", {x}, {{"to", int64_t{1}}});
  const ValueId half = b.Op("Mul", {b.Op("Relu", {number}), b.Scalar(0.5F)});
  b.Output(b.Op("StringConcat", {b.Op("Cast", {half}, {{"to", kOnnxString}}), Word(b, " kg")}));
  Graph graph = b.Build();
  const auto stages = CutIntoStages(graph);
  ASSERT_TRUE(stages.ok()) << stages.status();
  bool multiplies = false;
  for (const Stage& stage : *stages) {
    for (const NodeId id : stage.segment) {
      EXPECT_FALSE(TouchesStrings(graph, graph.node(id)));
      multiplies = multiplies || graph.node(id).is("Mul");
    }
  }
  EXPECT_TRUE(multiplies);
  const auto answer = AnswerOf(graph, {Strings({3}, {"3", "-1", "1e2"})});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Texts((*answer)[0].tensor), ElementsAre("1.5 kg", "0 kg", "50 kg"));
}

TEST(ProgramStringsTest, AModelOfStringsDoesNotBatchAndHasNoStaticPlan) {
  GraphBuilder b(kOpset);
  b.Output(b.Op("Identity", {b.Input("x", {kUnknownDim, 2}, DType::kString)}));
  const auto model = Model::FromGraph(b.Build(), {});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->signature().inputs[0].dtype, DType::kString);
  EXPECT_EQ((*model)->signature().outputs[0].dtype, DType::kString);
  EXPECT_FALSE((*model)->signature().batches);
  const auto plan = (*model)->PlanFor(std::vector<Shape>{{3, 2}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_FALSE((*plan)->has_static_outputs());
}

TEST(ProgramStringsTest, AnInputOrAConstantMayBeTheAnswer) {
  GraphBuilder b(kOpset);
  Graph graph;
  const ValueId x = graph.AddValue({.name = "x", .dtype = DType::kString, .shape = Shape{2}});
  const ValueId c = graph.AddConstant("c", Strings({1}, {"constant"}));
  graph.inputs = {x};
  graph.outputs = {x, c};
  const auto answer = AnswerOf(graph, {Strings({2}, {"a", "b"})});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Texts((*answer)[0].tensor), ElementsAre("a", "b"));
  EXPECT_THAT(Texts((*answer)[1].tensor), ElementsAre("constant"));
}

TEST(ProgramStringsTest, AnswersOutliveTheModelAndItsInputs) {
  // Every value that an answer's characters could point into is gone by then.
  GraphBuilder b(kOpset);
  const ValueId x = b.Input("x", {3}, DType::kString);
  const ValueId all = b.Op("Concat", {x, b.Op("Reshape", {Word(b, "last"), b.IntList({1})})},
                           {{"axis", int64_t{0}}});
  const ValueId picked = b.Op("Gather", {all, b.IntList({3, 0})});
  b.Output(picked);
  b.Output(b.Op("Compress", {all, b.Op("Cast", {b.IntList({0, 1})}, {{"to", int64_t{9}}})}));
  b.Output(b.Op("Expand", {picked, b.IntList({2, 2})}));
  const auto answer =
      AnswerOf(b.Build(), {Strings({3}, {"a long string that is no small one", "b", "c"})});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Texts((*answer)[0].tensor),
              ElementsAre("last", "a long string that is no small one"));
  EXPECT_THAT(Texts((*answer)[1].tensor), ElementsAre("b"));
  EXPECT_EQ(Texts((*answer)[2].tensor)[3], "a long string that is no small one");
}

TEST(ProgramStringsTest, LoopsCarryAndStackStrings) {
  GraphBuilder b(kOpset);
  const ValueId trips = b.Input("trips", {}, DType::kI64);
  const ValueId x = b.Input("x", {2}, DType::kString);
  const Subgraph body = Body([](GraphBuilder& in) {
    const ValueId i = in.Input("i", {}, DType::kI64);
    const ValueId go_on = in.Input("cond", {}, DType::kBool);
    const ValueId text = in.Input("text", {2}, DType::kString);
    const ValueId digit = in.Op("Cast", {i}, {{"to", kOnnxString}});
    const ValueId longer = in.Op("StringConcat", {text, digit});
    in.Output(in.Op("Identity", {go_on}));
    in.Output(longer);
    in.Output(in.Op("Gather", {longer, in.Scalar<int64_t>(1)}));
  });
  const auto outputs = b.Ops("Loop", {trips, kNone, x}, 2, {{"body", body}});
  b.Output(outputs[0]);
  b.Output(outputs[1]);
  const auto answer = AnswerOf(b.Build(), {Tensor::Scalar<int64_t>(3), Strings({2}, {"a", ""})});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Texts((*answer)[0].tensor), ElementsAre("a012", "012"));
  EXPECT_THAT(Texts((*answer)[1].tensor), ElementsAre("0", "01", "012"));
}

TEST(ProgramStringsTest, ScansAndSequencesHoldStrings) {
  GraphBuilder b(kOpset);
  const ValueId x = b.Input("x", {3}, DType::kString);
  const Subgraph body = Body([](GraphBuilder& in) {
    const ValueId element = in.Input("element", {}, DType::kString);
    in.Output(in.Op("Identity", {element}));
  });
  b.Output(b.Op("Scan", {x},
                {{"body", body},
                 {"num_scan_inputs", int64_t{1}},
                 {"scan_output_directions", std::vector<int64_t>{1}}}));
  const ValueId parts = b.Op("SplitToSequence", {x, b.Scalar<int64_t>(2)});
  b.Output(b.Op("SequenceAt", {parts, b.Scalar<int64_t>(-1)}));
  b.Output(b.Op("ConcatFromSequence", {parts}, {{"axis", int64_t{0}}}));
  const auto answer = AnswerOf(b.Build(), {Strings({3}, {"a", "b", "c"})});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Texts((*answer)[0].tensor), ElementsAre("c", "b", "a"));
  EXPECT_THAT(Texts((*answer)[1].tensor), ElementsAre("c"));
  EXPECT_THAT(Texts((*answer)[2].tensor), ElementsAre("a", "b", "c"));
}

TEST(ProgramStringsTest, StringsWithoutMeasureAreRefusedBeforeTheyAreMade) {
  GraphBuilder b(kOpset);
  const ValueId x = b.Input("x", {kUnknownDim, 1}, DType::kString);
  const ValueId y = b.Input("y", {kUnknownDim}, DType::kString);
  b.Output(b.Op("StringConcat", {x, y}));
  const Graph graph = b.Build();
  const std::vector<std::string_view> none(1 << 14);
  const auto too_many = AnswerOf(graph, {Strings({1 << 14, 1}, none), Strings({1 << 14}, none)});
  EXPECT_EQ(too_many.status().code(), absl::StatusCode::kResourceExhausted) << too_many.status();
  EXPECT_THAT(std::string(Message(too_many.status())), HasSubstr("StringConcat 'StringConcat_0'"));
  const std::string text(1 << 12, 'x');
  const auto too_long =
      AnswerOf(graph, {Strings({1 << 10, 1}, std::vector<std::string_view>(1 << 10, text)),
                       Strings({1 << 10}, {none.begin(), none.begin() + 1024})});
  EXPECT_EQ(too_long.status().code(), absl::StatusCode::kResourceExhausted) << too_long.status();
}

TEST(ProgramStringsTest, CopiesOfStringsCountWithTheirCharacters) {
  GraphBuilder b(kOpset);
  const ValueId x = b.Input("x", {1}, DType::kString);
  b.Output(b.Op("Expand", {x, b.IntList({1 << 12})}));
  const std::string text(1 << 21, 'x');
  const auto answer = AnswerOf(b.Build(), {Strings({1}, {text})});
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kResourceExhausted) << answer.status();
  EXPECT_THAT(std::string(Message(answer.status())), HasSubstr("Expand 'Expand_0'"));
}

TEST(ProgramStringsTest, InputsMustBeStringsWhereTheModelSaysSo) {
  GraphBuilder b(kOpset);
  b.Output(b.Op("Identity", {b.Input("x", {1}, DType::kString)}));
  const auto answer = AnswerOf(b.Build(), {Tensor::From<float>({1}, {1})});
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(answer.status())), HasSubstr("expected elements of BYTES"));
}

TEST(ProgramStringsTest, NoStaticPlanIsCompiledOfStrings) {
  GraphBuilder b(kOpset);
  b.Output(b.Op("Identity", {b.Input("x", {1}, DType::kString)}));
  onednn::WeightCache weights;
  const Target target = DetectTarget(1);
  const auto plan = CompilePlan(b.Build(), {Precision::kFp32, target, weights, 1 << 20});
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Message(plan.status())), HasSubstr("strings have no static plan"));
}

}  // namespace program_strings_test
}  // namespace octet
