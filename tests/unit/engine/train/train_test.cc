// Training from end to end: it wins back what rounding took, keeps what it cannot better, and refuses what makes no sense.
#include "engine/train/train.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>

#include "engine/engine.h"
#include "engine/onnx/onnx_file.h"
#include "engine/tensor/status.h"
#include "tests/support/real_twin.h"
#include "tests/support/small_network.h"

namespace octet {
namespace train_test {

using ::testing::HasSubstr;
using testing::PlainRecipe;
using testing::SmallNetwork;
using testing::SmallSamples;

TrainOptions Short(int epochs = 6) {
  TrainOptions options;
  options.epochs = epochs;
  options.batch = 16;
  return options;
}

// Where training begins is of no matter: nothing is tried.
QuantizeRecipe QuickRecipe() {
  QuantizeRecipe recipe = PlainRecipe();
  recipe.method = RangeMethod::kMinMax;
  return recipe;
}

TEST(Train, LeavesLessNoiseThanCalibration) {
  for (const TrainLoss loss : {TrainLoss::kNoise, TrainLoss::kDivergence}) {
    TrainOptions options = Short(10);
    options.loss = loss;
    const auto result =
        TrainInt8(SmallNetwork(), PlainRecipe(), {SmallSamples(128), {}}, options, {});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_GT(result->best_epoch, 0);
    const auto& epochs = result->epochs;
    EXPECT_FALSE(epochs[0].train_loss);
    EXPECT_LT(epochs[static_cast<size_t>(result->best_epoch)].held_back_loss,
              0.8 * epochs[0].held_back_loss)
        << TrainLossName(loss);
  }
}

TEST(Train, GradientDescentLearnsToo) {
  TrainOptions options = Short(10);
  options.method = TrainMethod::kSgd;
  options.loss = TrainLoss::kNoise;
  const auto result =
      TrainInt8(SmallNetwork(), PlainRecipe(), {SmallSamples(128), {}}, options, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->best_epoch, 0);
}

TEST(Train, LearnsModelsOfOtherReals) {
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF64}) {
    const Graph model = testing::TwinOf(SmallNetwork(), dtype);
    const auto result = TrainInt8(model, PlainRecipe(), {SmallSamples(128), {}}, Short(), {});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_GT(result->best_epoch, 0);
    EXPECT_EQ(result->graph.value(result->graph.inputs[0]).dtype, dtype);
    EXPECT_EQ(result->graph.value(result->graph.outputs[0]).dtype, dtype);
    const auto again = TrainFrom(model, result->graph, {SmallSamples(64), {}}, Short(1), {});
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->graph.value(again->graph.inputs[0]).dtype, dtype);
    EXPECT_THAT(again->graph, HasExactly(2, "Cast"));
  }
}

TEST(Train, LearnsInBf16) {
  TrainOptions options = Short(10);
  options.compute = TrainCompute::kBf16;
  const auto result =
      TrainInt8(SmallNetwork(), PlainRecipe(), {SmallSamples(128), {}}, options, {});
  if (!DetectTarget(1).bf16) {
    EXPECT_EQ(result.status().code(), absl::StatusCode::kFailedPrecondition);
    return;
  }
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->best_epoch, 0);
  EXPECT_LT(result->epochs[static_cast<size_t>(result->best_epoch)].held_back_loss,
            0.8 * result->epochs[0].held_back_loss);
}

