// Requests with extents of 0, through passes and plans: what nothing is written to is skipped, what reads nothing runs by its
// reference kernel. Expected values are ONNX Runtime's, where it answers: it refuses a mean of a plane without elements.
#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/ops/op.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace empty_tensors_test {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

constexpr int64_t kOpen = kUnknownDim;

absl::StatusOr<std::vector<Tensor>> OutputsOf(const Model& model,
                                              const std::vector<Tensor>& inputs) {
  std::vector<Shape> shapes;
  std::vector<Datum> data;
  for (const Tensor& input : inputs) {
    shapes.push_back(input.shape());
    data.push_back(Datum::Of(input));
  }
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, model.PlanFor(shapes));
  Workspace workspace;
  OCTET_ASSIGN_OR_RETURN(const std::vector<Datum> answers, plan->RunDynamic(workspace, data, {}));
  std::vector<Tensor> tensors;
  for (const Datum& answer : answers) tensors.push_back(answer.tensor);
  return tensors;
}

// The outputs, none after a test failure.
std::vector<Tensor> Answer(const Graph& graph, const std::vector<Tensor>& inputs) {
  const auto model = Model::FromGraph(graph, {});
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return {};
  auto outputs = OutputsOf(**model, inputs);
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? *std::move(outputs) : std::vector<Tensor>();
}

std::string ErrorOf(const Graph& graph, const std::vector<Tensor>& inputs) {
  const auto model = Model::FromGraph(graph, {});
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return "";
  const auto outputs = OutputsOf(**model, inputs);
  EXPECT_EQ(outputs.status().code(), absl::StatusCode::kInvalidArgument) << outputs.status();
  return std::string(Message(outputs.status()));
}

Tensor Empty(Shape shape) { return Tensor(DType::kF32, std::move(shape)); }

Tensor Ramp(Shape shape) {
  Tensor tensor(DType::kF32, std::move(shape));
  int i = 0;
  for (float& x : tensor.mutable_span<float>()) x = 0.25F * static_cast<float>(i++ % 11 - 5);
  return tensor;
}

// Attention of q [1, 2, S, 4] over k and v [1, 2, T, 4], behind a past [1, 2, P, 4] of each where there is one; in int8 through
// quantizing pairs.
Graph Attention(bool with_past, bool quantized) {
  GraphBuilder b;
  const Shape open = {1, 2, kOpen, 4};
  const auto rounded = [&](ValueId x) { return quantized ? b.FakeQuantize(x, 1.0F / 64, 128) : x; };
  const ValueId q = rounded(b.Input("q", open));
  ValueId k = rounded(b.Input("k", open));
  ValueId v = rounded(b.Input("v", open));
  if (with_past) {
    const auto behind = [&](const char* name, ValueId x) {
      return rounded(b.Op("Concat", {rounded(b.Input(name, open)), x}, {{"axis", int64_t{2}}}));
    };
    k = behind("past_k", k);
    v = behind("past_v", v);
  }
  const ValueId turned = b.Op("Transpose", {k}, {{"perm", Ints{0, 1, 3, 2}}});
  const ValueId shares = b.Op("Softmax", {b.Op("MatMul", {q, turned})}, {{"axis", int64_t{-1}}});
  b.Output(b.Op("MatMul", {rounded(shares), v}));
  b.Output(k);
  return b.Build();
}

TEST(EmptyTensors, AnEmptyPastIsNoPast) {
  const std::vector<Tensor> now = {Ramp({1, 2, 3, 4}), Ramp({1, 2, 3, 4}), Ramp({1, 2, 3, 4})};
  std::vector<Tensor> with_past = now;
  for (int i = 0; i < 2; ++i) with_past.push_back(Empty({1, 2, 0, 4}));
  for (const bool quantized : {false, true}) {
    const auto expected = Answer(Attention(false, quantized), now);
    const auto got = Answer(Attention(true, quantized), with_past);
    ASSERT_EQ(expected.size(), 2U);
    ASSERT_EQ(got.size(), 2U);
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(got[i].shape(), (Shape{1, 2, 3, 4}));
      EXPECT_THAT(got[i].span<float>(), Pointwise(FloatNear(1e-5F), expected[i].span<float>()))
          << "output " << i << (quantized ? ", in int8" : "");
    }
  }
}

