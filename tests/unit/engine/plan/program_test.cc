// Models whose shapes follow from their data, and models with control flow, from graph to answers.
#include "engine/plan/program.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/onednn/isa.h"
#include "engine/plan/program_plan.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace program_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Loaded = std::shared_ptr<const Model>;

Loaded Load(const Graph& graph, LoadOptions options = {}) {
  auto model = Model::FromGraph(graph, options);
  EXPECT_TRUE(model.ok()) << model.status() << "\n" << Dump(graph);
  return model.ok() ? *model : nullptr;
}

absl::StatusOr<std::vector<Datum>> Answer(const Model& model, const std::vector<Tensor>& inputs) {
  std::vector<Shape> shapes;
  std::vector<Datum> data;
  for (const Tensor& input : inputs) {
    shapes.push_back(input.shape());
    data.push_back(Datum::Of(input));
  }
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, model.PlanFor(shapes));
  Workspace workspace;
  return plan->RunDynamic(workspace, data, {});
}

std::vector<float> Floats(const Datum& datum) {
  const auto elements = datum.tensor.span<float>();
  return {elements.begin(), elements.end()};
}

std::vector<int64_t> Integers(const Datum& datum) {
  const auto elements = datum.tensor.span<int64_t>();
  return {elements.begin(), elements.end()};
}

/// A body whose last `captures` inputs are captured.
Subgraph Body(const std::function<void(GraphBuilder&)>& build) {
  GraphBuilder builder;
  build(builder);
  return std::make_shared<const Graph>(builder.Build());
}

const ProgramPlan& ProgramOf(const Plan& plan) { return dynamic_cast<const ProgramPlan&>(plan); }

// ---- Shapes that follow from data

TEST(ProgramTest, RunTimeOperandsDecideShapes) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 6});
  const ValueId shape = b.Input("shape", {2}, DType::kI64);
  b.Output(b.Op("Neg", {b.Op("Reshape", {b.Op("Abs", {x}), shape})}));
  const Loaded model = Load(b.Build());
  const Tensor values = Tensor::From<float>({2, 6}, {1, -2, 3, -4, 5, -6, 7, 8, 9, 10, 11, 12});
  for (const std::vector<int64_t>& target :
       {std::vector<int64_t>{3, 4}, {12, 1}, {4, -1}, {3, 4}}) {
    const auto answer = Answer(*model, {values, Tensor::From<int64_t>({2}, target)});
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ((*answer)[0].tensor.shape()[0], target[0]);
    EXPECT_EQ(Floats((*answer)[0])[1], -2);
  }
  const auto wrong = Answer(*model, {values, Tensor::From<int64_t>({2}, {5, 5})});
  EXPECT_EQ(wrong.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(wrong.status())), HasSubstr("Reshape 'Reshape_1'"));
}

/// boxes [1, N, 4], scores [1, 1, N] -> the boxes that stay, times 2.
Graph Detector() {
  GraphBuilder b;
  const ValueId boxes = b.Input("boxes", {1, 4, 4});
  const ValueId raw = b.Input("scores", {1, 1, 4});
  const ValueId scores = b.Op("Sigmoid", {raw});
  const ValueId selected = b.Op(
      "NonMaxSuppression", {boxes, scores, b.Scalar<int64_t>(10), b.Scalar(0.5F), b.Scalar(0.6F)});
  const ValueId index = b.Op("Gather", {selected, b.Scalar<int64_t>(2)}, {{"axis", int64_t{1}}});
  const ValueId list = b.Op("Reshape", {boxes, b.IntList({-1, 4})});
  const ValueId kept = b.Op("Gather", {list, index});
  b.Output(b.Op("Mul", {kept, b.Scalar(2.0F)}), "kept");
  b.Output(selected, "selected");
  return b.Build();
}

TEST(ProgramTest, ADetectorAnswersWhatItFinds) {
  const Loaded model = Load(Detector());
  ASSERT_NE(model, nullptr);
  EXPECT_FALSE(model->signature().batches);
  EXPECT_EQ(model->signature().outputs[0].shape, (Shape{kUnknownDim, 4}));
  const Tensor boxes =
      Tensor::From<float>({1, 4, 4}, {0, 0, 1, 1, 0, 0, 1, 1.1F, 5, 5, 6, 6, 7, 7, 8, 8});
  auto found = Answer(*model, {boxes, Tensor::From<float>({1, 1, 4}, {3, 2, 1, -9})});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(Integers((*found)[1]), ElementsAre(0, 0, 0, 0, 0, 2));
  EXPECT_EQ((*found)[0].tensor.shape(), (Shape{2, 4}));
  EXPECT_THAT(Floats((*found)[0]), ElementsAre(0, 0, 2, 2, 10, 10, 12, 12));
  found = Answer(*model, {boxes, Tensor::From<float>({1, 1, 4}, {-9, -9, -9, -9})});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ((*found)[0].tensor.shape(), (Shape{0, 4}));
  EXPECT_EQ((*found)[1].tensor.shape(), (Shape{0, 3}));
}