// The second channel reaches less far, and the outputs follow it a hundred times as much, which no layer by itself tells.
TEST(Train, BeginsWithChannelsThatAreEvenedOutForTheOutputs) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 8, 8});
  const ValueId narrow = b.Op(
      "Relu", {b.Op("Conv", {x, b.Constant<float>({2, 3, 1, 1}, {3, 2, 2, 0.3F, -0.2F, 0.1F})})});
  const ValueId wide =
      b.Op("Relu", {b.Op("Conv", {narrow, b.Constant<float>({2, 2, 1, 1}, {1, 0.01F, 0.01F, 1})})});
  const ValueId scores = b.Op("Conv", {wide, b.Constant<float>({1, 2, 1, 1}, {0.01F, 1})});
  b.Output(b.Op("Flatten", {b.Op("GlobalAveragePool", {scores})}), "y");
  const Graph fp32 = b.Build();
  for (const bool few : {false, true}) {
    const CalibrationSet set = SmallSamples(few ? 64 : 128);
    const auto evened = TrainInt8(fp32, {}, {set, {}}, Short(1), {});
    const auto start = TrainFrom(fp32, testing::Quantized(fp32, {}, set), {set, {}}, Short(1), {});
    ASSERT_TRUE(evened.ok() && start.ok()) << evened.status() << start.status();
    const double without = start->epochs[0].held_back_loss;
    if (few)
      EXPECT_EQ(evened->epochs[0].held_back_loss, without) << "few samples say too little";
    else
      EXPECT_LT(evened->epochs[0].held_back_loss, 0.7 * without);
  }
}

// Blocks that change little of what they pass on, so that what is rounded there is nearly all noise; and few weights in the last layer.
TEST(Train, AddsRealsAndMultipliesThemLast) {
  GraphBuilder b;
  ValueId x = b.Input("x", {kUnknownDim, 3, 8, 8});
  const GraphBuilder::Attrs same = {{"pads", Ints{1, 1, 1, 1}}};
  x = b.Op("Relu", {b.Op("Conv", {x, b.Random({16, 3, 3, 3}), b.Random({16})}, same)});
  for (int block = 0; block < 4; ++block) {
    const ValueId w = b.Random({16, 16, 3, 3}, -0.02F, 0.02F);
    x = b.Op("Relu", {b.Op("Add", {b.Op("Conv", {x, w, b.Random({16})}, same), x})});
  }
  const ValueId flat = b.Op("Flatten", {b.Op("GlobalAveragePool", {x})});
  b.Output(b.Op("Gemm", {flat, b.Random({5, 16}), b.Random({5})}, {{"transB", int64_t{1}}}), "y");
  const Graph fp32 = b.Build();
  QuantizeRecipe recipe = PlainRecipe();
  const TrainSet set = {SmallSamples(64), {}};
  const auto all = TrainInt8(fp32, recipe, set, Short(1), {});
  recipe.fewer_roundings = true;
  const auto fewer = TrainInt8(fp32, recipe, set, Short(4), {});
  ASSERT_TRUE(all.ok() && fewer.ok()) << all.status() << fewer.status();
  EXPECT_LT(fewer->epochs[0].held_back_loss, 0.5 * all->epochs[0].held_back_loss);
  EXPECT_LT(fewer->epochs[4].train_loss, fewer->epochs[1].train_loss);
  for (const NodeId id : fewer->graph.order()) {
    const Node& node = fewer->graph.node(id);
    const NodeId reads = fewer->graph.producer(node.inputs[0]);
    if (node.is("Gemm")) {
      EXPECT_TRUE(fewer->graph.node(reads).is("Flatten"));
    }
    if (node.is("Conv")) {
      EXPECT_TRUE(fewer->graph.node(reads).is("DequantizeLinear"));
    }
    if (node.is("Add")) {
      const Node& added = fewer->graph.node(fewer->graph.producer(node.inputs[1]));
      EXPECT_TRUE(added.is("Relu"));
    }
  }
}

// The quantizer by itself would hold it in bytes.
TEST(Train, KnowsWhatIsAddedToEveryPixel) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 8, 8});
  const ValueId first = b.Op("Conv", {x, b.Random({8, 3, 3, 3}), b.Random({8})});
  const ValueId placed = b.Op("Relu", {b.Op("Add", {first, b.Random({1, 8, 6, 6})})});
  const ValueId second = b.Op("Conv", {placed, b.Random({5, 8, 6, 6}), b.Random({5})});
  b.Output(b.Op("Flatten", {second}), "y");
  const auto result = TrainInt8(b.Build(), PlainRecipe(), {SmallSamples(64), {}}, Short(1), {});
  EXPECT_TRUE(result.ok()) << result.status();
}

