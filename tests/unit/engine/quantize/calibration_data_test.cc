// Samples in several arrays, of several shapes, and what is drawn of them.
#include "engine/quantize/calibration_data.h"

#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/quantize/calibration.h"
#include "engine/quantize/content_mark.h"
#include "engine/quantize/held_back.h"
#include "engine/quantize/quantizer.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace calibration_data_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Rows of an array that counts on from `begin`.
class Counting : public SampleSource {
 public:
  Counting(Shape shape, float begin) : begin_(begin), spec_{DType::kF32, std::move(shape)} {}
  const TensorSpec& spec() const override { return spec_; }
  absl::Status Read(int64_t first, int64_t rows, void* to) const override {
    if (broken) return InvalidArgument("the disk is gone");
    const int64_t row = spec_.shape.elements(1, spec_.shape.rank());
    auto* values = static_cast<float*>(to);
    for (int64_t i = 0; i < rows * row; ++i)
      values[i] = begin_ + static_cast<float>(first * row + i);
    return absl::OkStatus();
  }
  bool broken = false;

 private:
  float begin_;
  TensorSpec spec_;
};

// x: two samples of two elements, three of one, one of two.
CalibrationData ThreeParts() {
  CalibrationData set;
  set.Add({{"x", std::make_shared<Counting>(Shape{2, 2}, 0.0F)}});
  set.Add({{"x", std::make_shared<Counting>(Shape{3, 1}, 10.0F)}});
  set.Add({{"x", std::make_shared<Counting>(Shape{1, 2}, 20.0F)}});
  return set;
}

std::vector<float> Values(const CalibrationData& set, int64_t first, int64_t rows) {
  const int64_t row = set.SpecOf("x", first)->shape[1];
  std::vector<float> values(static_cast<size_t>(rows * row));
  EXPECT_TRUE(set.Read("x", first, rows, values.data()).ok());
  return values;
}

TEST(CalibrationData, FindsSamplesOfOneShape) {
  const CalibrationData set = ThreeParts();
  EXPECT_EQ(set.count(), 6);
  EXPECT_FALSE(set.HasOneShape());
  EXPECT_EQ(set.Alike(0, 8), 2);
  EXPECT_EQ(set.Alike(2, 8), 3);
  EXPECT_EQ(set.Alike(2, 2), 2);
  EXPECT_EQ(set.Alike(5, 8), 1);
  EXPECT_THAT(Values(set, 2, 3), ElementsAre(10, 11, 12));
  EXPECT_EQ(set.SpecOf("y", 0), nullptr);
  EXPECT_EQ(set.SpecOf("x", 6), nullptr);
}

TEST(CalibrationData, GroupsByShapeAcrossArrays) {
  const CalibrationData grouped = ThreeParts().Grouped();
  EXPECT_EQ(grouped.Alike(0, 8), 3);
  EXPECT_THAT(Values(grouped, 0, 3), ElementsAre(0, 1, 2, 3, 20, 21));
  EXPECT_EQ(grouped.PlaceOf(2), 5);
}

TEST(CalibrationData, DrawsInAnyOrder) {
  const std::vector<int64_t> order = {4, 2, 3, 1};
  const CalibrationData drawn = ThreeParts().Drawn(order);
  EXPECT_EQ(drawn.count(), 4);
  EXPECT_THAT(Values(drawn, 0, 3), ElementsAre(12, 10, 11));
  EXPECT_THAT(Values(drawn, 3, 1), ElementsAre(2, 3));
  const std::vector<int64_t> again = {1, 3};
  EXPECT_EQ(drawn.Drawn(again).PlaceOf(0), 2);
  EXPECT_EQ(drawn.Drawn(again).PlaceOf(1), 1);
}