TEST(ProgramTest, APlanWithoutKnownOutputsIsNotRunIntoBuffers) {
  const Loaded model = Load(Detector());
  const auto plan = model->PlanFor(std::vector<Shape>{{1, 4, 4}, {1, 1, 4}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_FALSE((*plan)->has_static_outputs());
  EXPECT_EQ((*plan)->outputs()[0].shape, (Shape{kUnknownDim, 4}));
  float memory[16] = {};
  const void* inputs[] = {memory, memory};
  void* outputs[] = {memory, memory};
  Workspace workspace;
  EXPECT_EQ((*plan)->Run(workspace, inputs, outputs).code(), absl::StatusCode::kInternal);
}

TEST(ProgramTest, TheCertificateNamesEveryLayer) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 8, 8});
  const ValueId conv = b.Op("Conv", {x, b.Random({4, 3, 3, 3})});
  const ValueId found = b.Op("NonZero", {b.Op("Relu", {conv})});
  b.Output(b.Op("Cast", {found}, {{"to", int64_t{1}}}));
  LoadOptions options;
  options.precision = Precision::kBf16;
  const Loaded model = Load(b.Build(), options);
  const auto plan = model->PlanFor(std::vector<Shape>{{1, 3, 8, 8}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const Certificate& certificate = (*plan)->certificate();
  std::vector<std::string> ops;
  for (const LayerRecord& layer : certificate.layers) ops.push_back(layer.op);
  EXPECT_THAT(ops, ::testing::IsSupersetOf({"Conv", "NonZero", "Cast"}));
  EXPECT_GT(certificate.total_macs(), 0);
  const auto cast = std::ranges::find(certificate.layers, "Cast", &LayerRecord::op);
  ASSERT_NE(cast, certificate.layers.end());
  EXPECT_EQ(cast->reason, "its shapes follow from the data");
  const auto layer = std::ranges::find(certificate.layers, "Conv", &LayerRecord::op);
  ASSERT_NE(layer, certificate.layers.end());
  EXPECT_EQ(layer->requested, "bf16");
}

TEST(ProgramTest, ThePassesBeforeTheCutAreTraced) {
  const Loaded model = Load(Detector());
  const auto plan = model->PlanFor(std::vector<Shape>{{1, 4, 4}, {1, 1, 4}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ((*plan)->pass_trace().size(), AllPasses().size());
  EXPECT_EQ((*plan)->pass_trace().back().name, AllPasses().back().name);
}

// ---- If

/// flag ? x + 1 : reshape of x by y, an index into x.
Graph Choice() {
  GraphBuilder b;
  const ValueId flag = b.Input("flag", {}, DType::kBool);
  const ValueId x = b.Input("x", {3});
  const ValueId index = b.Input("index", {2}, DType::kI64);
  const Subgraph yes = Body([](GraphBuilder& body) {
    const ValueId captured = body.Input("x_in", {3});
    body.Input("index_in", {2}, DType::kI64);
    body.Output(body.Op("Add", {captured, body.Scalar(1.0F)}));
  });
  const Subgraph no = Body([](GraphBuilder& body) {
    const ValueId captured = body.Input("x_in", {3});
    const ValueId at = body.Input("index_in", {2}, DType::kI64);
    body.Output(body.Op("Gather", {captured, at}));
  });
  b.Output(b.Op("If", {flag, x, index},
                {{"then_branch", yes}, {"else_branch", no}, {std::string(kCaptures), int64_t{2}}}));
  return b.Build();
}

TEST(ProgramTest, AnIfRunsTheBranchOfItsCondition) {
  const Loaded model = Load(Choice());
  ASSERT_NE(model, nullptr);
  const Tensor x = Tensor::From<float>({3}, {1, 2, 3});
  const Tensor index = Tensor::From<int64_t>({2}, {2, 0});
  auto answer = Answer(*model, {Tensor::Scalar(true), x, index});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Floats((*answer)[0]), ElementsAre(2, 3, 4));
  answer = Answer(*model, {Tensor::Scalar(false), x, index});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Floats((*answer)[0]), ElementsAre(3, 1));
}

TEST(ProgramTest, WhatDataCauseInABranchFailsThatRunAlone) {
  const Loaded model = Load(Choice());
  const Tensor x = Tensor::From<float>({3}, {1, 2, 3});
  const auto bad = Answer(*model, {Tensor::Scalar(false), x, Tensor::From<int64_t>({2}, {2, 7})});
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument) << bad.status();
  EXPECT_THAT(std::string(Message(bad.status())), HasSubstr("If 'If_0'"));
  EXPECT_THAT(std::string(Message(bad.status())), HasSubstr("Gather"));
  EXPECT_TRUE(Answer(*model, {Tensor::Scalar(true), x, Tensor::From<int64_t>({2}, {2, 7})}).ok());
}

