// Nodes that a damaged or hostile file may hold. Each is refused with INVALID_ARGUMENT that names it: before its kernel
// reads beyond a tensor, divides by zero, or asks for more memory than there is.
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/plan/compiler.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace hostile_node_test {

using ::testing::Each;
using testing::Elements;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Iota;
using testing::OneNode;

using Ints = std::vector<int64_t>;
constexpr int64_t kHuge = int64_t{1} << 40;
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();

OneNode Node(std::string op, int version = 13) { return {std::move(op), version}; }
Tensor Floats(Shape shape) { return Iota<float>(std::move(shape)); }

struct Hostile {
  std::string what;
  OneNode node;
};

std::vector<Hostile> Windows() {
  const auto conv = [](std::string name, AttributeValue value) {
    return Node("Conv")
        .Input(Floats({1, 4, 8, 8}))
        .Constant(Floats({4, 4, 3, 3}))
        .Set(std::move(name), std::move(value));
  };
  const auto pool = [](const char* op, std::string name, AttributeValue value) {
    OneNode node = Node(op, 19).Input(Floats({1, 2, 8, 8}));
    if (name != "kernel_shape") node.Set("kernel_shape", Ints{2, 2});
    return node.Set(std::move(name), std::move(value));
  };
  return {
      {"stride 0", conv("strides", Ints{0, 1})},
      {"stride below 0", conv("strides", Ints{1, -1})},
      {"dilation 0", conv("dilations", Ints{0, 1})},
      {"huge dilation", conv("dilations", Ints{kMost, kMost})},
      {"pad below 0", conv("pads", Ints{-1, 0, 0, 0})},
      {"huge pad", conv("pads", Ints{kMost, 0, 0, 0})},
      {"too few pads", conv("pads", Ints{0, 0})},
      {"group 0", conv("group", int64_t{0})},
      {"group below 0", conv("group", int64_t{-1})},
      {"group that does not divide", conv("group", int64_t{3})},
      {"huge group", conv("group", kMost)},
      {"kernel unlike the weights", conv("kernel_shape", Ints{5, 5})},
      {"unknown auto_pad", conv("auto_pad", std::string("SOMEHOW"))},
      {"bias of another length", Node("Conv")
                                     .Input(Floats({1, 4, 8, 8}))
                                     .Constant(Floats({4, 4, 3, 3}))
                                     .Constant(Floats({3}))},
      {"bias of another type", Node("Conv")
                                   .Input(Floats({1, 4, 8, 8}))
                                   .Constant(Floats({4, 4, 3, 3}))
                                   .Constant(Iota<int8_t>({4}))},
      {"scalar weights beside a bias",
       Node("Conv").Input(Floats({1, 4, 8, 8})).Constant(Floats({})).Constant(Floats({4}))},
      {"weights of rank 2", Node("Conv").Input(Floats({1, 4, 8, 8})).Constant(Floats({4, 4}))},
      {"scalar weights of an unknown input",
       Node("Conv").Spec(DType::kF32, std::nullopt).Constant(Floats({}))},
      {"weights of rank 1 of an unknown input",
       Node("Conv").Spec(DType::kF32, std::nullopt).Constant(Floats({4}))},
      {"integer weights of rank 2 of an unknown input",
       Node("ConvInteger").Spec(DType::kU8, std::nullopt).Constant(Iota<uint8_t>({4, 4}))},
      {"kernel 0", pool("MaxPool", "kernel_shape", Ints{0, 2})},
      {"kernel below 0", pool("AveragePool", "kernel_shape", Ints{-1, 2})},
      {"huge kernel",
       pool("AveragePool", "kernel_shape", Ints{int64_t{1} << 31, int64_t{1} << 31})},
      {"kernel of one axis", pool("MaxPool", "kernel_shape", Ints{2})},
      {"pool stride 0", pool("LpPool", "strides", Ints{0, 1})},
      {"power 0", pool("LpPool", "p", int64_t{0})},
      {"huge pool pads", pool("MaxPool", "pads", Ints{kMost, kMost, kMost, kMost})},
      {"no kernel", Node("MaxPool").Input(Floats({1, 2, 8, 8}))},
      {"transposed group 0", Node("ConvTranspose")
                                 .Input(Floats({1, 4, 8, 8}))
                                 .Constant(Floats({4, 4, 3, 3}))
                                 .Set("group", int64_t{0})},
      {"huge output_padding", Node("ConvTranspose")
                                  .Input(Floats({1, 4, 8, 8}))
                                  .Constant(Floats({4, 4, 3, 3}))
                                  .Set("output_padding", Ints{kMost, kMost})},
      {"huge output_shape", Node("ConvTranspose")
                                .Input(Floats({1, 4, 8, 8}))
                                .Constant(Floats({4, 4, 3, 3}))
                                .Set("output_shape", Ints{kMost, kMost})},
      {"transposed bias of another length", Node("ConvTranspose")
                                                .Input(Floats({1, 4, 8, 8}))
                                                .Constant(Floats({4, 2, 3, 3}))
                                                .Constant(Floats({1}))},
  };
}

std::vector<Hostile> Products() {
  return {
      {"types differ", Node("MatMul").Input(Floats({2, 2})).Constant(Iota<int32_t>({2, 2}))},
      {"extents differ", Node("MatMul").Input(Floats({2, 3})).Constant(Floats({2, 3}))},
      {"a scalar", Node("MatMul").Input(Floats({})).Constant(Floats({2, 3}))},
      {"rank 3", Node("Gemm").Input(Floats({2, 3, 1})).Constant(Floats({3, 2}))},
      {"C too large",
       Node("Gemm").Input(Floats({1, 3})).Constant(Floats({3, 2})).Constant(Floats({4, 2}))},
      {"C of another type",
       Node("Gemm").Input(Floats({1, 3})).Constant(Floats({3, 2})).Constant(Iota<double>({2}))},
      {"zero points without elements", Node("MatMulInteger")
                                           .Input(Iota<uint8_t>({2, 2}))
                                           .Constant(Iota<uint8_t>({2, 2}))
                                           .Constant(Iota<uint8_t>({0}))},
      {"zero points of another length", Node("MatMulInteger")
                                            .Input(Iota<uint8_t>({2, 2}))
                                            .Constant(Iota<uint8_t>({2, 2}))
                                            .Absent()
                                            .Constant(Iota<uint8_t>({3}))},
      {"several zero points of x", Node("ConvInteger")
                                       .Input(Iota<uint8_t>({1, 1, 3, 3}))
                                       .Constant(Iota<uint8_t>({1, 1, 2, 2}))
                                       .Constant(Iota<uint8_t>({2}))},
      {"scales without zero points", Node("QLinearMatMul")
                                         .Input(Iota<uint8_t>({2, 2}))
                                         .Constant(Floats({1}))
                                         .Constant(Iota<uint8_t>({0}))
                                         .Constant(Iota<uint8_t>({2, 2}))
                                         .Constant(Floats({1}))
                                         .Constant(Iota<uint8_t>({1}))
                                         .Constant(Floats({1}))
                                         .Constant(Iota<uint8_t>({1}))},
      {"no equation", Node("Einsum").Input(Floats({2, 2}))},
      {"labels that are not there",
       Node("Einsum").Input(Floats({2, 2})).Set("equation", std::string("ij->ijk"))},
      {"labels that disagree",
       Node("Einsum").Input(Floats({2, 3})).Set("equation", std::string("ii->i"))},
      {"hidden size below 0", Node("LSTM", 14)
                                  .Input(Floats({1, 1, 2}))
                                  .Constant(Floats({1, 4, 2}))
                                  .Constant(Floats({1, 4, 1}))
                                  .Set("hidden_size", int64_t{-5})},
      {"huge hidden size", Node("GRU", 14)
                               .Input(Floats({1, 1, 2}))
                               .Constant(Floats({1, 3, 2}))
                               .Constant(Floats({1, 3, 1}))
                               .Set("hidden_size", kMost)},
  };
}

std::vector<Hostile> Movements() {
  const auto two_on = [](const char* op, Ints values) {
    return Node(op, 18).Input(Floats({2, 3})).Ints(std::move(values));
  };
  const auto part = Tensor::From<uint8_t>({1, 2}, {1, 2});
  const auto joined = OneNode("QLinearConcat", 1, kMicrosoftDomain)
                          .Constant(Tensor::Scalar(0.5F))
                          .Constant(Tensor::Scalar(uint8_t{0}))
                          .Input(part)
                          .Constant(Tensor::Scalar(0.5F))
                          .Constant(Tensor::Scalar(uint8_t{0}));
  return {
      {"joined along no axis", joined},
      {"axes that an unknown input cannot have",
       Node("Transpose").Spec(DType::kF32, std::nullopt).Set("perm", Ints{0, kHuge})},
      {"an axis of an unknown input twice",
       Node("Transpose").Spec(DType::kF32, std::nullopt).Set("perm", Ints{1, 1})},
      {"a part that is not there", OneNode(joined)
                                       .Set("axis", int64_t{1})
                                       .Absent()
                                       .Constant(Tensor::Scalar(0.5F))
                                       .Constant(Tensor::Scalar(uint8_t{0}))},
      {"target overflows", two_on("Reshape", {kHuge, kHuge})},
      {"target wraps to what fits", two_on("Reshape", {int64_t{1} << 32, int64_t{1} << 32, 6})},
      {"target below -1", two_on("Reshape", {-2, 6})},
      {"two open extents", two_on("Reshape", {-1, -1})},
      {"target of 40 axes", two_on("Reshape", Ints(40, 1))},
      {"expanded beyond memory", two_on("Expand", {kMost, 2, 3})},
      {"expanded below 0", two_on("Expand", {-1, 3})},
      {"tiled beyond memory", two_on("Tile", {kMost, kMost})},
      {"tiled below 0", two_on("Tile", {-1, 1})},
      {"padded beyond memory", two_on("Pad", {kMost, kMost, kMost, kMost})},
      {"cropped to less than nothing", two_on("Pad", {-3, 0, 2, 0})},
      {"pads of three axes", two_on("Pad", {0, 0, 0, 0, 0, 0})},
      {"pad value without elements", two_on("Pad", {1, 1, 1, 1}).Constant(Floats({0}))},
      {"axes twice", two_on("Unsqueeze", {1, 1})},
      {"axis out of range", two_on("Unsqueeze", {4})},
      {"more axes than there can be", two_on("Unsqueeze", Ints(100'000, 0))},
      {"squeezes what is not 1", two_on("Squeeze", {0})},
      {"squeeze axis out of range", two_on("Squeeze", {-3})},
      {"parts that wrap", two_on("Split", {kMost, kMost, 4}).Outputs(3)},
      {"part below 0", two_on("Split", {3, -1}).Outputs(2)},
      {"perm of other axes", Node("Transpose").Input(Floats({2, 3})).Set("perm", Ints{0, 2})},
      {"perm twice", Node("Transpose").Input(Floats({2, 3})).Set("perm", Ints{1, 1})},
      {"perm too long", Node("Transpose").Input(Floats({2, 3})).Set("perm", Ints(1000, 0))},
      {"blocks that wrap",
       Node("DepthToSpace").Input(Floats({1, 4, 2, 2})).Set("blocksize", int64_t{1} << 32)},
      {"blocks of 0",
       Node("SpaceToDepth").Input(Floats({1, 4, 2, 2})).Set("blocksize", int64_t{0})},
      {"step 0", Node("Slice").Input(Floats({4})).Ints({0}).Ints({4}).Ints({0}).Ints({0})},
      {"slice axis out of range", Node("Slice").Input(Floats({4})).Ints({0}).Ints({4}).Ints({1})},
      {"starts and ends differ", Node("Slice").Input(Floats({4})).Ints({0, 1}).Ints({4})},
      {"gather axis", Node("Gather").Input(Floats({4})).Ints({0}).Set("axis", int64_t{1})},
      {"gathered index", Node("Gather").Input(Floats({4})).Ints({4})},
      {"lowest index", Node("Gather").Input(Floats({4})).Ints({kLeast})},
      {"batches of no tuples", Node("GatherND")
                                   .Input(Floats({4, 2}))
                                   .Constant(Iota<int64_t>({1, 1}))
                                   .Set("batch_dims", int64_t{1})},
      {"scattered index", Node("ScatterND")
                              .Input(Floats({4}))
                              .Constant(Tensor::From<int64_t>({1, 1}, {9}))
                              .Constant(Floats({1}))},
      {"updates too short", Node("ScatterElements")
                                .Input(Floats({4}))
                                .Constant(Iota<int64_t>({3}))
                                .Constant(Floats({2}))},
      {"concat axis",
       Node("Concat").Input(Floats({4})).Input(Floats({4})).Set("axis", int64_t{-2})},
      {"concat of unlike shapes",
       Node("Concat").Input(Floats({2, 3})).Input(Floats({3, 2})).Set("axis", int64_t{0})},
      {"flatten axis", Node("Flatten").Input(Floats({2, 3})).Set("axis", kMost)},
      {"range without end", Node("Range")
                                .Constant(Tensor::Scalar(0.0F))
                                .Constant(Tensor::Scalar(1.0F))
                                .Constant(Tensor::Scalar(0.0F))},
      {"range of NaN", Node("Range")
                           .Constant(Tensor::Scalar(0.0F))
                           .Constant(Tensor::Scalar(std::nanf("")))
                           .Constant(Tensor::Scalar(1.0F))},
      {"shape beyond memory", Node("ConstantOfShape").Ints({kHuge, kHuge})},
      {"shape below 0", Node("ConstantOfShape").Ints({-1})},
      {"fill of two", Node("ConstantOfShape").Ints({2}).Set("value", Floats({2}))},
      {"resized to nothing known", Node("Resize").Input(Floats({1, 1, 2, 2}))},
      {"scale NaN", Node("Resize")
                        .Input(Floats({2}))
                        .Absent()
                        .Constant(Tensor::From<float>({1}, {std::nanf("")}))},
      {"resized beyond memory", Node("Resize").Input(Floats({2})).Absent().Absent().Ints({kMost})},
      {"classes below 1",
       Node("OneHot").Input(Iota<int64_t>({2})).Ints({-1}).Constant(Floats({2}))},
      {"more than there are", Node("TopK").Input(Floats({4})).Ints({5}).Outputs(2)},
  };
}

std::vector<Hostile> Elementwise() {
  const auto norm = [](const char* op, Shape parameters) {
    return Node(op, 17)
        .Input(Floats({1, 3, 2, 2}))
        .Constant(Floats(parameters))
        .Constant(Floats({3}));
  };
  const auto quantized = [](const char* op, Tensor x, Tensor scale, Tensor zero) {
    return Node(op).Input(std::move(x)).Constant(std::move(scale)).Constant(std::move(zero));
  };
  return {
      {"shapes that do not broadcast", Node("Add").Input(Floats({2})).Input(Floats({3}))},
      {"types that do not meet", Node("Add").Input(Floats({2})).Input(Iota<double>({2}))},
      {"attribute of another type", Node("Softmax").Input(Floats({2})).Set("axis", Ints{1})},
      {"bounds without elements", Node("Clip").Input(Floats({2})).Constant(Floats({0}))},
      {"slope too large", Node("PRelu").Input(Floats({2})).Constant(Floats({2, 2}))},
      {"unknown approximation",
       Node("Gelu", 20).Input(Floats({2})).Set("approximate", std::string("close"))},
      {"softmax axis", Node("Softmax").Input(Floats({2})).Set("axis", int64_t{1})},
      {"old softmax axis", Node("Softmax", 11).Input(Floats({2})).Set("axis", kLeast)},
      {"reduced axis", Node("ReduceMean").Input(Floats({2})).Set("axes", Ints{1})},
      {"lowest axis", Node("ArgMax").Input(Floats({2})).Set("axis", kLeast)},
      {"axes of another type", Node("ReduceSum").Input(Floats({2})).Constant(Iota<int32_t>({1}))},
      {"too few scales", norm("InstanceNormalization", {2})},
      {"scales that do not broadcast", norm("LayerNormalization", {3})},
      {"too few means", Node("BatchNormalization")
                            .Input(Floats({1, 3, 2}))
                            .Constant(Floats({3}))
                            .Constant(Floats({3}))
                            .Constant(Floats({2}))
                            .Constant(Floats({3}))},
      {"LRN of 0", Node("LRN").Input(Floats({1, 2, 2})).Set("size", int64_t{0})},
      {"groups of 0", Node("GroupNormalization", 21)
                          .Input(Floats({1, 2, 2}))
                          .Constant(Floats({2}))
                          .Constant(Floats({2}))},
      {"zero points without elements",
       quantized("QuantizeLinear", Floats({2}), Floats({1}), Iota<uint8_t>({0}))},
      {"no scales",
       quantized("DequantizeLinear", Iota<uint8_t>({2}), Floats({0}), Iota<uint8_t>({0}))},
      {"scales along nothing",
       quantized("DequantizeLinear", Iota<uint8_t>({2, 3}), Floats({2}), Iota<uint8_t>({2}))},
      {"blocks before opset 21",
       quantized("DequantizeLinear", Iota<uint8_t>({2, 3}), Floats({2, 3}), Iota<uint8_t>({2, 3}))
           .Set("block_size", int64_t{1})},
      {"shift nowhere", Node("BitShift").Input(Iota<uint8_t>({2})).Input(Iota<uint8_t>({2}))},
      {"a missing input", Node("Add").Input(Floats({2}))},
      {"inputs left over", Node("Relu").Input(Floats({2})).Input(Floats({2}))},
      {"outputs left over", Node("Relu").Input(Floats({2})).Outputs(2)},
      {"a target that is no class", Node("NegativeLogLikelihoodLoss")
                                        .Input(Floats({1, 2}))
                                        .Constant(Tensor::From<int64_t>({1}, {7}))},
  };
}

void ExpectRefused(const std::vector<Hostile>& nodes) {
  for (const auto& [what, node] : nodes) {
    const auto answer = node.Run();
    EXPECT_EQ(answer.status().code(), absl::StatusCode::kInvalidArgument)
        << what << ": " << answer.status();
    EXPECT_THAT(std::string(Message(answer.status())), HasSubstr("'tested' (opset ")) << what;
  }
}

TEST(HostileNodeTest, WindowsAreChecked) { ExpectRefused(Windows()); }
TEST(HostileNodeTest, ProductsAreChecked) { ExpectRefused(Products()); }
TEST(HostileNodeTest, MovementsAreChecked) { ExpectRefused(Movements()); }
TEST(HostileNodeTest, ElementwiseOperatorsAreChecked) { ExpectRefused(Elementwise()); }

TEST(HostileNodeTest, IntegerMeansDivideByNoZero) {
  const auto nothing = Node("ReduceMean").Input(Iota<int32_t>({0, 2})).Set("axes", Ints{0}).Run();
  ASSERT_TRUE(nothing.ok()) << nothing.status();
  EXPECT_THAT(Elements<int32_t>((*nothing)[0]), Each(0));
}

TEST(HostileNodeTest, IntegerLogSumsAreLogSums) {
  const auto y = Node("ReduceLogSumExp", 13).Input(Tensor::From<int32_t>({2}, {5, 5})).Run();
  ASSERT_TRUE(y.ok()) << y.status();
  EXPECT_THAT(Elements<int32_t>((*y)[0]), ElementsAre(5)) << "log(2 e^5) = 5.69, truncated";
}

TEST(HostileNodeTest, PoolsWalkOnlyTapsInsideTheInput) {
  // Some 2^42 taps, of which a few lie inside.
  const int64_t kernel = int64_t{1} << 20;
  const auto y = Node("AveragePool", 19)
                     .Input(Floats({1, 1, 2, 2}))
                     .Set("kernel_shape", Ints{kernel, kernel})
                     .Set("pads", Ints{kernel, kernel, kernel, kernel})
                     .Set("strides", Ints{kernel, kernel})
                     .Run();
  ASSERT_TRUE(y.ok()) << y.status();
}

TEST(HostileNodeTest, WindowsOfLrnReachNoFurtherThanTheChannels) {
  for (const int64_t size : {(int64_t{1} << 62) + 1, (int64_t{1} << 62) - 1, kMost}) {
    const OneNode node = Node("LRN")
                             .Input(testing::RandomReals({1, 2, 2, 16}, 1))
                             .Set("channels_last", int64_t{1})
                             .Set("size", size)
                             .Set("alpha", 1e18F);
    const auto lowered = testing::Lower(node);
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    EXPECT_THAT(Elements<float>(lowered->outputs[0]),
                ::testing::Pointwise(::testing::FloatNear(1e-6F), testing::Reference(node)));
  }
}

TEST(HostileNodeTest, PlansOverTheLimitAreRefusedBeforeTheyTakeMemory) {
  const auto load = [](OneNode node) {
    const auto graph = node.Infer();
    EXPECT_TRUE(graph.ok()) << graph.status();
    onednn::WeightCache weights;
    return CompilePlan(*graph, {Precision::kFp32, DetectTarget(1), weights, 1 << 20}).status();
  };
  for (const OneNode& node :
       {Node("Expand").Input(Floats({1})).Ints({1 << 20}),
        Node("ConstantOfShape").Ints({int64_t{1} << 30}),
        Node("ConstantOfShape").Ints({0, int64_t{1} << 40}),
        Node("Pad").Input(Floats({1})).Ints({int64_t{1} << 35, 0}),
        Node("ReduceSum").Spec(DType::kF32, Shape{0, int64_t{1} << 40}).Ints({1})}) {
    const absl::Status status = load(node);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
}

TEST(HostileNodeTest, ShapesThatDependOnDataHaveNoPlan) {
  const auto graph =
      Node("Reshape").Spec(DType::kF32, Shape{6}).Spec(DType::kI64, Shape{kUnknownDim}).Infer();
  ASSERT_TRUE(graph.ok()) << graph.status();
  onednn::WeightCache weights;
  const auto plan = CompilePlan(*graph, {Precision::kFp32, DetectTarget(1), weights});
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kUnimplemented) << plan.status();
}

TEST(HostileNodeTest, NanWeightsGiveNanAnswers) {
  const float nan = std::nanf("");
  const auto graph = Node("Gemm")
                         .Input(Floats({1, 2}))
                         .Constant(Tensor::From<float>({2, 2}, {nan, 0, 1, 1}))
                         .Infer();
  ASSERT_TRUE(graph.ok());
  const auto model = Model::FromGraph(*graph, {});
  ASSERT_TRUE(model.ok()) << model.status();
  const std::vector<Shape> shapes = {Shape{1, 2}};
  const auto plan = (*model)->PlanFor(shapes);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const float x[2] = {1, 1};
  float y[2] = {0, 0};
  const void* inputs[] = {x};
  void* outputs[] = {y};
  Workspace workspace;
  ASSERT_TRUE((*plan)->Run(workspace, inputs, outputs).ok());
  EXPECT_TRUE(std::isnan(y[0]));
  EXPECT_EQ(y[1], 1);
}

}  // namespace hostile_node_test
}  // namespace octet
