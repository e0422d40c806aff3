// Models of FLOAT16, BFLOAT16 and DOUBLE: what becomes of them is what becomes of the same model in FLOAT.
#include "engine/quantize/float_model.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/engine.h"
#include "engine/onnx/onnx_file.h"
#include "engine/ops/reference_step.h"
#include "engine/quantize/calibration_data.h"
#include "engine/quantize/quantizer.h"
#include "engine/tensor/output_agreement.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"
#include "tests/support/real_twin.h"
#include "tests/support/small_network.h"

namespace octet {
namespace float_model_test {

using testing::TwinOf;

constexpr DType kOthers[] = {DType::kF16, DType::kBF16, DType::kF64};
constexpr int64_t kOnnxHalf = 10;
constexpr int64_t kOnnxDouble = 11;

FloatModel Taken(const Graph& graph) {
  auto model = InFloat(graph);
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return {};
  EXPECT_TRUE(Verify(model->graph).ok());
  return *std::move(model);
}

Tensor As(DType dtype, const Tensor& tensor) {
  Tensor converted(dtype, tensor.shape());
  ConvertTensor(tensor.view(), converted.mutable_view());
  return converted;
}

std::vector<DType> TypesInUse(const Graph& graph) {
  std::vector<DType> types;
  for (const NodeId id : graph.order()) {
    for (const auto& list : {graph.node(id).inputs, graph.node(id).outputs}) {
      for (const ValueId v : list) {
        if (v != kNone) types.push_back(graph.value(v).dtype);
      }
    }
  }
  return types;
}

// Of a graph with sub-graphs.
Tensor Answer(const Graph& graph, const std::vector<Tensor>& inputs) {
  const auto model = Model::FromGraph(graph, {});
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return {};
  std::vector<Shape> shapes;
  std::vector<Datum> data;
  for (const Tensor& input : inputs) {
    shapes.push_back(input.shape());
    data.push_back(Datum::Of(input));
  }
  const auto plan = (*model)->PlanFor(shapes);
  EXPECT_TRUE(plan.ok()) << plan.status();
  if (!plan.ok()) return {};
  Workspace workspace;
  const auto answers = (*plan)->RunDynamic(workspace, data, {});
  EXPECT_TRUE(answers.ok()) << answers.status();
  return answers.ok() ? answers->front().tensor : Tensor();
}

TEST(FloatModel, IsTheGraphItselfWhereThereIsNothingElse) {
  GraphBuilder b;
  b.Output(b.Op("MatMul", {b.Input("x", {2, 4}), b.Random({4, 3})}), "y");
  Graph graph = b.Build();
  // As a file may leave it out.
  graph.mutable_value(graph.outputs[0]).dtype = DType::kUndefined;
  const FloatModel model = Taken(graph);
  EXPECT_EQ(Dump(model.graph), Dump(graph));
  Graph restored = model.graph;
  ASSERT_TRUE(InferShapes(restored).ok());
  model.RestoreTypes(restored);
  EXPECT_THAT(restored, HasOps({"MatMul"}));
}

TEST(FloatModel, HoldsNothingButFloat) {
  for (const DType dtype : kOthers) {
    const Graph graph = TwinOf(testing::SmallNetwork(2), dtype);
    const FloatModel model = Taken(graph);
    EXPECT_THAT(TypesInUse(model.graph), ::testing::Not(::testing::Contains(dtype)));
    const Tensor x = RandomInputs(testing::SmallNetwork(2))[0];
    const auto expected = Evaluate(graph, std::vector<Tensor>{As(dtype, x)});
    const auto got = Evaluate(model.graph, std::vector<Tensor>{x});
    ASSERT_TRUE(expected.ok() && got.ok()) << expected.status() << got.status();
    const Tensor shares = As(DType::kF32, (*expected)[0]);
    for (size_t i = 0; i < shares.span<float>().size(); ++i)
      EXPECT_NEAR((*got)[0].span<float>()[i], shares.span<float>()[i],
                  dtype == DType::kBF16 ? 0.05 : 0.005);
  }
}

// What they store, 16 bits hold exactly.
TEST(FloatModel, IsQuantizedLikeItsTwin) {
  const CalibrationSet set = testing::SmallSamples(16);
  for (const DType dtype : kOthers) {
    const Graph other = TwinOf(testing::SmallNetwork(), dtype);
    const Graph twin = Taken(other).graph;
    for (const Precision to :
         {Precision::kFp16, Precision::kBf16, Precision::kInt8, Precision::kInt8Dynamic}) {
      SCOPED_TRACE(Format("{} of {}", PrecisionName(to), DTypeName(dtype)));
      const QuantizeRecipe recipe{.to = to, .method = RangeMethod::kMinMax};
      const auto made = Quantize(other, recipe, set, {});
      const auto of_twin = Quantize(twin, recipe, set, {});
      ASSERT_TRUE(made.ok() && of_twin.ok()) << made.status() << of_twin.status();
      EXPECT_TRUE(Verify(made->graph).ok());
      EXPECT_EQ(made->graph.metadata.at("octet.precision"), PrecisionName(to));
      EXPECT_EQ(CountOps(made->graph, "Cast"), CountOps(of_twin->graph, "Cast") + 2);
      const Value& in = made->graph.value(made->graph.inputs[0]);
      const Value& out = made->graph.value(made->graph.outputs[0]);
      EXPECT_EQ(in.name, "x");
      EXPECT_EQ(in.dtype, dtype);
      EXPECT_EQ(out.name, "y");
      EXPECT_EQ(out.dtype, dtype);
      EXPECT_TRUE(WriteOnnxBytes(made->graph).ok());
      const Tensor x = As(dtype, testing::SmallSamples(2, 7).at("x"));
      const auto got = Evaluate(WithUnknownExtents(made->graph, 2), std::vector<Tensor>{x});
      const auto expected =
          Evaluate(WithUnknownExtents(of_twin->graph, 2), std::vector<Tensor>{As(DType::kF32, x)});
      ASSERT_TRUE(got.ok() && expected.ok()) << got.status() << expected.status();
      const Tensor rounded = As(dtype, (*expected)[0]);
      EXPECT_EQ(std::memcmp(rounded.data(), (*got)[0].data(), rounded.spec().bytes()), 0);
    }
  }
}

// Of any real type, the samples are.
TEST(FloatModel, ReadsSamplesInItsOwnTypeToo) {
  const CalibrationSet set = testing::SmallSamples(16);
  for (const DType dtype : kOthers) {
    const Graph other = TwinOf(testing::SmallNetwork(), dtype);
    const Tensor own = As(dtype, set.at("x"));
    const QuantizeRecipe recipe{.method = RangeMethod::kMinMax};
    const auto made = Quantize(other, recipe, CalibrationSet{{"x", own}}, {});
    const auto expected = Quantize(other, recipe, CalibrationSet{{"x", As(DType::kF32, own)}}, {});
    ASSERT_TRUE(made.ok() && expected.ok()) << made.status() << expected.status();
    EXPECT_EQ(*WriteOnnxBytes(made->graph), *WriteOnnxBytes(expected->graph));
  }
}

TEST(FloatModel, TakesWhatOctetItselfStoredIn16Bits) {
  for (const Precision stored : {Precision::kFp16, Precision::kBf16}) {
    const auto half = Quantize(testing::SmallNetwork(), {.to = stored}, {}, {});
    ASSERT_TRUE(half.ok()) << half.status();
    const Graph twin = Taken(half->graph).graph;
    EXPECT_THAT(twin, HasNo("Cast"));
    const auto made =
        Quantize(half->graph, {.method = RangeMethod::kMinMax}, testing::SmallSamples(16), {});
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_THAT(made->graph, HasNo("Cast"));
    EXPECT_EQ(made->graph.metadata.at("octet.precision"), "int8");
  }
}

// Chosen for its bits, where no layer multiplies in it.
TEST(FloatModel, LeavesDoubleBetweenLayersOfFloat) {
  for (const DType dtype : {DType::kF32, DType::kF16}) {
    GraphBuilder b;
    const ValueId c = b.Op("MatMul", {b.Input("x", {2, 4}), b.Random({4, 3})});
    const ValueId sum =
        b.Op("CumSum", {b.Op("Cast", {c}, {{"to", kOnnxDouble}}), b.Scalar<int64_t>(1)});
    b.Output(b.Op("Cast", {sum}, {{"to", dtype == DType::kF16 ? kOnnxHalf : int64_t{1}}}));
    const FloatModel model = Taken(TwinOf(b.Build(), dtype));
    const Graph& graph = model.graph;
    EXPECT_EQ(graph.value(TheOnly(graph, "CumSum").outputs[0]).dtype, DType::kF64);
    EXPECT_EQ(graph.value(TheOnly(graph, "MatMul").outputs[0]).dtype, DType::kF32);
    EXPECT_EQ(graph.value(graph.outputs[0]).dtype, DType::kF32);
  }
}

// As masks have it, which add the least number there is.
TEST(FloatModel, WhatIsBeyondFloatIsItsLargest) {
  constexpr double kLeast = std::numeric_limits<double>::lowest();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 2}, DType::kF64);
  const ValueId y = b.Op("MatMul", {x, b.Constant<double>({2, 3}, {1, 2, 3, 4, 5, 6})});
  b.Output(b.Op("Add", {y, b.Constant<double>({3}, {kLeast, kInfinity, 0.1})}));
  const Graph graph = Taken(b.Build()).graph;
  const Tensor& mask = graph.value(TheOnly(graph, "Add").inputs[1]).constant;
  EXPECT_THAT(std::vector<float>(mask.span<float>().begin(), mask.span<float>().end()),
              ::testing::ElementsAre(std::numeric_limits<float>::lowest(), kInfinity, 0.1F));
}