TEST(ProgramTest, ADecidedIfLeavesAnOrdinaryPlan) {
  Graph graph = Choice();
  Value& flag = graph.mutable_value(graph.inputs[0]);
  flag.constant = Tensor::Scalar(true);
  graph.inputs.erase(graph.inputs.begin());
  const Loaded model = Load(graph);
  ASSERT_NE(model, nullptr);
  const auto plan = model->PlanFor(std::vector<Shape>{{3}, {2}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE((*plan)->has_static_outputs());
  EXPECT_EQ(dynamic_cast<const ProgramPlan*>(plan->get()), nullptr);
}

// ---- Loop

/// sum = x; for (i < trips) { sum = sum + y; squares[i] = sum * sum }, y captured.
Graph Summing(DType dtype = DType::kF32) {
  GraphBuilder b;
  const ValueId trips = b.Input("trips", {}, DType::kI64);
  const ValueId x = b.Input("x", {2}, dtype);
  const ValueId y = b.Input("y", {2}, dtype);
  const Subgraph body = Body([=](GraphBuilder& in) {
    in.Input("i", {}, DType::kI64);
    const ValueId go_on = in.Input("cond", {}, DType::kBool);
    const ValueId sum = in.Input("sum", {2}, dtype);
    const ValueId step = in.Input("y_in", {2}, dtype);
    const ValueId next = in.Op("Add", {sum, step});
    in.Output(in.Op("Identity", {go_on}));
    in.Output(next);
    in.Output(in.Op("Mul", {next, next}));
  });
  const auto outputs = b.Ops("Loop", {trips, kNone, x, y}, 2,
                             {{"body", body}, {std::string(kCaptures), int64_t{1}}});
  b.Output(outputs[0]);
  b.Output(outputs[1]);
  return b.Build();
}

// What it is inside is no affair of the loop.
TEST(ProgramTest, ALoopCarriesStateOfTheTypeThatItsBodyDeclares) {
  const Loaded model = Load(Summing(DType::kF16));
  ASSERT_NE(model, nullptr);
  const std::vector<Half> x = {ToHalf(1), ToHalf(2)};
  const std::vector<Half> y = {ToHalf(1), ToHalf(0)};
  const auto answer = Answer(
      *model, {Tensor::Scalar<int64_t>(3), Tensor::From<Half>({2}, x), Tensor::From<Half>({2}, y)});
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_EQ((*answer)[0].tensor.dtype(), DType::kF16);
  ASSERT_EQ((*answer)[1].tensor.shape(), (Shape{3, 2}));
  const auto reals = [](const Datum& datum) {
    std::vector<float> floats;
    for (const Half h : datum.tensor.span<Half>()) floats.push_back(ToFloat(h));
    return floats;
  };
  EXPECT_THAT(reals((*answer)[0]), ElementsAre(4, 2));
  EXPECT_THAT(reals((*answer)[1]), ElementsAre(4, 4, 9, 4, 16, 4));
}

TEST(ProgramTest, ALoopCarriesStateAndStacksResults) {
  const Loaded model = Load(Summing());
  ASSERT_NE(model, nullptr);
  const std::vector<Tensor> inputs = {Tensor::Scalar<int64_t>(3), Tensor::From<float>({2}, {1, 2}),
                                      Tensor::From<float>({2}, {1, 0})};
  const auto answer = Answer(*model, inputs);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Floats((*answer)[0]), ElementsAre(4, 2));
  EXPECT_EQ((*answer)[1].tensor.shape(), (Shape{3, 2}));
  EXPECT_THAT(Floats((*answer)[1]), ElementsAre(4, 4, 9, 4, 16, 4));
}

TEST(ProgramTest, ALoopThatDoesNotRunAnswersItsStateAndNoResults) {
  const Loaded model = Load(Summing());
  const auto answer = Answer(*model, {Tensor::Scalar<int64_t>(0), Tensor::From<float>({2}, {1, 2}),
                                      Tensor::From<float>({2}, {1, 0})});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Floats((*answer)[0]), ElementsAre(1, 2));
  EXPECT_EQ((*answer)[1].tensor.shape(), (Shape{0, 2}));
}