TEST(Train, LearnsLabels) {
  const CalibrationSet images = SmallSamples(160);
  TrainSet set{images, {}};
  // The sign of the mean of the first channel: the fp32 network knows nothing of it.
  for (int64_t i = 0; i < 160; ++i) {
    double sum = 0;
    for (int64_t k = 0; k < 64; ++k)
      sum += images.at("x").span<float>()[static_cast<size_t>(i * 192 + k)];
    set.labels.push_back(sum > 0 ? 3 : 1);
  }
  TrainOptions options = Short(30);
  options.loss = TrainLoss::kLabels;
  options.learning_rate = 0.2;
  const auto result = TrainInt8(SmallNetwork(), PlainRecipe(), set, options, {});
  ASSERT_TRUE(result.ok()) << result.status();
  const TrainEpoch& best = result->epochs[static_cast<size_t>(result->best_epoch)];
  EXPECT_LT(best.held_back_loss, 0.6 * result->epochs[0].held_back_loss);
  EXPECT_GT(best.agreement, 0.6);
}

TEST(Train, RefusesOneLabelForASequence) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 6});
  b.Output(b.Op("Softmax", {b.Op("MatMul", {x, b.Random({6, 5})})}), "y");
  const Graph fp32 = b.Build();
  TrainSet set{{{"x", testing::RandomReals(Shape{32, 3, 6}, TestSeed())}},
               std::vector<int64_t>(32, 4)};
  TrainOptions options = Short(1);
  options.loss = TrainLoss::kLabels;
  const auto refused = TrainInt8(fp32, {}, set, options, {});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument) << refused.status();
  EXPECT_THAT(std::string(Message(refused.status())), HasSubstr("for each sample, got [16,3,5]"));
  options.loss = TrainLoss::kDivergence;
  const auto trained = TrainInt8(fp32, {}, set, options, {});
  EXPECT_TRUE(trained.ok()) << trained.status();
}

TEST(Train, TheSameSeedGivesTheSameFile) {
  std::string files[3];
  for (size_t i = 0; i < 3; ++i) {
    TrainOptions options = Short(5);
    options.seed = i < 2 ? 5 : 6;
    const auto result =
        TrainInt8(SmallNetwork(), PlainRecipe(), {SmallSamples(128), {}}, options, {});
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_GT(result->best_epoch, 0);
    files[i] = *WriteOnnxBytes(result->graph);
  }
  EXPECT_EQ(files[0], files[1]);
  EXPECT_NE(files[0], files[2]);
}

// Training reads them in random order, and never asks for more than a batch of the model or a piece of a pass at once.
class PartOf : public SampleSource {
 public:
  PartOf(Tensor whole, int64_t begin, int64_t rows)
      : whole_(std::move(whole)), begin_(begin), spec_(whole_.spec()) {
    spec_.shape[0] = rows;
  }
  const TensorSpec& spec() const override { return spec_; }
  absl::Status Read(int64_t first, int64_t rows, void* to) const override {
    const size_t row_bytes = whole_.bytes() / static_cast<size_t>(whole_.shape()[0]);
    std::memcpy(to,
                static_cast<const std::byte*>(whole_.data()) +
                    static_cast<size_t>(begin_ + first) * row_bytes,
                static_cast<size_t>(rows) * row_bytes);
    most_rows = std::max(most_rows, rows);
    return absl::OkStatus();
  }
  mutable int64_t most_rows = 0;

 private:
  Tensor whole_;
  int64_t begin_;
  TensorSpec spec_;
};

