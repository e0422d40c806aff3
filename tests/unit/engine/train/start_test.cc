// Training that goes on from QDQ files: our own, other tools', and what is none.
#include "engine/train/start.h"

#include <cmath>
#include <random>

#include "engine/engine.h"
#include "engine/onnx/onnx_file.h"
#include "engine/passes/quantization.h"
#include "engine/quantize/leave_out_defaults.h"
#include "engine/tensor/status.h"
#include "engine/train/network.h"
#include "engine/train/runner.h"
#include "engine/train/train.h"
#include "tests/support/small_network.h"

namespace octet {
namespace start_test {

using ::testing::HasSubstr;
using testing::PlainRecipe;
using testing::Quantized;
using testing::SmallNetwork;
using testing::SmallSamples;
using train::Network;
using train::ReadStart;
using train::Runner;

constexpr int64_t kBatch = 16;

TrainOptions Short(int epochs) {
  TrainOptions options;
  options.epochs = epochs;
  return options;
}

// An operator between FP32 and integers that names its zero point's type.
struct Pair {
  GraphBuilder& b;
  ValueId zero;

  ValueId operator()(ValueId x, ValueId scale) const {
    return b.Op("DequantizeLinear", {b.Op("QuantizeLinear", {x, scale, zero}), scale, zero});
  }
};

// The form of converters and other quantizers: biases of 32 bits, zero points of the weights written out, one constant for
// several scales, two layers of one weight, UINT8 weights with a zero point, a Flatten of integers' reals, an addend of integers, rounded shares.
Graph AnotherToolsFile(DType activation) {
  GraphBuilder b;
  const bool bytes = activation == DType::kU8;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 8, 8});
  const Pair of_input{b, bytes ? b.Scalar<uint8_t>(128) : b.Scalar<int8_t>(0)};
  // The rounding does what a Relu does for U8; I8 has one.
  const Pair pair{b, bytes ? b.Scalar<uint8_t>(0) : b.Scalar<int8_t>(0)};
  const ValueId shared_scale = b.Scalar(0.02F);
  const ValueId input = of_input(x, b.Scalar(0.0078F));
  const ValueId w_scales = b.Constant<float>(Shape{3}, {0.004F, 0.003F, 0.002F});
  const ValueId w = b.Op("DequantizeLinear",
                         {b.RandomInts(DType::kI8, {3, 3, 3, 3}, -128, 127), w_scales,
                          b.Constant<int8_t>(Shape{3}, {0, 0, 0})},
                         {{"axis", int64_t{0}}});
  const ValueId bias = b.Op("DequantizeLinear",
                            {b.Constant<int32_t>(Shape{3}, {900, -700, 400}),
                             b.Constant<float>(Shape{3}, {3.12e-5F, 2.34e-5F, 1.56e-5F})},
                            {{"axis", int64_t{0}}});
  const GraphBuilder::Attrs same = {{"pads", Ints{1, 1, 1, 1}}};
  const ValueId first = pair(b.Op("Relu", {b.Op("Conv", {input, w, bias}, same)}), shared_scale);
  const ValueId second = pair(b.Op("Relu", {b.Op("Conv", {first, w}, same)}), shared_scale);
  const ValueId mean = pair(b.Op("GlobalAveragePool", {second}), b.Scalar(0.01F));
  const ValueId flat = b.Op("Flatten", {mean}, {{"axis", int64_t{1}}});
  const ValueId matrix = b.Op("DequantizeLinear", {b.RandomInts(DType::kU8, {5, 3}, 0, 255),
                                                   b.Scalar(0.02F), b.Scalar<uint8_t>(120)});
  const ValueId z = b.Op("Gemm", {flat, matrix}, {{"transB", int64_t{1}}});
  const Pair of_scores{b, bytes ? b.Scalar<uint8_t>(100) : b.Scalar<int8_t>(10)};
  const ValueId rounded = of_scores(z, b.Scalar(0.03F));
  const ValueId addend =
      b.Op("DequantizeLinear", {b.RandomInts(DType::kI8, {5}, -100, 100), b.Scalar(0.004F)});
  const ValueId sum = of_scores(b.Op("Add", {rounded, addend}), b.Scalar(0.03F));
  b.Output(pair(b.Op("Softmax", {sum}), b.Scalar(bytes ? 1 / 255.0F : 1 / 127.0F)), "y");
  return b.Build();
}