// pictures[i] = Reshape(x, shape) for i < trips, shape being those extents that are kept: nothing of a picture is known before
// it is made but what the model declares of all.
Graph Reshaping(const std::optional<Shape>& pictures) {
  GraphBuilder b;
  const ValueId trips = b.Input("trips", {}, DType::kI64);
  const ValueId x = b.Input("x", {2});
  const ValueId extents = b.Input("extents", {3}, DType::kI64);
  const ValueId shape = b.Op("Compress", {extents, b.Input("keep", {3}, DType::kBool)});
  const Subgraph body = Body([](GraphBuilder& in) {
    in.Input("i", {}, DType::kI64);
    const ValueId go_on = in.Input("cond", {}, DType::kBool);
    const ValueId x_in = in.Input("x_in", {2});
    const ValueId shape_in = in.Input("shape_in", {kUnknownDim}, DType::kI64);
    in.Output(in.Op("Identity", {go_on}));
    in.Output(in.Op("Reshape", {x_in, shape_in}));
  });
  b.Output(b.Op("Loop", {trips, kNone, x, shape},
                {{"body", body}, {std::string(kCaptures), int64_t{2}}}));
  Graph graph = b.Build();
  graph.mutable_value(graph.outputs[0]).shape = pictures;
  return graph;
}

TEST(ProgramTest, ResultsOfALoopThatDoesNotRunAreOfTheDeclaredShape) {
  const auto shape_of = [](const std::optional<Shape>& declared, int64_t trips) {
    const Loaded model = Load(Reshaping(declared));
    const auto answer =
        Answer(*model, {Tensor::Scalar<int64_t>(trips), Tensor::From<float>({2}, {1, 2}),
                        Tensor::From<int64_t>({3}, {1, 2, 7}),
                        Tensor::From<bool>({3}, {true, true, false})});
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? (*answer)[0].tensor.shape() : Shape{};
  };
  EXPECT_EQ(shape_of(Shape{kUnknownDim, 1, 2}, 3), (Shape{3, 1, 2}));
  EXPECT_EQ(shape_of(Shape{kUnknownDim, 1, 2}, 0), (Shape{0, 1, 2}));
  EXPECT_EQ(shape_of(Shape{kUnknownDim, kUnknownDim, 2}, 0), (Shape{0, 0, 2}));
  EXPECT_EQ(shape_of(std::nullopt, 0), Shape{0});
}

TEST(ProgramTest, ALoopOfOneShapeCompilesItsBodyOnce) {
  const Loaded model = Load(Summing());
  const auto plan = model->PlanFor(std::vector<Shape>{{}, {2}, {2}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const Program& program = ProgramOf(**plan).program();
  Workspace workspace;
  const std::vector<Datum> inputs = {Datum::Of(Tensor::Scalar<int64_t>(100)),
                                     Datum::Of(Tensor::From<float>({2}, {0, 0})),
                                     Datum::Of(Tensor::From<float>({2}, {1, 2}))};
  const auto answer = (*plan)->RunDynamic(workspace, inputs, {});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Floats((*answer)[0]), ElementsAre(100, 200));
  EXPECT_EQ(program.plan_count(), 1);
}

TEST(ProgramTest, ABodyMayChangeTheShapeOfItsState) {
  GraphBuilder b;
  const ValueId trips = b.Input("trips", {}, DType::kI64);
  const ValueId x = b.Input("x", {1});
  const Subgraph body = Body([](GraphBuilder& in) {
    const ValueId i = in.Input("i", {}, DType::kI64);
    const ValueId go_on = in.Input("cond", {}, DType::kBool);
    const ValueId list = in.Input("list", {1});
    const ValueId number =
        in.Op("Reshape", {in.Op("Cast", {i}, {{"to", int64_t{1}}}), in.IntList({1})});
    in.Output(in.Op("Identity", {go_on}));
    in.Output(in.Op("Concat", {list, number}, {{"axis", int64_t{0}}}));
  });
  b.Output(b.Op("Loop", {trips, kNone, x}, {{"body", body}}));
  const Loaded model = Load(b.Build());
  ASSERT_NE(model, nullptr);
  EXPECT_EQ(model->signature().outputs[0].shape, Shape{kUnknownDim});
  const auto answer = Answer(*model, {Tensor::Scalar<int64_t>(4), Tensor::From<float>({1}, {7})});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Floats((*answer)[0]), ElementsAre(7, 0, 1, 2, 3));
}

