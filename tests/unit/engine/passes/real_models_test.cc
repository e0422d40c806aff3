// Every real model answers the same after the passes, and has the structure that fast kernels need.
#include <filesystem>

#include "gtest/gtest.h"

#include "engine/onnx/onnx_file.h"
#include "engine/ops/reference_step.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"
#include "tests/support/source_folder.h"

namespace octet {
namespace real_models_test {

namespace fs = std::filesystem;

struct RealModel {
  const char* name;
  const char* file;
  Precision precision;
  Tolerance tolerance;
};
void PrintTo(const RealModel& model, std::ostream* out) { *out << model.name << "/" << model.file; }

// fp32: as in the README. int8: a Softmax at the end turns two steps of its input into this much.
constexpr Tolerance kFp32{.rtol = 1e-3F, .atol = 1e-4F};
constexpr Tolerance kInt8{.rtol = 0.1F, .atol = 0.02F};

class RealModels : public ::testing::TestWithParam<RealModel> {
 protected:
  void SetUp() override {
    const auto folder = SharedFolder("models");
    if (!folder) GTEST_SKIP() << "skipped: the shared models are not here";
    const fs::path path = *folder / GetParam().name / "1" / GetParam().file;
    auto graph = ReadOnnxFile(path.string());
    ASSERT_TRUE(graph.ok()) << graph.status();
    graph_ = *std::move(graph);
    context_.precision = GetParam().precision;
    ASSERT_TRUE(InferShapes(graph_).ok()) << InferShapes(graph_);
  }

  Graph graph_;
  PassContext context_;
};

// Every pass off but constant folding: extents that the model computes are known then.
Graph Unoptimised(Graph graph) {
  PassContext context;
  for (const Pass& pass : AllPasses()) context.disabled.emplace(pass.name);
  context.disabled.erase("fold_constants");
  return Optimised(std::move(graph), context);
}

TEST_P(RealModels, AnswersTheSameAfterThePasses) {
  const Graph original = Unoptimised(WithUnknownExtents(graph_, 1));
  Graph loaded = Optimised(graph_, context_);
  const Graph compiled = Optimised(WithUnknownExtents(std::move(loaded), 1), context_);
  EXPECT_TRUE(SameAnswers(original, compiled, GetParam().tolerance));
}

TEST_P(RealModels, AreLeftAloneByASecondRun) {
  const Graph once = Optimised(WithUnknownExtents(graph_, 1), context_);
  const Graph twice = Optimised(once, context_);
  EXPECT_EQ(OpNames(once), OpNames(twice)) << Dump(once) << "\n" << Dump(twice);
}

INSTANTIATE_TEST_SUITE_P(
    Shared, RealModels,
    ::testing::Values(
        RealModel{"resnet20-cifar10", "fp32.onnx", Precision::kFp32, kFp32},
        RealModel{"ic-resnet8-large", "fp32.onnx", Precision::kFp32, kFp32},
        RealModel{"ic-resnet8-large", "int8.onnx", Precision::kInt8, kInt8},
        RealModel{"vww-mobilenetv1", "fp32.onnx", Precision::kFp32, kFp32},
        RealModel{"vww-mobilenetv1", "int8.onnx", Precision::kInt8, kInt8},
        RealModel{"kws-dscnn", "fp32.onnx", Precision::kFp32, kFp32},
        RealModel{"kws-dscnn", "int8.onnx", Precision::kInt8, kInt8},
        RealModel{"ad-autoencoder", "fp32.onnx", Precision::kFp32, kFp32},
        RealModel{"ad-autoencoder", "int8.onnx", Precision::kInt8, {.rtol = 0, .atol = 2.0F}},
        RealModel{"mobilenetv2", "int8.onnx", Precision::kInt8, kInt8},
        RealModel{"squeezenet1.1", "fp32.onnx", Precision::kFp32, kFp32},
        RealModel{"shufflenetv2", "int8.onnx", Precision::kInt8, {.rtol = 0, .atol = 0.35F}},
        RealModel{"kwt1", "fp32.onnx", Precision::kFp32, {.rtol = 1e-3F, .atol = 1e-3F}},
        RealModel{"mnist-8", "fp32.onnx", Precision::kFp32, kFp32},
        RealModel{"silero-vad", "fp32.onnx", Precision::kFp32, kFp32}),
    [](const auto& test) {
      std::string name =
          Format("{}_{}", test.param.name, fs::path(test.param.file).stem().string());
      std::erase_if(name, [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_';
      });
      return name;
    });

// The graph of a model as it is loaded, extents unknown where the file leaves them open.
class LoadedModel : public ::testing::Test {
 protected:
  Graph Load(std::string_view model, Precision precision) {
    const auto folder = SharedFolder("models");
    if (!folder) return {};
    const fs::path path = *folder / model / "1" / Format("{}.onnx", PrecisionName(precision));
    auto graph = ReadOnnxFile(path.string());
    EXPECT_TRUE(graph.ok()) << graph.status();
    PassContext context;
    context.precision = precision;
    return Optimised(*std::move(graph), context);
  }
  void SetUp() override {
    if (!SharedFolder("models")) GTEST_SKIP() << "skipped: the shared models are not here";
  }
};

int CountPostOps(const Graph& graph, PostOp::Kind kind) {
  int count = 0;
  for (const NodeId id : graph.order()) {
    count += static_cast<int>(std::ranges::count(graph.node(id).post_ops, kind, &PostOp::kind));
  }
  return count;
}

// Every Conv and octet:MatMul reads and writes 8 bits; octet:MatMul may write the F32 answer.
void ExpectInt8Throughout(const Graph& graph) {
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (!node.is("Conv") && !node.is("MatMul", kOctetDomain)) continue;
    const Value& x = graph.value(node.input(0));
    const Value& w = graph.value(node.input(1));
    EXPECT_TRUE(IsInt8(x.dtype) && x.quant) << Describe(node) << " reads " << DTypeName(x.dtype);
    EXPECT_TRUE(w.dtype == DType::kI8 && w.quant && w.quant->symmetric()) << Describe(node);
    const Value& y = graph.value(node.output(0));
    if (node.is("Conv")) {
      EXPECT_TRUE(IsInt8(y.dtype) && y.quant) << Describe(node) << " writes " << DTypeName(y.dtype);
    }
  }
}

TEST_F(LoadedModel, ResNet20IsConvolutionsAlone) {
  const Graph graph = Load("resnet20-cifar10", Precision::kFp32);
  EXPECT_THAT(graph, HasNo("BatchNormalization"));
  EXPECT_THAT(graph, HasNo("Relu"));
  EXPECT_THAT(graph, HasNo("Add"));
  EXPECT_LE(CountOps(graph, "Transpose"), 1) << Dump(graph);
  EXPECT_EQ(CountPostOps(graph, PostOp::Kind::kAdd), 9) << Dump(graph);
}

TEST_F(LoadedModel, MobileNetV2Int8KeepsNoQuantizer) {
  const Graph graph = Load("mobilenetv2", Precision::kInt8);
  EXPECT_THAT(graph, HasNo("QuantizeLinear"));
  EXPECT_THAT(graph, HasNo("DequantizeLinear"));
  EXPECT_THAT(graph, HasNo("Clip"));
  EXPECT_LE(CountOps(graph, "Transpose"), 1) << Dump(graph);
  EXPECT_THAT(graph, HasExactly(2, "octet:Convert"));
  EXPECT_EQ(CountPostOps(graph, PostOp::Kind::kClip), 0)
      << "storing as u8 clips already" << Dump(graph);
  ExpectInt8Throughout(graph);
}

TEST_F(LoadedModel, ShuffleNetV2ShufflesChannelsLast) {
  const Graph graph = Load("shufflenetv2", Precision::kInt8);
  EXPECT_THAT(graph, HasNo("QuantizeLinear"));
  EXPECT_THAT(graph, HasNo("DequantizeLinear"));
  ExpectInt8Throughout(graph);
  EXPECT_LE(CountOps(graph, "Transpose"), 1 + 16)
      << "one at the input, one per shuffle" << Dump(graph);
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (node.is("Conv")) {
      EXPECT_EQ(node.attributes.IntOr("channels_last", 0), 1) << Describe(node);
    }
    if (!node.is("Transpose")) continue;
    const auto perm = *node.attributes.Ints("perm", {});
    EXPECT_TRUE(perm.size() == 4 || perm == (Ints{0, 1, 2, 4, 3})) << Describe(node);
  }
}