TEST(Train, ReadsSamplesWhereTheyLie) {
  constexpr int64_t kCount = 1400;  // Two pieces of a pass.
  const Tensor images = testing::RandomReals(Shape{kCount, 3, 8, 8}, TestSeed());
  const auto first = std::make_shared<PartOf>(images, 0, 1000);
  const auto second = std::make_shared<PartOf>(images, 1000, 400);
  TrainSet set{{}, std::vector<int64_t>(kCount, 1)};
  set.inputs.Add({{"x", first}});
  set.inputs.Add({{"x", second}});
  const TrainSet in_memory{{{"x", images}}, set.labels};
  for (const TrainLoss loss : {TrainLoss::kNoise, TrainLoss::kLabels}) {
    TrainOptions options = Short(1);
    options.loss = loss;
    TrainWatch watch;
    watch.checkpoint =
        ::testing::TempDir() + Format("train_test_{}_{}.npz", TrainLossName(loss), getpid());
    const auto expected = TrainInt8(SmallNetwork(), QuickRecipe(), in_memory, options, {}, watch);
    ASSERT_TRUE(expected.ok()) << expected.status();
    // The checkpoint is this set's, too: training finds itself done.
    const auto again = TrainInt8(SmallNetwork(), QuickRecipe(), set, options, {}, watch);
    std::filesystem::remove(watch.checkpoint);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_TRUE(again->epochs.back().restored);
    const auto result = TrainInt8(SmallNetwork(), QuickRecipe(), set, options, {});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->epochs[1].train_loss, expected->epochs[1].train_loss);
    EXPECT_EQ(result->epochs[1].held_back_loss, expected->epochs[1].held_back_loss);
    EXPECT_EQ(*WriteOnnxBytes(result->graph), *WriteOnnxBytes(expected->graph));
  }
  EXPECT_GT(first->most_rows, 0);
  EXPECT_LE(first->most_rows, (1 << 20) / (3 * 8 * 8 * 4)) << "a piece of a pass";
}

TEST(Train, SaysWhatOfASetCannotBeRead) {
  class Lost : public SampleSource {
   public:
    const TensorSpec& spec() const override { return spec_; }
    absl::Status Read(int64_t, int64_t, void*) const override {
      return InvalidArgument("the disk is gone");
    }

   private:
    TensorSpec spec_{DType::kF32, Shape{16, 3, 8, 8}};
  };
  TrainSet set;
  set.inputs.Add({{"x", std::make_shared<Lost>()}});
  const auto result = TrainInt8(SmallNetwork(), PlainRecipe(), set, Short(1), {});
  EXPECT_EQ(Message(result.status()), "the disk is gone");
}

TEST(Train, MovesSamples) {
  const TrainSet set{SmallSamples(64), {}};
  std::set<double> losses;
  for (const bool flip : {false, true}) {
    for (const int64_t shift : {0, 2}) {
      TrainOptions options = Short(1);
      options.flip = flip;
      options.shift = shift;
      const auto result = TrainInt8(SmallNetwork(), QuickRecipe(), set, options, {});
      ASSERT_TRUE(result.ok()) << result.status();
      losses.insert(result->epochs[1].train_loss.value());
    }
  }
  EXPECT_EQ(losses.size(), 4U) << "each way gives other samples";
}

TEST(Train, MovesWhatHasSpatialAxesAlone) {
  GraphBuilder b;
  b.Output(b.Op("Gemm", {b.Input("x", {kUnknownDim, 6}), b.Random({6, 5})}), "y");
  const TrainSet set{{{"x", testing::RandomReals(Shape{32, 6}, TestSeed())}}, {}};
  TrainOptions options = Short(1);
  options.shift = 1;
  const auto refused = TrainInt8(b.Build(), {}, set, options, {});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument) << refused.status();
  EXPECT_THAT(std::string(Message(refused.status())), HasSubstr("the samples are [32,6]"));
}