TEST(EmptyTensors, OneModelTakesAPastThatGrowsFromNothing) {
  const auto model = Model::FromGraph(Attention(true, false), {});
  ASSERT_TRUE(model.ok()) << model.status();
  Tensor past = Empty({1, 2, 0, 4});
  for (int64_t length = 1; length <= 3; ++length) {
    const Tensor step = Ramp({1, 2, 1, 4});
    const auto answer = OutputsOf(**model, {step, step, step, past, past});
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ((*answer)[0].shape(), (Shape{1, 2, 1, 4}));
    past = (*answer)[1];
    EXPECT_EQ(past.shape(), (Shape{1, 2, length, 4}));
  }
}

// Where the pass that drops them has not run, too; bytes with scales of their own among them.
TEST(EmptyTensors, PartsOfAConcatWithoutElementsAskForNoReferenceKernel) {
  GraphBuilder b;
  const ValueId past = b.Op("Relu", {b.Input("past", {2, kOpen})});
  const ValueId x = b.Op("Relu", {b.Input("x", {2, 3})});
  b.Output(b.Op("Relu", {b.Op("Concat", {past, x}, {{"axis", int64_t{1}}})}));
  const ValueId bytes =
      b.Op("Concat", {b.FakeQuantize(past, 1.0F / 64, 128), b.FakeQuantize(x, 1.0F / 32, 128)},
           {{"axis", int64_t{1}}});
  b.Output(b.FakeQuantize(bytes, 1.0F / 32, 128));
  const Graph graph = b.Build();
  const Tensor row = Ramp({2, 3});
  for (const bool drops : {true, false}) {
    LoadOptions options;
    if (!drops) options.disabled_passes = {"remove_no_ops"};
    const auto model = Model::FromGraph(graph, options);
    ASSERT_TRUE(model.ok()) << model.status();
    const auto plan = (*model)->PlanFor(std::vector<Shape>{{2, 0}, {2, 3}});
    ASSERT_TRUE(plan.ok()) << plan.status();
    int joins = 0;
    for (const LayerRecord& layer : (*plan)->certificate().layers) {
      EXPECT_NE(layer.impl, "reference") << layer.op << ": " << layer.reason;
      joins += layer.op == "Concat" ? 1 : 0;
    }
    EXPECT_EQ(joins, drops ? 0 : 2);
    const auto got = OutputsOf(**model, {Empty({2, 0}), row});
    ASSERT_TRUE(got.ok()) << got.status();
    for (const Tensor& output : *got) {
      ASSERT_EQ(output.shape(), (Shape{2, 3}));
      for (size_t i = 0; i < 6; ++i)
        EXPECT_EQ(output.span<float>()[i], std::max(row.span<float>()[i], 0.0F)) << i;
    }
  }
}

TEST(EmptyTensors, AttentionOfNothingIsNothingAndOverNothingZeros) {
  const Graph graph = Attention(false, false);
  const Tensor some = Ramp({1, 2, 3, 4});
  const Tensor none = Empty({1, 2, 0, 4});
  const auto of_nothing = Answer(graph, {none, some, some});
  ASSERT_EQ(of_nothing.size(), 2U);
  EXPECT_EQ(of_nothing[0].shape(), (Shape{1, 2, 0, 4}));
  const auto over_nothing = Answer(graph, {some, none, none});
  ASSERT_EQ(over_nothing.size(), 2U);
  EXPECT_EQ(over_nothing[0].shape(), (Shape{1, 2, 3, 4}));
  EXPECT_THAT(over_nothing[0].span<float>(), Each(0.0F));
}