/// while (true) x = op(x, x).
Graph Endless(std::string_view op, GraphBuilder::Attrs attributes = {}) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2});
  const Subgraph body = Body([&](GraphBuilder& in) {
    in.Input("i", {}, DType::kI64);
    const ValueId go_on = in.Input("cond", {}, DType::kBool);
    const ValueId state = in.Input("state", {2});
    in.Output(in.Op("Identity", {go_on}));
    in.Output(in.Op(op, {state, state}, attributes));
  });
  b.Output(b.Op("Loop", {kNone, kNone, x}, {{"body", body}}));
  return b.Build();
}

TEST(ProgramTest, ALoopWithoutEndIsStopped) {
  LoadOptions options;
  options.max_loop_iterations = 1000;
  const Loaded model = Load(Endless("Max"), options);
  ASSERT_NE(model, nullptr);
  const auto answer = Answer(*model, {Tensor::From<float>({2}, {1, 2})});
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kResourceExhausted) << answer.status();
  EXPECT_THAT(std::string(Message(answer.status())), HasSubstr("Loop 'Loop_0'"));
}

TEST(ProgramTest, ALoopEndsAtItsDeadlineOrWhenItIsCancelled) {
  const Loaded model = Load(Endless("Max"));
  ASSERT_NE(model, nullptr);
  const auto plan = model->PlanFor(std::vector<Shape>{{2}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  Workspace workspace;
  const std::vector<Datum> inputs = {Datum::Of(Tensor::From<float>({2}, {1, 2}))};
  const auto answer =
      (*plan)->RunDynamic(workspace, inputs, {.deadline = std::chrono::steady_clock::now()});
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kDeadlineExceeded) << answer.status();
  const std::atomic<bool> cancelled{true};
  const auto left = (*plan)->RunDynamic(workspace, inputs, {.cancelled = &cancelled});
  EXPECT_EQ(left.status().code(), absl::StatusCode::kCancelled) << left.status();
}

TEST(ProgramTest, AStateThatGrowsWithoutEndIsStopped) {
  auto context = std::make_shared<ProgramContext>();
  context->target = onednn::DetectTarget(1);
  context->weights = std::make_shared<onednn::WeightCache>();
  context->max_loop_iterations = 1000;
  context->max_bytes = 1 << 16;
  const auto program = Program::Make(Endless("Concat", {{"axis", int64_t{0}}}), context);
  ASSERT_TRUE(program.ok()) << program.status();
  Workspace workspace;
  ProgramRun run{workspace, context->max_loop_iterations, context->max_bytes};
  const auto answer = (*program)->Run(run, {Datum::Of(Tensor::From<float>({2}, {1, 2}))});
  EXPECT_FALSE(answer.ok());
  EXPECT_THAT(std::string(Message(answer.status())), HasSubstr("Loop 'Loop_0'"));
  EXPECT_LT(workspace.bytes(), 1 << 20);
}

// ---- Scan and sequences

/// The program of `graph`, values of at most 64 kB and 1000 iterations, run on one input.
absl::StatusOr<std::vector<Datum>> AnswerInLittleMemory(Graph graph, Tensor input,
                                                        int64_t& iterations_left) {
  auto context = std::make_shared<ProgramContext>();
  context->target = onednn::DetectTarget(1);
  context->weights = std::make_shared<onednn::WeightCache>();
  context->max_bytes = 1 << 16;
  OCTET_ASSIGN_OR_RETURN(const auto program, Program::Make(std::move(graph), context));
  Workspace workspace;
  ProgramRun run{workspace, 1000, context->max_bytes};
  auto answer = program->Run(run, {Datum::Of(std::move(input))});
  iterations_left = run.iterations_left;
  return answer;
}

// As soon as it has, not when all of it is there.
TEST(ProgramTest, AMappedSequenceThatGrowsTooLargeIsStopped) {
  GraphBuilder b(17);
  const ValueId x = b.Input("x", {8});
  const ValueId parts = b.Op("SplitToSequence", {x, b.Scalar<int64_t>(1)});
  const Subgraph body = Body([](GraphBuilder& in) {
    in.Output(in.Op("Expand", {in.Input("part", {1}), in.IntList({4096})}), "wide");
  });
  b.Output(b.Op("SequenceLength", {b.Op("SequenceMap", {parts}, {{"body", body}})}));
  int64_t left = 0;
  const auto answer = AnswerInLittleMemory(b.Build(), Tensor(DType::kF32, {8}), left);
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kResourceExhausted) << answer.status();
  EXPECT_THAT(std::string(Message(answer.status())), HasSubstr("result 'wide' is too large"));
  EXPECT_EQ(left, 996) << "four times 16 kB, and what goes with a tensor, are more than 64 kB";
}