TEST(Train, FallsBackToCalibration) {
  TrainOptions options = Short(20);
  options.learning_rate = 200;  // Every step throws the weights to the ends of their ranges.
  options.learn_ranges = false;
  options.patience = 3;
  const TrainSet set{SmallSamples(64), {}};
  QuantizeRecipe recipe;
  recipe.equalize = false;  // Training evens out channels for the outputs.
  const auto result = TrainInt8(SmallNetwork(), recipe, set, options, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->best_epoch, 0);
  EXPECT_EQ(result->epochs.size(), 4U);  // Patience ran out.
  EXPECT_EQ(*WriteOnnxBytes(result->graph),
            *WriteOnnxBytes(testing::Quantized(SmallNetwork(), recipe, set.inputs)));
}

// The best epoch is better than calibration sample by sample, not by the luck of a few.
TEST(Train, TheBestEpochIsSurelyBetterThanCalibration) {
  const auto result =
      TrainInt8(SmallNetwork(), PlainRecipe(), {SmallSamples(128), {}}, Short(10), {});
  ASSERT_TRUE(result.ok()) << result.status();
  const auto& epochs = result->epochs;
  EXPECT_EQ(epochs[0].sureness, 0);
  double least = epochs[0].held_back_loss;
  int best = 0;
  for (const TrainEpoch& row : epochs) {
    EXPECT_EQ(row.sureness > 0, row.held_back_loss < epochs[0].held_back_loss) << row.epoch;
    if (row.sureness < 2 || row.held_back_loss >= least) continue;
    least = row.held_back_loss;
    best = row.epoch;
  }
  EXPECT_GT(best, 0);
  EXPECT_EQ(result->best_epoch, best);
}

// The largest integer of each constant of INT8 that a weighted layer reads, in the order of the layers.
std::vector<int> Reaches(const Graph& graph) {
  std::vector<int> reaches;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (!node.is("DequantizeLinear") || !graph.value(node.inputs[0]).is_constant()) continue;
    const Tensor& integers = graph.value(node.inputs[0]).constant;
    if (integers.dtype() != DType::kI8) continue;
    int reach = 0;
    for (const int8_t q : integers.span<int8_t>()) reach = std::max(reach, std::abs(q));
    reaches.push_back(reach);
  }
  return reaches;
}

TEST(Train, FourBitWeightsBetweenTheFirstAndTheLastLayer) {
  QuantizeRecipe recipe;
  recipe.weight_bits = 4;
  const TrainSet set{SmallSamples(128), {}};
  const auto result = TrainInt8(SmallNetwork(), recipe, set, Short(20), {});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_GT(result->best_epoch, 0);
  EXPECT_LT(result->epochs[static_cast<size_t>(result->best_epoch)].held_back_loss,
            0.5 * result->epochs[0].held_back_loss);
  for (const Graph& graph :
       {testing::Quantized(SmallNetwork(), recipe, set.inputs), result->graph}) {
    const std::vector<int> reaches = Reaches(graph);
    ASSERT_EQ(reaches.size(), 6U);
    EXPECT_GT(reaches.front(), 100);
    EXPECT_GT(reaches.back(), 100);
    for (size_t i = 1; i + 1 < reaches.size(); ++i) {
      EXPECT_LE(reaches[i], 7) << i;
      EXPECT_GE(reaches[i], 5) << i;
    }
    EXPECT_THAT(graph.metadata.at("octet.weights"), HasSubstr("4 bits"));
  }
}

TEST(Train, AModelsOwnBatchIsKept) {
  TrainOptions options = Short(2);
  const auto result =
      TrainInt8(SmallNetwork(4), PlainRecipe(), {SmallSamples(32), {}}, options, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->epochs.size(), 3U);
}

absl::Status Refusal(const TrainSet& set, const TrainOptions& options,
                     const QuantizeRecipe& recipe = PlainRecipe(), const TrainWatch& watch = {}) {
  return TrainInt8(SmallNetwork(), recipe, set, options, {}, watch).status();
}