// The same with reals.
Graph WithoutRounding(const Graph& qdq) {
  Graph graph = qdq;
  for (const NodeId id : graph.OrderSnapshot()) {
    const Node node = graph.node(id);
    if (!node.is("DequantizeLinear")) continue;
    const NodeId quantize = graph.producer(node.inputs[0]);
    if (quantize == kNone) continue;
    if (graph.is_graph_output(node.outputs[0])) {
      const NodeId producer = graph.producer(graph.node(quantize).inputs[0]);
      graph.RemoveNode(id);
      graph.RemoveNode(quantize);
      graph.SetOutput(producer, 0, node.outputs[0]);
    } else {
      graph.ReplaceUses(node.outputs[0], graph.node(quantize).inputs[0]);
    }
  }
  graph.RemoveDead();
  for (const NodeId id : graph.OrderSnapshot()) FoldDequantize(graph, id);
  return graph;
}

std::vector<float> EngineAnswers(const Graph& file, const Tensor& samples) {
  Graph graph = file;
  EXPECT_TRUE(train::CutSoftmax(graph));
  const CalibrationData set = {{graph.value(graph.inputs[0]).name, samples}};
  auto runner = Runner::Make(graph, Precision::kInt8, {}, {set, graph}, kBatch);
  EXPECT_TRUE(runner.ok()) << runner.status();
  runner->inputs()[0] = samples;
  const absl::Status ran = runner->Run();
  EXPECT_TRUE(ran.ok()) << ran;
  const auto answers = runner->output().span<float>();
  return {answers.begin(), answers.end()};
}

void ExpectEngineAgrees(Network& network, const Graph& file, const Tensor& samples) {
  const std::vector<float> engine = EngineAnswers(file, samples);
  train::CopyToPhysical(samples.span<float>().data(), network.inputs()[0]->shape(),
                        network.inputs()[0]->values());
  ASSERT_TRUE(network.Forward().ok());
  ASSERT_EQ(network.output().size(), std::ssize(engine));
  int64_t same = 0;
  for (size_t i = 0; i < engine.size(); ++i) {
    const double difference = std::abs(network.output().values()[i] - engine[i]);
    EXPECT_LT(difference, 0.1) << i;
    same += difference < 1e-4;
  }
  EXPECT_GT(same, static_cast<int64_t>(engine.size()) * 8 / 10);
}

TEST(Start, TheNetworkOfAnotherToolsFileAnswersLikeTheFile) {
  for (const DType activation : {DType::kU8, DType::kI8}) {
    const Graph file = AnotherToolsFile(activation);
    const auto start = ReadStart(file, WithoutRounding(file), {});
    ASSERT_TRUE(start.ok()) << start.status();
    auto network = Network::Build(*start, kBatch, true);
    ASSERT_TRUE(network.ok()) << network.status();
    const Tensor samples = testing::RandomReals(Shape{kBatch, 3, 8, 8}, TestSeed() + 7);
    EXPECT_EQ(EngineAnswers(*start, samples), EngineAnswers(file, samples));
    ExpectEngineAgrees(**network, file, samples);
    // What shared constants moves apart, and is written where the engine reads it.
    std::mt19937 random(TestSeed());
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (train::Parameter* parameter : (*network)->parameters()) {
      const float reach = parameter->values.size() > 1 ? 3.0F : 0.2F;
      for (float& value : parameter->values) value += reach * uniform(random);
    }
    Graph written = *start;
    (*network)->WriteTo(written);
    ExpectEngineAgrees(**network, written, samples);
    EXPECT_NE(EngineAnswers(written, samples), EngineAnswers(file, samples));
  }
}