TEST(FloatModel, BodiesHoldNothingElse) {
  const auto branch = [](std::string_view op) {
    GraphBuilder body;
    const ValueId x = body.Input("x_in", {2, 3}, DType::kF16);
    const ValueId wide = body.Op("Cast", {x}, {{"to", int64_t{1}}});
    const ValueId half = body.Op("Cast", {body.Op(op, {wide})}, {{"to", kOnnxHalf}});
    body.Output(body.Op("Mul", {half, body.Constant<Half>({1}, {ToHalf(2)})}), "answer");
    return std::make_shared<const Graph>(body.Build());
  };
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3}, DType::kF16);
  const ValueId flag = b.Input("flag", {}, DType::kBool);
  b.Output(b.Op("If", {flag, b.Op("Neg", {x})},
                {{"then_branch", branch("Abs")},
                 {"else_branch", branch("Exp")},
                 {std::string(kCaptures), int64_t{1}}}));
  const Graph before = b.Build();
  const FloatModel model = Taken(before);
  const auto body = TheOnly(model.graph, "If").attributes.GraphOrNull("then_branch");
  ASSERT_TRUE(body.ok());
  EXPECT_THAT(TypesInUse(**body), ::testing::Each(DType::kF32));
  EXPECT_THAT(**body, HasOps({"Abs", "Mul"}));
  Graph restored = model.graph;
  model.RestoreTypes(restored);
  ASSERT_TRUE(Verify(restored).ok());
  const Tensor half = As(DType::kF16, Tensor::From<float>({2, 3}, {1, -2, 3, -4, 0.5F, -6}));
  for (const bool then : {true, false}) {
    const std::vector<Tensor> inputs = {half, Tensor::Scalar(then)};
    const Tensor expected = As(DType::kF32, Answer(before, inputs));
    const Tensor got = As(DType::kF32, Answer(restored, inputs));
    for (size_t i = 0; i < 6; ++i)
      EXPECT_NEAR(got.span<float>()[i], expected.span<float>()[i],
                  0.02 * expected.span<float>()[i]);
  }
}