TEST(CalibrationData, PassesInPieces) {
  CalibrationData set;
  constexpr int64_t kLong = 1 << 17;  // Two fill a piece.
  set.Add({{"x", std::make_shared<Counting>(Shape{5, kLong}, 0.0F)}});
  std::vector<std::pair<int64_t, int64_t>> pieces;
  const absl::Status passed = set.Pass("x", 1, 4, [&](int64_t at, ConstTensorView samples) {
    EXPECT_EQ(samples.span<float>().front(), static_cast<float>(at * kLong));
    pieces.emplace_back(at, samples.shape()[0]);
    return absl::OkStatus();
  });
  ASSERT_TRUE(passed.ok()) << passed;
  EXPECT_THAT(pieces, ElementsAre(std::pair(1, 2), std::pair(3, 2)));
}

TEST(CalibrationData, IsMarkedAlikeWhereverItLies) {
  Tensor whole(DType::kF32, Shape{6, 3});
  std::iota(whole.mutable_span<float>().begin(), whole.mutable_span<float>().end(), 1.0F);
  CalibrationData parts;
  parts.Add({{"x", std::make_shared<Counting>(Shape{2, 3}, 1.0F)}});
  parts.Add({{"x", std::make_shared<Counting>(Shape{4, 3}, 7.0F)}});
  const auto mark = MarkOf(parts);
  ASSERT_TRUE(mark.ok()) << mark.status();
  EXPECT_EQ(*MarkOf(CalibrationData({{"x", whole}})), *mark);
  CalibrationData others;
  others.Add({{"x", std::make_shared<Counting>(Shape{6, 3}, 2.0F)}});
  EXPECT_NE(*MarkOf(others), *mark);
}

TEST(CalibrationData, SaysWhichInputHasOtherSamples) {
  const CalibrationData set = {{"x", Tensor(DType::kF32, Shape{4, 1})},
                               {"y", Tensor(DType::kF32, Shape{3, 1})}};
  EXPECT_EQ(Message(set.CheckCounts()),
            "calibration input 'y': expected 4 samples like the others, got 3");
  EXPECT_FALSE(MarkOf(set).ok());
  EXPECT_FALSE(CheckFinite(set).ok());
}

// x [n, length] -> doubled.
struct Doubled {
  explicit Doubled(int64_t batch = kUnknownDim) {
    GraphBuilder b;
    x = b.Input("x", {batch, kUnknownDim});
    y = b.Op("Add", {x, x});
    b.Output(y, "y");
    graph = b.Build();
  }
  Graph graph;
  ValueId x;
  ValueId y;
};

TEST(CalibrationData, IsRunShapeByShape) {
  Doubled net;
  Histogram of_y;
  std::vector<int64_t> done;
  const Observation observations[] = {{net.y, &of_y}};
  const CalibrationRun run{.progress = [&](int64_t samples, int64_t) {
    done.push_back(samples);
    return true;
  }};
  const absl::Status ran = Calibrate(net.graph, observations, ThreeParts(), run);
  ASSERT_TRUE(ran.ok()) << ran;
  EXPECT_THAT(done, ElementsAre(2, 5, 6));
  EXPECT_EQ(of_y.count(), 2U * 2 + 3 + 2);
  EXPECT_EQ(of_y.extremes(), (Range{0, 42}));
}

TEST(CalibrationData, GoesOnBehindABatch) {
  Doubled net;
  Histogram of_y;
  const Observation observations[] = {{net.y, &of_y}};
  const absl::Status ran = Calibrate(net.graph, observations, ThreeParts(), {.first = 5});
  ASSERT_TRUE(ran.ok()) << ran;
  EXPECT_EQ(of_y.extremes(), (Range{40, 42}));
}

TEST(CalibrationData, OfSeveralShapesDoesNotFillABatchOfTheModelsOwn) {
  Doubled net(2);
  Histogram of_y;
  const Observation observations[] = {{net.y, &of_y}};
  const absl::Status ran = Calibrate(net.graph, observations, ThreeParts(), {});
  EXPECT_THAT(std::string(Message(ran)), HasSubstr("takes 2 samples at once, which have to be of "
                                                   "one shape"));
}