TEST(Start, TrainsAnotherToolsFile) {
  const Graph file = AnotherToolsFile(DType::kU8);
  const auto result = TrainFrom(WithoutRounding(file), file, {SmallSamples(128), {}}, Short(8), {});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_GT(result->best_epoch, 0);
  EXPECT_THAT(result->graph.metadata.at("octet.recipe"), HasSubstr("static trained=mse"));
  EXPECT_EQ(result->graph.metadata.at("octet.precision"), "int8");
  int unsigned_weights = 0;
  for (const NodeId id : result->graph.order()) {
    const NodeId weights = train::DequantizerOfWeights(result->graph, result->graph.node(id));
    if (weights == kNone) continue;
    const Node& node = result->graph.node(weights);
    unsigned_weights += result->graph.value(node.inputs[0]).dtype == DType::kU8;
  }
  EXPECT_EQ(unsigned_weights, 1);
}

// What is not bettered is what the file answers, bit by bit.
TEST(Start, FallsBackToTheFile) {
  const Graph file = AnotherToolsFile(DType::kU8);
  TrainOptions options = Short(2);
  options.learning_rate = 200;
  options.learn_ranges = false;
  const auto result = TrainFrom(WithoutRounding(file), file, {SmallSamples(64), {}}, options, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->best_epoch, 0);
  const Tensor samples = testing::RandomReals(Shape{kBatch, 3, 8, 8}, TestSeed() + 7);
  EXPECT_EQ(EngineAnswers(result->graph, samples), EngineAnswers(file, samples));
}