TEST(FloatModel, TakesADoubleBorderBehindCasts) {
  GraphBuilder b;
  const ValueId x = b.Op("Cast", {b.Input("x", {2, 4}, DType::kF64)}, {{"to", int64_t{1}}});
  const ValueId y = b.Op("MatMul", {x, b.Random({4, 3})});
  b.Output(b.Op("Cast", {y}, {{"to", kOnnxDouble}}), "y");
  const FloatModel model = Taken(b.Build());
  EXPECT_THAT(model.graph, HasOps({"MatMul"}));
  Graph restored = model.graph;
  model.RestoreTypes(restored);
  EXPECT_THAT(restored, HasOps({"Cast", "MatMul", "Cast"}));
  EXPECT_EQ(restored.value(restored.outputs[0]).dtype, DType::kF64);
}

TEST(FloatModel, AnInputMayBeAnOutput) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4}, DType::kF16);
  b.Output(b.Op("Relu", {x}), "y");
  b.Output(x, "x");
  const Graph before = b.Build();
  const FloatModel model = Taken(before);
  Graph restored = model.graph;
  model.RestoreTypes(restored);
  EXPECT_TRUE(Verify(restored).ok());
  EXPECT_TRUE(SameAnswers(before, restored));
}

TEST(FloatModel, SequencesAtTheBorderAreRefused) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4}, DType::kF16);
  b.Output(b.Op("SequenceConstruct", {x, x}), "both");
  const auto model = InFloat(b.Build());
  EXPECT_EQ(model.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Message(model.status())),
              ::testing::HasSubstr("output 'both' is a sequence of FP16"));
}

}  // namespace float_model_test
}  // namespace octet