// The first of the samples that are held back in random order may be the smallest.
TEST(CalibrationData, OfSeveralShapesIsRefusedBeforeASearch) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {4, kUnknownDim, 8});
  b.Output(b.Op("MatMul", {x, b.Random({8, 4})}), "y");
  const Graph graph = b.Build();
  CalibrationData set;
  set.Add({{"x", std::make_shared<Counting>(Shape{8, 2, 8}, 0.0F)}});
  set.Add({{"x", std::make_shared<Counting>(Shape{8, 2000, 8}, 0.0F)}});
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const QuantizeRecipe recipe = {
        .to = Precision::kInt8, .floor = {AccuracyFloor::Kind::kMinSqnr, 20}, .seed = seed};
    EXPECT_THAT(std::string(Message(Quantize(graph, recipe, set, {}).status())),
                HasSubstr("takes 4 samples at once, which have to be of one shape"));
  }
}

TEST(CalibrationData, OneArrayHoldsSamplesOfOneShape) {
  const CalibrationData set = ThreeParts();
  const auto held = set.InMemory(2, 3);
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_EQ(held->at("x").shape(), (Shape{3, 1}));
  for (const auto& [first, rows] : {std::pair{0, 3}, {1, 2}, {4, 2}, {5, 2}}) {
    EXPECT_THAT(std::string(Message(set.InMemory(first, rows).status())),
                HasSubstr("not of one shape"));
  }
}

TEST(CalibrationData, NamesTheSampleThatIsNoNumberByItsPlaceInAll) {
  Doubled net;
  const float nan = std::nanf("");
  const CalibrationData set = {{"x", Tensor::From<float>(Shape{4, 1}, {1, 2, nan, 3})}};
  Histogram of_y;
  const Observation observations[] = {{net.y, &of_y}};
  const std::vector<int64_t> order = {3, 2};
  const absl::Status ran = Calibrate(net.graph, observations, set.Drawn(order), {});
  EXPECT_EQ(Message(ran), "calibration input 'x', sample 2: NaN or infinity");
  EXPECT_EQ(Message(CheckFinite(set)), Message(ran));
}

TEST(CalibrationData, HandsOnWhatItsSourceSays) {
  CalibrationData set;
  auto source = std::make_shared<Counting>(Shape{2, 2}, 0.0F);
  source->broken = true;
  set.Add({{"x", source}});
  Doubled net;
  Histogram of_y;
  const Observation observations[] = {{net.y, &of_y}};
  EXPECT_EQ(Message(Calibrate(net.graph, observations, set, {})), "the disk is gone");
  EXPECT_EQ(Message(MarkOf(set).status()), "the disk is gone");
}

TEST(HoldBack, GroupsWhatRangesAreTakenFrom) {
  CalibrationData set;
  for (int i = 0; i < 8; ++i)
    set.Add({{"x", std::make_shared<Counting>(Shape{1, 1 + i % 2}, 0.0F)}});
  const auto split = HoldBack(set, {}, 2, 1);
  ASSERT_TRUE(split.ok()) << split.status();
  ASSERT_EQ(split->ranges.count(), 6);
  const int64_t alike = split->ranges.Alike(0, 6);
  EXPECT_EQ(alike + split->ranges.Alike(alike, 6), 6);
  EXPECT_EQ(split->held_back.count(), 2);
}