// Integers of a sensor are what this file reads without an error: it has none, also in the blends that it is examined on.
TEST(Start, BlendsAreOnTheSensorsGrid) {
  GraphBuilder b;
  const Pair pair{b, b.Scalar<uint8_t>(0)};
  const ValueId x = pair(b.Input("x", {kUnknownDim, 1, 4, 8}), b.Scalar(1.0F));
  const ValueId w = b.Op("DequantizeLinear",
                         {b.RandomInts(DType::kI8, {5, 1, 4, 8}, -127, 127), b.Scalar(0.01F)});
  b.Output(b.Op("Flatten", {b.Op("Conv", {x, w})}), "y");
  const Graph file = b.Build();
  Tensor bytes(DType::kF32, Shape{64, 1, 4, 8});
  std::mt19937 random(TestSeed());
  for (float& value : bytes.mutable_span<float>()) value = static_cast<float>(random() % 256);
  const auto result = TrainFrom(WithoutRounding(file), file, {{{"x", bytes}}, {}}, Short(1), {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_LT(result->epochs[0].held_back_loss, 1e-9);
}

Graph Reread(const Graph& graph) {
  const std::string bytes = *WriteOnnxBytes(graph);
  auto read = ReadOnnxBytes(std::as_bytes(std::span(bytes)), "file");
  EXPECT_TRUE(read.ok()) << read.status();
  return *std::move(read);
}

TEST(Start, OfTheQuantizersFileIsWhereTrainingBegins) {
  const TrainSet set{SmallSamples(128), {}};
  for (const int bits : {8, 4}) {
    QuantizeRecipe recipe;
    recipe.weight_bits = bits;
    recipe.equalize = false;  // Training evens out channels for the outputs.
    const auto whole = TrainInt8(SmallNetwork(), recipe, set, Short(3), {});
    ASSERT_TRUE(whole.ok()) << whole.status();
    const Graph file = Reread(Quantized(SmallNetwork(), recipe, set.inputs));
    const auto from_file = TrainFrom(SmallNetwork(), file, set, Short(3), {});
    ASSERT_TRUE(from_file.ok()) << from_file.status();
    ASSERT_EQ(whole->epochs.size(), from_file->epochs.size());
    for (size_t i = 0; i < whole->epochs.size(); ++i) {
      EXPECT_EQ(whole->epochs[i].held_back_loss, from_file->epochs[i].held_back_loss) << i;
      EXPECT_EQ(whole->epochs[i].train_loss, from_file->epochs[i].train_loss) << i;
    }
  }
}

// As it is in a file: what a reader finds again by itself is left out.
TEST(Start, GoesOnFromItsOwnResult) {
  const TrainSet set{SmallSamples(128), {}};
  auto first = TrainInt8(SmallNetwork(), PlainRecipe(), set, Short(4), {});
  ASSERT_TRUE(first.ok()) << first.status();
  LeaveOutDefaults(first->graph);
  ASSERT_GT(first->best_epoch, 0);
  const auto second = TrainFrom(SmallNetwork(), Reread(first->graph), set, Short(4), {});
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->epochs[0].held_back_loss,
            first->epochs[static_cast<size_t>(first->best_epoch)].held_back_loss);
}

TEST(Start, LayersInFloatStayInFloat) {
  QuantizeRecipe recipe = PlainRecipe();
  recipe.floor = {AccuracyFloor::Kind::kMinSqnr, 60};
  const TrainSet set{SmallSamples(128), {}};
  const Graph file = Quantized(SmallNetwork(), recipe, set.inputs);
  const auto in_float = [](const Graph& graph) {
    std::vector<std::vector<float>> weights;
    for (const NodeId id : graph.order()) {
      const Node& node = graph.node(id);
      if (!train::IsLayer(node) || !graph.value(node.inputs[1]).is_constant()) continue;
      const auto reals = graph.value(node.inputs[1]).constant.span<float>();
      weights.emplace_back(reals.begin(), reals.end());
    }
    return weights;
  };
  const auto before = in_float(file);
  ASSERT_FALSE(before.empty());
  ASSERT_LT(before.size(), 6U);
  TrainOptions options = Short(6);
  options.learning_rate = 0.02;
  const auto result = TrainFrom(SmallNetwork(), Reread(file), set, options, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->best_epoch, 0);
  EXPECT_EQ(in_float(result->graph), before);
}

ValueId Weights(GraphBuilder& b, const Shape& shape, ValueId scale) {
  return b.Op("DequantizeLinear", {b.RandomInts(DType::kI8, shape, -127, 127), scale});
}

// A file whose float layers keep their weights in bytes: the first one's input is on no grid, the
// last one's neither. A Reshape stays on the grid of the one between.
TEST(Start, LayersInFloatKeepTheirBytes) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 8});
  const ValueId in_bytes = Weights(b, {8, 16}, b.Scalar(0.01F));
  const ValueId h = b.Op("Relu", {b.Op("Gemm", {x, in_bytes, b.Random({16})})});
  const ValueId r = b.Op("Reshape", {b.FakeQuantize(h, 0.03F, 0), b.IntList({-1, 16})});
  const ValueId learned = Weights(b, {16, 16}, b.Scalar(0.01F));
  const ValueId i = b.FakeQuantize(b.Op("Gemm", {r, learned, b.Random({16})}), 0.05F, 128);
  const ValueId behind = Weights(b, {16, 4}, b.Scalar(0.02F));
  b.Output(b.Op("MatMul", {b.Op("Relu", {i}), behind}), "y");
  const Graph file = b.Build();
  const auto bytes_of = [](const Graph& graph) {
    std::vector<std::vector<int8_t>> bytes;
    for (const NodeId id : graph.order()) {
      const NodeId weights = train::DequantizerOfWeights(graph, graph.node(id));
      if (weights == kNone) continue;
      const auto q = graph.value(graph.node(weights).inputs[0]).constant.span<int8_t>();
      bytes.emplace_back(q.begin(), q.end());
    }
    return bytes;
  };
  const auto before = bytes_of(file);
  ASSERT_EQ(before.size(), 3U);
  TrainOptions options = Short(20);
  options.learning_rate = 0.2;
  const CalibrationSet samples = {{"x", testing::RandomReals(Shape{128, 8}, TestSeed())}};
  const auto result = TrainFrom(WithoutRounding(file), file, {samples, {}}, options, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->best_epoch, 0);
  const auto after = bytes_of(result->graph);
  ASSERT_EQ(after.size(), 3U);
  EXPECT_EQ(after[0], before[0]);
  EXPECT_NE(after[1], before[1]);
  EXPECT_EQ(after[2], before[2]);
}

