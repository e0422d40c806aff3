// The network that is trained against the engine that serves its file.
#include "engine/train/network.h"

#include "engine/onnx/onnx_file.h"
#include "engine/tensor/status.h"
#include "engine/train/runner.h"
#include "tests/support/small_network.h"

namespace octet {
namespace network_test {

using testing::PlainRecipe;
using testing::Quantized;
using testing::SmallNetwork;
using testing::SmallSamples;
using train::Network;
using train::Runner;

constexpr int64_t kBatch = 16;

// Outputs of both for the same samples: most are the same integers all the way, the others one rounding apart.
void ExpectEngineAgrees(Network& network, const Graph& file, const Tensor& samples) {
  Graph graph = file;
  train::CutSoftmax(graph);
  const CalibrationData set = {{graph.value(graph.inputs[0]).name, samples}};
  auto runner = Runner::Make(graph, Precision::kInt8, {}, {set, graph}, kBatch);
  ASSERT_TRUE(runner.ok()) << runner.status();
  runner->inputs()[0] = samples;
  ASSERT_TRUE(runner->Run().ok());
  const auto engine = runner->output().span<float>();
  train::CopyToPhysical(samples.span<float>().data(), network.inputs()[0]->shape(),
                        network.inputs()[0]->values());
  ASSERT_TRUE(network.Forward().ok());
  double noise = 0;
  double signal = 0;
  int64_t same = 0;
  for (size_t i = 0; i < engine.size(); ++i) {
    const double difference = network.output().values()[i] - engine[i];
    noise += difference * difference;
    signal += engine[i] * engine[i];
    same += std::abs(difference) < 1e-4;
  }
  EXPECT_LT(noise, 1e-5 * signal);
  EXPECT_GT(same, static_cast<int64_t>(engine.size()) * 8 / 10);
}

void CheckAgreement(const QuantizeRecipe& recipe) {
  const CalibrationSet set = SmallSamples(64);
  Graph file = Quantized(SmallNetwork(), recipe, set);
  auto network = Network::Build(file, kBatch, true, recipe.weight_bits);
  ASSERT_TRUE(network.ok()) << network.status();
  const Tensor samples = testing::RandomReals(Shape{kBatch, 3, 8, 8}, TestSeed() + 7);
  ExpectEngineAgrees(**network, file, samples);
  // Somewhere else: integers and scales move, the file with them.
  std::mt19937 random(TestSeed());
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (train::Parameter* parameter : (*network)->parameters()) {
    const float reach = parameter->values.size() > 1 ? 3.0F : 0.1F;
    for (float& value : parameter->values) value += reach * uniform(random);
  }
  (*network)->WriteTo(file);
  ExpectEngineAgrees(**network, file, samples);
}

TEST(Network, AnswersLikeTheEngine) {
  CheckAgreement({});
  CheckAgreement(PlainRecipe());
  QuantizeRecipe nibbles;
  nibbles.method =
      RangeMethod::kMinMax;  // Quick, here and below: one set of ranges is as good as another.
  nibbles.weight_bits = 4;
  CheckAgreement(nibbles);
  for (const std::string_view name : {"u8-symmetric", "s8", "s8-asymmetric"}) {
    QuantizeRecipe recipe;
    recipe.method = RangeMethod::kMinMax;
    recipe.activation = *ParseActivationGrid(name);
    CheckAgreement(recipe);
  }
}

TEST(Network, WritesWhatItReadWhileNothingWasLearned) {
  const CalibrationSet set = SmallSamples(32);
  const Graph file = Quantized(SmallNetwork(), {}, set);
  auto network = Network::Build(file, kBatch, true);
  ASSERT_TRUE(network.ok()) << network.status();
  Graph written = file;
  (*network)->WriteTo(written);
  EXPECT_EQ(*WriteOnnxBytes(written), *WriteOnnxBytes(file));
}

// Concat, Flatten and MaxPool move integers: what they join keeps one scale, and the model's input keeps its own.
TEST(Network, ScalesThatDataMovementTiesStayEqual) {
  const Graph file = Quantized(SmallNetwork(), PlainRecipe(), SmallSamples(32));
  auto network = Network::Build(file, kBatch, true);
  ASSERT_TRUE(network.ok()) << network.status();
  float next = 0;
  for (train::Parameter* parameter : (*network)->parameters()) {
    if (parameter->values.size() == 1) parameter->values[0] = next += 0.2F;
  }
  Graph written = file;
  (*network)->WriteTo(written);
  const auto scale_of = [](const Graph& graph, ValueId id) {
    return graph.value(id).constant.span<float>()[0];
  };
  int learned = 0;
  for (const NodeId id : written.order()) {
    const Node& node = written.node(id);
    if (!node.is("QuantizeLinear")) continue;
    learned += scale_of(written, node.inputs[1]) != scale_of(file, node.inputs[1]);
    const NodeId dequantize = written.consumers(node.outputs[0])[0];
    EXPECT_EQ(scale_of(written, node.inputs[1]),
              scale_of(written, written.node(dequantize).inputs[1]));
    if (written.is_graph_input(node.inputs[0])) {
      EXPECT_EQ(scale_of(written, node.inputs[1]), scale_of(file, node.inputs[1]));
      continue;
    }
    const Node& producer = written.node(written.producer(node.inputs[0]));
    if (!producer.is("Concat") && !producer.is("MaxPool") && !producer.is("Flatten")) continue;
    for (const ValueId input : producer.inputs) {
      EXPECT_EQ(scale_of(written, node.inputs[1]),
                scale_of(written, written.node(written.producer(input)).inputs[1]))
          << producer.op;
    }
  }
  EXPECT_GT(learned, 3);
}

TEST(Network, KeepsRangesWhereTheyAreNotToBeLearned) {
  const Graph file = Quantized(SmallNetwork(), PlainRecipe(), SmallSamples(32));
  auto network = Network::Build(file, kBatch, false);
  ASSERT_TRUE(network.ok()) << network.status();
  for (const train::Parameter* parameter : (*network)->parameters())
    EXPECT_GT(parameter->values.size(), 1U) << parameter->name;
}

TEST(Network, NamesTheNodeThatItDoesNotKnow) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 8});
  const ValueId hidden = b.Op("Softmax", {b.Op("MatMul", {x, b.Random({8, 8})})});
  b.Output(b.Op("MatMul", {hidden, b.Random({8, 4})}));
  const CalibrationSet set = {{"x", testing::RandomReals(Shape{16, 8}, TestSeed())}};
  const auto network = Network::Build(Quantized(b.Build(), {}, set), 4, true);
  EXPECT_EQ(network.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Message(network.status())), ::testing::HasSubstr("Softmax 'Softmax_1'"));
}