TEST_F(LoadedModel, SqueezeNetConcatenatesTheLastAxis) {
  const Graph graph = Load("squeezenet1.1", Precision::kFp32);
  EXPECT_LE(CountOps(graph, "Transpose"), 1) << Dump(graph);
  EXPECT_THAT(graph, HasNo("Relu"));
  EXPECT_THAT(graph, HasExactly(8, "Concat"));
  for (const NodeId id : graph.order()) {
    if (graph.node(id).is("Concat")) {
      EXPECT_EQ(graph.node(id).attributes.IntOr("axis", 0), 3) << Dump(graph);
    }
  }
}

TEST_F(LoadedModel, TheMlPerfModelsRunInInt8Throughout) {
  for (const char* name : {"ic-resnet8-large", "vww-mobilenetv1", "kws-dscnn", "ad-autoencoder"}) {
    SCOPED_TRACE(name);
    const Graph graph = Load(name, Precision::kInt8);
    ExpectInt8Throughout(graph);
    EXPECT_THAT(graph, HasNo("DequantizeLinear"));
    EXPECT_THAT(graph, HasNo("Relu"));
    EXPECT_LE(CountOps(graph, "Transpose"), 1) << Dump(graph);
  }
}

TEST_F(LoadedModel, Kwt1HasItsPatternsFused) {
  const Graph graph = Load("kwt1", Precision::kFp32);
  EXPECT_THAT(graph, HasExactly(24, "LayerNormalization"));
  EXPECT_EQ(CountPostOps(graph, PostOp::Kind::kGeluTanh), 12);
  EXPECT_THAT(graph, HasNo("Transpose"));
  EXPECT_THAT(graph, HasNo("Tanh"));
  EXPECT_THAT(graph, HasNo("MatMul"));
}

TEST_F(LoadedModel, MnistNeedsNoTranspose) {
  const Graph graph = Load("mnist-8", Precision::kFp32);
  EXPECT_THAT(graph, HasNo("Transpose"));
  EXPECT_THAT(graph, HasNo("Add"));
}

}  // namespace real_models_test
}  // namespace octet