// DequantizeLinears alone share a constant, also with weights, while each QuantizeLinear has its own.
TEST(Start, PairsStayPairsWhereOneHalfSharesItsScale) {
  GraphBuilder b;
  const ValueId shared = b.Scalar(0.05F);
  const Pair other{b, b.Scalar<uint8_t>(128)};
  const auto pair = [&](ValueId x) {
    return b.Op("DequantizeLinear",
                {b.Op("QuantizeLinear", {x, b.Scalar(0.05F), other.zero}), shared, other.zero});
  };
  const ValueId x = other(b.Input("x", {kUnknownDim, 8}), b.Scalar(0.03F));
  const ValueId h = pair(b.Op("Relu", {b.Op("MatMul", {x, Weights(b, {8, 16}, shared)})}));
  b.Output(pair(b.Op("MatMul", {h, Weights(b, {16, 4}, shared)})), "y");
  const Graph file = b.Build();
  const auto start = ReadStart(file, WithoutRounding(file), {});
  ASSERT_TRUE(start.ok()) << start.status();
  auto network = Network::Build(*start, kBatch, true);
  ASSERT_TRUE(network.ok()) << network.status();
  float step = 0.1F;
  for (train::Parameter* parameter : (*network)->parameters()) {
    if (parameter->values.size() == 1) parameter->values[0] += step += 0.1F;
  }
  Graph written = *start;
  (*network)->WriteTo(written);
  int moved = 0;
  for (const NodeId id : written.order()) {
    const Node& node = written.node(id);
    if (!node.is("DequantizeLinear")) continue;
    const float scale = written.value(node.inputs[1]).constant.span<float>()[0];
    const NodeId quantize = written.producer(node.inputs[0]);
    if (quantize == kNone) {
      EXPECT_EQ(scale, 0.05F) << "of weights";
      continue;
    }
    EXPECT_EQ(*train::ReadScalarParams(written, written.node(quantize)),
              *train::ReadScalarParams(written, node));
    moved += scale != 0.05F && scale != 0.03F;
  }
  EXPECT_EQ(moved, 2);
  EXPECT_TRUE(Network::Build(written, kBatch, true).ok());
}

// Its weights' scale times the input's is no float where denormals are flushed to zero, as they are while a network is trained.
TEST(Start, TrainsBesideAChannelThatIsNearlyDead) {
  const FlushToZero mode;
  const TrainSet set{SmallSamples(64), {}};
  Graph fp32 = SmallNetwork();
  const auto first_weights = [](const Graph& graph) {
    for (const NodeId id : graph.order()) {
      if (graph.node(id).is("Conv")) return graph.node(id).inputs[1];
    }
    return kNone;
  };
  Tensor& weights = fp32.mutable_value(first_weights(fp32)).constant;
  const std::span<float> reals = weights.mutable_span<float>();
  for (float& w : reals.first(reals.size() / 8)) w *= 2e-36F;
  const auto expect_trained = [](const absl::StatusOr<TrainResult>& result) {
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->epochs.size(), 2U);
    EXPECT_TRUE(std::isfinite(result->epochs[1].train_loss.value_or(NAN)));
  };
  QuantizeRecipe recipe = PlainRecipe();
  recipe.per_channel = true;
  expect_trained(TrainInt8(fp32, recipe, set, Short(1), {}));
  // Another tool's file, that has the scale.
  Graph file = Reread(Quantized(fp32, recipe, set.inputs));
  const NodeId dequantize = file.producer(first_weights(file));
  ASSERT_NE(dequantize, kNone);
  Tensor& scales = file.mutable_value(file.node(dequantize).inputs[1]).constant;
  scales.mutable_span<float>()[0] = 2e-38F;
  expect_trained(TrainFrom(fp32, file, set, Short(1), {}));
}