// A Gemm repeats one element for all channels; the layer's primitives would read on behind it, and write their gradient there.
TEST(Network, RefusesABiasThatIsBroadcast) {
  for (const bool in_float : {false, true}) {
    for (const Shape& shape : {Shape{1}, Shape{}, Shape{1, 64}, Shape{64}}) {
      GraphBuilder b;
      const ValueId x = b.FakeQuantize(b.Input("x", {kUnknownDim, 8}), 0.02F, 128);
      const auto weights = [&] {
        return b.Op("DequantizeLinear",
                    {b.RandomInts(DType::kI8, {8, 64}, -127, 127), b.Scalar(0.01F)});
      };
      const ValueId h =
          b.Op("Gemm", {x, in_float ? b.Random({8, 64}) : weights(), b.Random(shape)});
      const ValueId r = b.FakeQuantize(b.Op("Gemm", {x, weights()}), 0.05F, 128);
      b.Output(b.Op("Add", {h, r}));
      for (const TrainCompute compute : {TrainCompute::kF32, TrainCompute::kBf16}) {
        if (compute == TrainCompute::kBf16 && !DetectTarget(1).bf16) continue;
        const auto network = Network::Build(b.Build(), 4, true, 8, compute);
        if (shape == Shape{64}) {
          EXPECT_TRUE(network.ok()) << network.status();
          continue;
        }
        EXPECT_EQ(network.status().code(), absl::StatusCode::kUnimplemented) << shape.ToString();
        EXPECT_THAT(std::string(Message(network.status())),
                    ::testing::HasSubstr("one per output channel"));
      }
    }
  }
}

// Integers times integers: the forward pass in bf16 rounds nothing more, the backward pass one factor of each product.
TEST(Network, ComputesInBf16) {
  if (!DetectTarget(1).bf16) GTEST_SKIP() << "no bf16 here";
  for (const QuantizeRecipe& recipe : {PlainRecipe(), QuantizeRecipe{}}) {
    const Graph file = Quantized(SmallNetwork(), recipe, SmallSamples(64));
    const Tensor samples = testing::RandomReals(Shape{kBatch, 3, 8, 8}, TestSeed() + 7);
    std::vector<std::vector<float>> outputs;
    std::vector<std::vector<std::vector<float>>> gradients;
    for (const TrainCompute compute : {TrainCompute::kF32, TrainCompute::kBf16}) {
      auto network = Network::Build(file, kBatch, true, 8, compute);
      ASSERT_TRUE(network.ok()) << network.status();
      train::CopyToPhysical(samples.span<float>().data(), (*network)->inputs()[0]->shape(),
                            (*network)->inputs()[0]->values());
      ASSERT_TRUE((*network)->Forward().ok());
      train::Activation& y = (*network)->output();
      outputs.emplace_back(y.values(), y.values() + y.size());
      for (int64_t i = 0; i < y.size(); ++i) y.gradient()[i] = static_cast<float>(i % 7) - 3;
      ASSERT_TRUE((*network)->Backward().ok());
      gradients.emplace_back();
      for (const train::Parameter* parameter : (*network)->parameters())
        gradients.back().push_back(parameter->gradients);
    }
    int same = 0;
    for (size_t i = 0; i < outputs[0].size(); ++i)
      same += std::abs(outputs[0][i] - outputs[1][i]) < 1e-4;
    EXPECT_GT(same, static_cast<int>(outputs[0].size()) * 95 / 100);
    double difference = 0;
    double square = 0;
    bool equal = true;
    for (size_t p = 0; p < gradients[0].size(); ++p) {
      if (gradients[0][p].size() == 1)
        continue;  // A sum over all of an activation, which mostly cancels.
      for (size_t i = 0; i < gradients[0][p].size(); ++i) {
        difference += std::pow(gradients[0][p][i] - gradients[1][p][i], 2);
        square += std::pow(gradients[0][p][i], 2);
        equal &= gradients[0][p][i] == gradients[1][p][i];
      }
    }
    EXPECT_LT(std::sqrt(difference / square), 0.02);
    EXPECT_FALSE(equal) << "it ran in bf16";
  }
}

TEST(CutSoftmax, CutsTheLastOneAlone) {
  Graph graph = SmallNetwork(4);
  train::CutSoftmax(graph);
  EXPECT_EQ(CountOps(graph, "Softmax"), 0);
  Graph plain = SmallNetwork(4, "");
  const int nodes = static_cast<int>(plain.order().size());
  train::CutSoftmax(plain);
  EXPECT_EQ(static_cast<int>(plain.order().size()), nodes);
}

}  // namespace network_test
}  // namespace octet