TEST(EmptyTensors, AProductOverNothingIsItsBias) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, kOpen});
  const ValueId w = b.Input("w", {kOpen, 3});
  const ValueId bias = b.Constant<float>({3}, {1, -2, 3});
  const ValueId product = b.Op("MatMul", {x, w});
  b.Output(b.Op("Relu", {b.Op("Add", {product, bias})}));
  b.Output(b.Op("Gemm", {x, w, bias}));
  const auto got = Answer(b.Build(), {Empty({2, 0}), Empty({0, 3})});
  ASSERT_EQ(got.size(), 2U);
  EXPECT_THAT(got[0].span<float>(), ElementsAre(1, 0, 3, 1, 0, 3));
  EXPECT_THAT(got[1].span<float>(), ElementsAre(1, -2, 3, 1, -2, 3));
}

TEST(EmptyTensors, EachReductionHasAValueOfNothing) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<std::pair<const char*, float>> kOfNothing = {
      {"ReduceSum", 0},
      {"ReduceProd", 1},
      {"ReduceMax", -kInfinity},
      {"ReduceMin", kInfinity},
      {"ReduceL1", 0},
      {"ReduceL2", 0},
      {"ReduceSumSquare", 0},
      {"ReduceLogSum", -kInfinity},
      {"ReduceLogSumExp", -kInfinity},
      {"ReduceMean", 0},
  };
  for (const auto& [op, value] : kOfNothing) {
    GraphBuilder b(18);
    const ValueId x = b.Input("x", {2, kOpen});
    b.Output(b.Op(op, {x, b.IntList({1})}));
    const auto got = Answer(b.Build(), {Empty({2, 0})});
    ASSERT_EQ(got.size(), 1U) << op;
    EXPECT_EQ(got[0].shape(), (Shape{2, 1})) << op;
    EXPECT_THAT(got[0].span<float>(), Each(value)) << op;
  }
}

TEST(EmptyTensors, TheMeanOfPlanesWithoutPixelsIsZero) {
  GraphBuilder b(18);
  const ValueId x = b.Input("x", {1, 2, kOpen, 4});
  b.Output(b.Op("ReduceMean", {x, b.IntList({2, 3})}, {{"keepdims", int64_t{0}}}));
  const auto got = Answer(b.Build(), {Empty({1, 2, 0, 4})});
  ASSERT_EQ(got.size(), 1U);
  EXPECT_THAT(got[0].span<float>(), Each(0.0F));
}

TEST(EmptyTensors, MovementsKeepTheirShapes) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, kOpen, 6});
  b.Output(b.Op("Transpose", {x}, {{"perm", Ints{1, 2, 0}}}));
  b.Output(b.Op("Reshape", {x, b.IntList({0, -1, 3, 2})}));
  b.Output(b.Op("Reshape", {x, b.IntList({0, 0, 3, 2})}));
  b.Output(b.Op("Slice", {x, b.IntList({1}), b.IntList({5}), b.IntList({2})}));
  b.Output(b.Ops("Split", {x}, 3, {{"axis", int64_t{2}}})[1]);
  b.Output(b.Op("Gather", {x, b.IntList({0, 1, 1})}, {{"axis", int64_t{0}}}));
  b.Output(b.Op("Pad", {x, b.IntList({0, 1, 0, 0, 0, 0}), b.Scalar(7.0F)}));
  b.Output(b.Op("Expand", {b.Op("Unsqueeze", {x, b.IntList({0})}), b.IntList({3, 1, 1, 1})}));
  b.Output(b.Op("Shape", {x}));
  const auto got = Answer(b.Build(), {Empty({2, 0, 6})});
  ASSERT_EQ(got.size(), 9U);
  const std::vector<Shape> kShapes = {{0, 6, 2}, {2, 0, 3, 2}, {2, 0, 3, 2}, {2, 0, 4}, {2, 0, 2},
                                      {3, 0, 6}, {2, 1, 6},    {3, 2, 0, 6}, {3}};
  for (size_t i = 0; i < kShapes.size(); ++i) EXPECT_EQ(got[i].shape(), kShapes[i]) << i;
  EXPECT_THAT(got[6].span<float>(), Each(7.0F));
  EXPECT_THAT(got[8].span<int64_t>(), ElementsAre(2, 0, 6));
}