TEST(Start, NamesTheNodeWithAComputedScale) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 8});
  const ValueId scale =
      b.Op("Mul", {b.Op("ReduceMax", {x}, {{"keepdims", int64_t{0}}}), b.Scalar(0.01F)});
  const Pair pair{b, b.Scalar<uint8_t>(128)};
  const ValueId h = b.Op("MatMul", {pair(x, scale), Weights(b, {8, 16}, b.Scalar(0.01F))});
  b.Output(b.Op("MatMul", {pair(h, scale), Weights(b, {16, 4}, b.Scalar(0.01F))}), "y");
  const CalibrationSet samples = {{"x", testing::RandomReals(Shape{16, 8}, TestSeed())}};
  const Graph file = b.Build();
  const absl::Status status =
      TrainFrom(WithoutRounding(file), file, {samples, {}}, Short(1), {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  EXPECT_THAT(std::string(Message(status)), HasSubstr("QuantizeLinear '"));
}

// What follows the Softmax and does nothing is gone from the quantized graph, and so it is from the teacher's.
TEST(Start, ASoftmaxIsTheLastNodeBehindWhatDoesNothing) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 8});
  const ValueId shares = b.Op("Softmax", {b.Op("MatMul", {x, b.Random({8, 16})})});
  const ValueId same = b.Op("Reshape", {b.Op("Dropout", {shares}), b.IntList({0, 16})});
  b.Output(b.Op("Identity", {same}), "y");
  const Graph fp32 = b.Build();
  const TrainSet set{{{"x", testing::RandomReals(Shape{64, 8}, TestSeed())}}, {}};
  const auto whole = TrainInt8(fp32, PlainRecipe(), set, Short(2), {});
  ASSERT_TRUE(whole.ok()) << whole.status();
  const auto again = TrainFrom(fp32, whole->graph, set, Short(2), {});
  EXPECT_TRUE(again.ok()) << again.status();
}

void ExpectRefused(const Graph& fp32, const Graph& start, const char* words,
                   const CalibrationSet& samples = SmallSamples(16)) {
  const absl::Status status = TrainFrom(fp32, start, {samples, {}}, Short(1), {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(Message(status)), HasSubstr(words));
}

TEST(Start, RefusesWhatIsNoQdqFile) {
  ExpectRefused(SmallNetwork(), SmallNetwork(), "training goes on from a QDQ file");
  QuantizeRecipe dynamic;
  dynamic.to = Precision::kInt8Dynamic;
  ExpectRefused(SmallNetwork(), Quantized(SmallNetwork(), dynamic, {}),
                "finds a range when it runs");
}

TEST(Start, RefusesAnotherModelsFile) {
  const Graph file = Quantized(SmallNetwork(), PlainRecipe(), SmallSamples(16));
  Graph renamed = SmallNetwork();
  renamed.mutable_value(renamed.inputs[0]).name = "image";
  ExpectRefused(renamed, file, "it has the inputs 'x', the fp32 model 'image'");
  renamed = SmallNetwork();
  renamed.mutable_value(renamed.outputs[0]).name = "scores";
  ExpectRefused(renamed, file, "it has the outputs 'y', the fp32 model 'scores'");
  ExpectRefused(SmallNetwork(kUnknownDim, ""), file,
                "a Softmax ends the file that training goes on from alone");
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 8, 8});
  const ValueId flat = b.Op("Flatten", {x}, {{"axis", int64_t{1}}});
  b.Output(b.Op("Softmax", {b.Op("MatMul", {flat, b.Random({192, 7})})}), "y");
  ExpectRefused(b.Build(), file, "its output 'y' is FP32 [?,5], the fp32 model's is FP32 [?,7]");
  ExpectRefused(file, file, "the model is quantized already");
}

TEST(Start, RefusesOtherData) {
  const Graph file = Quantized(SmallNetwork(), PlainRecipe(), SmallSamples(16));
  ExpectRefused(SmallNetwork(), file, "expected shape [?,3,8,8]",
                {{"x", testing::RandomReals(Shape{16, 3, 8, 7}, TestSeed())}});
  ExpectRefused(SmallNetwork(), file, "no array for the model's input 'x'",
                {{"z", testing::RandomReals(Shape{16, 3, 8, 8}, TestSeed())}});
}

}  // namespace start_test
}  // namespace octet