// Before opset 9 what a short sequence does not reach is zeros, which no iteration makes.
TEST(ProgramTest, AScanOfShortSequencesIsRefusedBeforeItsZerosAreMade) {
  GraphBuilder b(8);
  const ValueId x = b.Input("x", {1, 4096, 1});
  const Subgraph body = Body([](GraphBuilder& in) {
    in.Output(in.Op("Expand", {in.Input("step", {1}), in.IntList({64})}), "wide");
  });
  b.Output(b.Op("Scan", {b.IntList({2}), x}, {{"body", body}, {"num_scan_inputs", int64_t{1}}}));
  int64_t left = 0;
  const auto answer = AnswerInLittleMemory(b.Build(), Tensor(DType::kF32, {1, 4096, 1}), left);
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kResourceExhausted) << answer.status();
  EXPECT_THAT(std::string(Message(answer.status())),
              HasSubstr("result 'wide' of shape [4096,64] is over the limit"));
  EXPECT_EQ(left, 998);
}

TEST(ProgramTest, AScanRunsAlongAnyAxisBothWays) {
  GraphBuilder b;
  const ValueId start = b.Input("start", {2});
  const ValueId x = b.Input("x", {2, 3});
  const Subgraph body = Body([](GraphBuilder& in) {
    const ValueId sum = in.Input("sum", {2});
    const ValueId column = in.Input("column", {2});
    const ValueId next = in.Op("Add", {sum, column});
    in.Output(next);
    in.Output(in.Op("Identity", {next}));
  });
  const auto outputs = b.Ops("Scan", {start, x}, 2,
                             {{"body", body},
                              {"num_scan_inputs", int64_t{1}},
                              {"scan_input_axes", Ints{1}},
                              {"scan_input_directions", Ints{1}},
                              {"scan_output_axes", Ints{-1}}});
  b.Output(outputs[0]);
  b.Output(outputs[1]);
  const Loaded model = Load(b.Build());
  ASSERT_NE(model, nullptr);
  const auto answer = Answer(*model, {Tensor::From<float>({2}, {0, 0}),
                                      Tensor::From<float>({2, 3}, {1, 2, 3, 10, 20, 30})});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Floats((*answer)[0]), ElementsAre(6, 60));
  EXPECT_EQ((*answer)[1].tensor.shape(), (Shape{2, 3}));
  EXPECT_THAT(Floats((*answer)[1]), ElementsAre(3, 5, 6, 30, 50, 60));
}

TEST(ProgramTest, SequencesHoldTensorsOfDifferentShapes) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {5});
  const ValueId at = b.Input("at", {}, DType::kI64);
  const ValueId parts = b.Op("SplitToSequence", {x, b.Scalar<int64_t>(2)});
  b.Output(b.Op("Relu", {b.Op("SequenceAt", {parts, at})}));
  b.Output(b.Op("SequenceLength", {parts}));
  const Loaded model = Load(b.Build());
  ASSERT_NE(model, nullptr);
  const Tensor values = Tensor::From<float>({5}, {1, -2, 3, 4, 5});
  auto answer = Answer(*model, {values, Tensor::Scalar<int64_t>(0)});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Floats((*answer)[0]), ElementsAre(1, 0));
  EXPECT_THAT(Integers((*answer)[1]), ElementsAre(3));
  answer = Answer(*model, {values, Tensor::Scalar<int64_t>(-1)});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Floats((*answer)[0]), ElementsAre(5));
  answer = Answer(*model, {values, Tensor::Scalar<int64_t>(3)});
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(answer.status())), HasSubstr("SequenceAt"));
}

}  // namespace program_test
}  // namespace octet