TEST(EmptyTensors, ReshapeTakesItsZerosAtTheirWord) {
  GraphBuilder b(14);
  const ValueId x = b.Input("x", {3, kOpen});
  b.Output(b.Op("Reshape", {x, b.IntList({0, 5})}, {{"allowzero", int64_t{1}}}));
  const auto got = Answer(b.Build(), {Empty({3, 0})});
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got[0].shape(), (Shape{0, 5}));
}

// Layers whose primitives take no extent of 0.
TEST(EmptyTensors, LayersOfNothingAreSkipped) {
  GraphBuilder b(17);
  const ValueId image = b.Input("image", {3, kOpen, 4, 8});
  ValueId y = b.Op("Relu", {b.Op("Transpose", {image}, {{"perm", Ints{1, 0, 2, 3}}})});
  y = b.Op("Conv", {y, b.Random({16, 3, 3, 3}), b.Random({16})});
  y = b.Op("MaxPool", {b.Op("Relu", {y})}, {{"kernel_shape", Ints{1, 2}}});
  b.Output(b.Op("Softmax", {y}, {{"axis", int64_t{1}}}));
  const ValueId rows = b.Input("rows", {1, kOpen, 8});
  const ValueId norm =
      b.Op("LayerNormalization", {b.Op("MatMul", {rows, b.Random({8, 4})}), b.Random({4})});
  b.Output(b.Op("Add", {norm, b.Random({4})}));
  const Graph graph = b.Build();
  const auto model = Model::FromGraph(graph, {});
  ASSERT_TRUE(model.ok()) << model.status();
  const auto plan = (*model)->PlanFor(std::vector<Shape>{{3, 0, 4, 8}, {1, 0, 8}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (const LayerRecord& layer : (*plan)->certificate().layers)
    EXPECT_EQ(layer.impl, "octet:empty") << layer.name;
  const auto got = OutputsOf(**model, {Empty({3, 0, 4, 8}), Empty({1, 0, 8})});
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ((*got)[0].shape(), (Shape{0, 16, 2, 5}));
  EXPECT_EQ((*got)[1].shape(), (Shape{1, 0, 4}));
  Workspace workspace;
  const auto times = (*plan)->LayerTimes(workspace, 1);
  ASSERT_TRUE(times.ok()) << times.status();
  EXPECT_EQ(times->size(), (*plan)->certificate().layers.size());
}

TEST(EmptyTensors, FunctionsReshapeToNothing) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 2, kOpen, 4});
  b.Output(b.Op("com.microsoft:GroupNorm", {x, b.Random({4}), b.Random({4})},
                {{"groups", int64_t{2}}, {"channels_last", int64_t{1}}}));
  const auto got = Answer(b.Build(), {Empty({1, 2, 0, 4})});
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got[0].shape(), (Shape{1, 2, 0, 4}));
}

TEST(EmptyTensors, RowsOfNothingMayBeStacked) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kOpen, kOpen, 8});
  b.Output(b.Op("Relu", {b.Op("MatMul", {x, b.Random({8, 8})})}));
  const Graph graph = b.Build();
  const auto got = Answer(graph, {Empty({16, 0, 8})});
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got[0].shape(), (Shape{16, 0, 8}));
  EXPECT_EQ(ErrorOf(graph, {Empty({0, 4, 8})}), "input 'x': expected a batch of at least 1, got 0");
}