void ExpectInvalid(const absl::Status& status, const char* words) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(Message(status)), HasSubstr(words));
}

TEST(Train, RefusesLabelsThatAreNoClasses) {
  TrainOptions options = Short();
  options.loss = TrainLoss::kLabels;
  TrainSet set{SmallSamples(16), std::vector<int64_t>(16, 4)};
  ExpectInvalid(Refusal({set.inputs, {}}, options), "expected one for each of 16 samples, got 0");
  set.labels[11] = 5;
  ExpectInvalid(Refusal(set, options), "label of sample 11: expected 0 to 4, got 5");
  set.labels[11] = -1;
  ExpectInvalid(Refusal(set, options), "got -1");
}

TEST(Train, RefusesTooFewSamplesAndOthersShapes) {
  ExpectInvalid(Refusal({SmallSamples(7), {}}, Short()), "expected at least 8, got 7");
  Tensor narrow(DType::kF32, Shape{16, 3, 8, 7});
  std::ranges::fill(narrow.mutable_span<float>(), 0.5F);
  ExpectInvalid(Refusal({{{"x", std::move(narrow)}}, {}}, Short()), "'x'");
  Tensor other(DType::kF32, Shape{16, 3, 8, 8});
  std::ranges::fill(other.mutable_span<float>(), 0.5F);
  ExpectInvalid(Refusal({{{"z", std::move(other)}}, {}}, Short()), "'x'");
  TrainSet several{SmallSamples(16), {}};
  const CalibrationData taller = {{"x", Tensor(DType::kF32, Shape{1, 3, 9, 8})}};
  several.inputs.Add(*taller.sources()[0]);
  ExpectInvalid(Refusal(several, Short()), "sample 16 has another than sample 0");
}

TEST(Train, RefusesOptionsOutOfRange) {
  const TrainSet set{SmallSamples(16), {}};
  TrainOptions options = Short(0);
  ExpectInvalid(Refusal(set, options), "epochs");
  options = Short();
  options.learning_rate = -1;
  ExpectInvalid(Refusal(set, options), "learning rate");
  options = Short();
  options.held_back = 1;
  ExpectInvalid(Refusal(set, options), "held back");
  options = Short();
  options.blend = 2;
  ExpectInvalid(Refusal(set, options), "blended");
  options = Short();
  options.shift = -1;
  ExpectInvalid(Refusal(set, options), "shifted by at least 0 elements, got -1");
  QuantizeRecipe recipe;
  recipe.weight_bits = 5;
  ExpectInvalid(Refusal(set, Short(), recipe), "8 or 4 bits, not 5");
  recipe.to = Precision::kFp16;
  ExpectInvalid(Refusal(set, Short(), recipe), "fp16");
}

TEST(Train, EndsWhereTheLossIsNoNumber) {
  TrainOptions options = Short();
  options.learning_rate = 1e30;
  ExpectInvalid(Refusal({SmallSamples(64), {}}, options), "training diverged");
}

TEST(Train, EndsWhenItIsToldTo) {
  int batches = 0;
  TrainWatch watch;
  watch.keep_going = [&] { return ++batches < 3; };
  const absl::Status status = Refusal({SmallSamples(64), {}}, Short(), PlainRecipe(), watch);
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(batches, 3);
}

TEST(TrainNames, AreTheirInverse) {
  for (const TrainLoss loss : {TrainLoss::kDivergence, TrainLoss::kNoise, TrainLoss::kLabels})
    EXPECT_EQ(ParseTrainLoss(TrainLossName(loss)), loss);
  for (const TrainMethod method : {TrainMethod::kAdam, TrainMethod::kSgd})
    EXPECT_EQ(ParseTrainMethod(TrainMethodName(method)), method);
  EXPECT_EQ(ParseTrainLoss("hinge"), std::nullopt);
}

}  // namespace train_test
}  // namespace octet
