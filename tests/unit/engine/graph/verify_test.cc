// Each test breaks one invariant and expects the verifier to name what is broken.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/graph/graph.h"
#include "engine/tensor/status.h"

namespace octet {
namespace verify_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

// x -> Relu 'relu' -> y.
struct Small {
  Graph graph;
  ValueId x, y;
  NodeId relu;
  Small() {
    x = graph.AddValue({.name = "x", .dtype = DType::kF32, .shape = Shape{2, 3}});
    y = graph.AddValue({.name = "y", .dtype = DType::kF32, .shape = Shape{2, 3}});
    relu = graph.AddNode({.name = "relu", .op = "Relu", .inputs = {x}, .outputs = {y}});
    graph.inputs = {x};
    graph.outputs = {y};
  }
};

void ExpectBroken(const Graph& graph, std::string_view name, std::string_view why) {
  const absl::Status status = Verify(graph);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(Message(status)),
              AllOf(HasSubstr(std::string(name)), HasSubstr(std::string(why))));
}

TEST(VerifyTest, AcceptsASoundGraph) {
  const Small s;
  EXPECT_TRUE(Verify(s.graph).ok());
  EXPECT_TRUE(Verify(Graph()).ok());
}

TEST(VerifyTest, NoticesAValueThatNothingDefines) {
  Small s;
  s.graph.inputs.clear();
  ExpectBroken(s.graph, "Relu 'relu'", "nothing defines: x");
}

TEST(VerifyTest, NoticesAnOutputThatNothingDefines) {
  Small s;
  s.graph.RemoveNode(s.relu);
  ExpectBroken(s.graph, "'y'", "graph output that nothing defines");
}

TEST(VerifyTest, NoticesConsumersBeforeProducers) {
  Small s;
  const ValueId w = s.graph.AddValue({.name = "w", .dtype = DType::kF32});
  s.graph.AddNode({.name = "abs", .op = "Abs", .inputs = {s.x}, .outputs = {w}});
  s.graph.SetInput(s.relu, 0, w);
  ExpectBroken(s.graph, "Relu 'relu'", "before the producer of its input w");
}

TEST(VerifyTest, NoticesTwoProducersOfOneValue) {
  Small s;
  s.graph.AddNode({.name = "abs", .op = "Abs", .inputs = {s.x}, .outputs = {s.y}});
  ExpectBroken(s.graph, "Relu 'relu'", "not the producer of its output y");
}

TEST(VerifyTest, NoticesEdgesChangedBehindTheGraphsBack) {
  Small s;
  s.graph.mutable_node(s.relu).inputs.push_back(s.x);
  ExpectBroken(s.graph, "'x'", "does not list its reader Relu 'relu'");
  s.graph.mutable_node(s.relu).inputs.clear();
  ExpectBroken(s.graph, "'x'", "lists a reader that does not read it");
  s.graph.mutable_node(s.relu).inputs = {77};
  ExpectBroken(s.graph, "Relu 'relu'", "input id out of range: 77");
  s.graph.mutable_node(s.relu).inputs = {s.x};
  s.graph.mutable_node(s.relu).outputs = {s.y, s.y};
  ExpectBroken(s.graph, "Relu 'relu'", "same output twice");
  s.graph.mutable_node(s.relu).outputs.clear();
  ExpectBroken(s.graph, "'y'", "producer does not list it");
}

TEST(VerifyTest, NoticesConstantsThatDifferFromTheirTypeOrShape) {
  Small s;
  const ValueId c = s.graph.AddConstant("c", Tensor::From<float>({2}, {1, 2}));
  s.graph.mutable_value(c).dtype = DType::kI32;
  ExpectBroken(s.graph, "'c'", "INT32 against FP32");
  s.graph.mutable_value(c).dtype = DType::kF32;
  s.graph.mutable_value(c).shape = Shape{3};
  ExpectBroken(s.graph, "'c'", "[3] against [2]");
}

TEST(VerifyTest, NoticesQuantizationThatDoesNotFit) {
  Small s;
  Value& y = s.graph.mutable_value(s.y);
  y.quant = QuantParams::PerTensor(0.1f, 0);
  ExpectBroken(s.graph, "'y'", "its type is FP32");
  y.dtype = DType::kI8;
  EXPECT_TRUE(Verify(s.graph).ok());
  y.quant = QuantParams::PerTensor(0.0f, 0);
  ExpectBroken(s.graph, "'y'", "not positive and finite");
  y.quant = QuantParams::PerTensor(0.1f, 128);
  ExpectBroken(s.graph, "'y'", "zero point outside its type: 128");
  y.quant = QuantParams{{0.1f, 0.2f}, {0}, 0};
  ExpectBroken(s.graph, "'y'", "differ in number");
  y.quant = QuantParams{{0.1f, 0.2f}, {0, 0}, 2};
  ExpectBroken(s.graph, "'y'", "does not have: 2");
  y.quant = QuantParams{{0.1f, 0.2f}, {0, 0}, 1};
  ExpectBroken(s.graph, "'y'", "extent of axis 1: 2 against 3");
  y.quant = QuantParams{{0.1f, 0.2f}, {0, 0}, QuantParams::kPerTensor};
  ExpectBroken(s.graph, "'y'", "one scale expected");
  y.quant = QuantParams{{0.1f, 0.2f}, {0, 0}, 0};
  EXPECT_TRUE(Verify(s.graph).ok());
}

TEST(VerifyTest, NoticesPostOpsWithoutTheirOperand) {
  Small s;
  s.graph.mutable_node(s.relu).post_ops = {{.kind = PostOp::Kind::kAdd, .operand = 1}};
  ExpectBroken(s.graph, "Relu 'relu'", "add has no operand at input 1");
  s.graph.SetInput(s.relu, 1, s.x);
  EXPECT_TRUE(Verify(s.graph).ok());
}

TEST(VerifyTest, NoticesImpossibleInterfaces) {
  Small s;
  s.graph.inputs.push_back(s.x);
  ExpectBroken(s.graph, "'x'", "input twice");
  s.graph.inputs = {s.x, s.y};
  ExpectBroken(s.graph, "'y'", "graph input and has a producer");
  s.graph.inputs = {s.x, 99};
  ExpectBroken(s.graph, "99", "out of range");
}

}  // namespace verify_test
}  // namespace octet