TEST(EmptyTensors, AnOpenAxisThatIsNoBatchMayBeZero) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kOpen, 2});
  const ValueId total = b.Op("ReduceSum", {x, b.IntList({0})}, {{"keepdims", int64_t{0}}});
  b.Output(b.Op("Relu", {x}));
  b.Output(total);
  const auto got = Answer(b.Build(), {Empty({0, 2})});
  ASSERT_EQ(got.size(), 2U);
  EXPECT_EQ(got[0].shape(), (Shape{0, 2}));
  EXPECT_THAT(got[1].span<float>(), ElementsAre(0, 0));
}

TEST(EmptyTensors, WhatAsksForAnElementOfNothingIsRefused) {
  GraphBuilder gather;
  const ValueId x = gather.Input("x", {1, kOpen});
  gather.Output(gather.Op("Gather", {x, gather.IntList({0})}, {{"axis", int64_t{1}}}));
  EXPECT_THAT(ErrorOf(gather.Build(), {Empty({1, 0})}), HasSubstr("Gather"));

  GraphBuilder resize;
  const ValueId image = resize.Input("image", {1, 1, kOpen, 4});
  resize.Output(resize.Op("Resize", {image, kNone, kNone, resize.IntList({1, 1, 2, 4})}));
  EXPECT_THAT(ErrorOf(resize.Build(), {Empty({1, 1, 0, 4})}), HasSubstr("cannot be resized"));

  GraphBuilder edge;
  const ValueId row = edge.Input("row", {1, kOpen});
  edge.Output(edge.Op("Pad", {row, edge.IntList({0, 1, 0, 0})}, {{"mode", std::string("edge")}}));
  EXPECT_THAT(ErrorOf(edge.Build(), {Empty({1, 0})}), HasSubstr("cannot be padded by its own"));

  GraphBuilder largest;
  const ValueId scores = largest.Input("scores", {1, kOpen});
  largest.Output(largest.Op("ArgMax", {scores}, {{"axis", int64_t{1}}}));
  EXPECT_THAT(ErrorOf(largest.Build(), {Empty({1, 0})}), HasSubstr("ArgMax"));
}

// A request of some hundred bytes: of each place along its extents something would be kept.
TEST(EmptyTensors, WithoutMeasureAreRefusedByPrograms) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kOpen, kOpen});
  b.Output(b.Op("SequenceLength", {b.Op("SplitToSequence", {x})}));
  const Graph graph = b.Build();
  EXPECT_THAT(ErrorOf(graph, {Empty({int64_t{1} << 40, 0})}),
              HasSubstr("input 'x' of shape [1099511627776,0] is over the limit"));
  EXPECT_EQ(Answer(graph, {Empty({3, 0})}).at(0).span<int64_t>()[0], 3);
  const auto model = Model::FromGraph(graph, {});
  ASSERT_TRUE(model.ok()) << model.status();
  const auto cut = OutputsOf(**model, {Empty({int64_t{1} << 22, 0})});
  EXPECT_EQ(cut.status().code(), absl::StatusCode::kResourceExhausted) << cut.status();
  EXPECT_THAT(std::string(Message(cut.status())), HasSubstr("too many parts"));
}

TEST(EmptyTensors, OfBoxesThereMayBeAnyNumberOfClasses) {
  const OpDef* def = FindOp(kOnnxDomain, "NonMaxSuppression", 11);
  ASSERT_NE(def, nullptr);
  const Datum boxes = Datum::Of(Empty({1, 0, 4}));
  const Datum scores = Datum::Of(Empty({1, int64_t{1} << 50, 0}));
  const std::vector<const Datum*> inputs = {&boxes, &scores};
  const auto kept = def->evaluate(Node(), inputs);
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_EQ(kept->at(0).tensor.shape(), (Shape{0, 3}));
}

}  // namespace empty_tensors_test
}  // namespace octet