// A waveform of any length, and a state [2, 1, 3] beside it: nothing that samples could be stacked along.
struct Waves {
  Waves() {
    GraphBuilder b;
    wave = b.Input("wave", {kUnknownDim});
    state = b.Input("state", {2, 1, 3});
    const ValueId image = b.Op("Unsqueeze", {wave, b.IntList({0, 1})});
    const ValueId heard = b.Op("Relu", {b.Op("Conv", {image, b.Random({4, 1, 3}), b.Random({4})})});
    const ValueId told = b.Op("Conv", {heard, b.Random({2, 4, 1}), b.Random({2})});
    b.Output(b.Op("GlobalAveragePool", {told}), "scores");
    b.Output(b.Op("MatMul", {state, b.Random({3, 5})}), "next");
    graph = b.Build();
  }
  // So many of each of two lengths.
  static CalibrationData Samples(int64_t each) {
    CalibrationData set = CalibrationData::OfWholeInputs();
    for (const int64_t length : {9, 20}) {
      set.Add({{"wave", std::make_shared<Counting>(Shape{each, length}, -40.0F)},
               {"state", std::make_shared<Counting>(Shape{each, 2, 1, 3}, -20.0F)}});
    }
    return set;
  }
  Graph graph;
  ValueId wave;
  ValueId state;
};

TEST(WholeInputs, RunOneByOne) {
  const Waves waves;
  const CalibrationData set = Waves::Samples(3);
  EXPECT_EQ(set.count(), 6);
  EXPECT_EQ(set.RunShape("wave", 0, 1), (Shape{9}));
  EXPECT_EQ(set.RunShape("wave", 3, 1), (Shape{20}));
  EXPECT_EQ(set.RunShape("state", 3, 1), (Shape{2, 1, 3}));
  EXPECT_EQ(set.InMemory(4, 1)->at("state").shape(), (Shape{2, 1, 3}));
  EXPECT_FALSE(set.InMemory(3, 2).ok());
  Histogram of_wave;
  Histogram of_scores;
  const Observation observations[] = {{waves.wave, &of_wave}, {waves.graph.outputs[0], &of_scores}};
  int runs = 0;
  ASSERT_TRUE(Calibrate(waves.graph, observations, set,
                        {.progress = [&](int64_t, int64_t) { return ++runs > 0; }})
                  .ok());
  EXPECT_EQ(runs, 6);
  EXPECT_EQ(of_wave.count(), 3U * (9 + 20));
  EXPECT_EQ(of_scores.count(), 6U * 2);
  EXPECT_EQ(of_wave.extremes(), (Range{-40, 19}));
}

TEST(WholeInputs, AreQuantizedByEveryRecipe) {
  const Waves waves;
  for (const QuantizeRecipe& recipe :
       {QuantizeRecipe{.to = Precision::kInt8},
        QuantizeRecipe{.to = Precision::kInt8, .method = RangeMethod::kMovingAverage},
        QuantizeRecipe{.to = Precision::kInt8, .floor = {AccuracyFloor::Kind::kMinSqnr, 10}},
        QuantizeRecipe{.to = Precision::kInt8,
                       .floor = {AccuracyFloor::Kind::kMinAgreement, 50}}}) {
    const auto made = Quantize(waves.graph, recipe, Waves::Samples(8), {});
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_GE(CountOps(made->graph, "QuantizeLinear"), 1);
  }
}

TEST(WholeInputs, HaveTheShapesOfTheInputs) {
  const Waves waves;
  CalibrationData set = CalibrationData::OfWholeInputs();
  set.Add({{"wave", std::make_shared<Counting>(Shape{2, 9}, 0.0F)},
           {"state", std::make_shared<Counting>(Shape{2, 3, 1, 3}, 0.0F)}});
  Histogram seen;
  const Observation observations[] = {{waves.graph.outputs[0], &seen}};
  EXPECT_THAT(std::string(Message(Calibrate(waves.graph, observations, set, {}))),
              HasSubstr("'state': expected shape [2,1,3] (samples along one more axis before it), "
                        "got [2,3,1,3]"));
  // Along axis 0 there are no samples of the two.
  CalibrationData stacked;
  stacked.Add({{"wave", std::make_shared<Counting>(Shape{9}, 0.0F)},
               {"state", std::make_shared<Counting>(Shape{2, 1, 3}, 0.0F)}});
  EXPECT_THAT(std::string(Message(Calibrate(waves.graph, observations, stacked, {}))),
              HasSubstr("expected 9 samples like the first input, got 2"));
}

}  // namespace calibration_data_test
}  // namespace octet
