// The model run over a calibration set: what is collected, and every way in which a set does not fit.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/engine.h"
#include "engine/ops/reference_step.h"
#include "engine/quantize/calibration.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace calibrate_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

// x [batch, 3, 4, 4] -> Conv -> Relu -> y, with x and y worth calibrating.
struct Network {
  explicit Network(int64_t batch = kUnknownDim) {
    GraphBuilder b;
    x = b.Input("x", {batch, 3, 4, 4});
    y = b.Op("Relu", {b.Op("Conv", {x, b.Random({2, 3, 3, 3})})});
    b.Output(y, "y");
    graph = b.Build();
  }
  absl::Status Collect(const CalibrationSet& set, const Progress& progress = {}) {
    const Observation observations[] = {{x, &of_x}, {y, &of_y}, {y, &means_of_y}};
    return Calibrate(graph, observations, set, {.progress = progress});
  }
  std::string Message(const CalibrationSet& set) {
    const absl::Status status = Collect(set);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(octet::Message(status));
  }

  Graph graph;
  ValueId x;
  ValueId y;
  Histogram of_x;
  Histogram of_y;
  ChannelMoments means_of_y{1};
};

Tensor Samples(int64_t count, int64_t channels = 3) {
  Tensor tensor(DType::kF32, Shape{count, channels, 4, 4});
  float value = 0;
  for (float& f : tensor.mutable_span<float>()) f = std::sin(value += 0.7F);
  return tensor;
}

TEST(Calibrate, SeesEveryElementOfEverySample) {
  Network network;
  const Tensor samples = Samples(11);  // more than one run's rows, and a rest
  std::vector<std::pair<int64_t, int64_t>> steps;
  const absl::Status status = network.Collect({{"x", samples}}, [&](int64_t done, int64_t total) {
    steps.emplace_back(done, total);
    return true;
  });
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_FALSE(steps.empty());
  EXPECT_EQ(steps.back(), (std::pair<int64_t, int64_t>{11, 11}));

  EXPECT_EQ(network.of_x.count(), 11U * 48);
  const auto [low, high] = std::ranges::minmax(samples.span<float>());
  EXPECT_EQ(network.of_x.extremes(), (Range{low, high}));

  const auto expected = Evaluate(WithUnknownExtents(network.graph, 11), std::vector{samples});
  ASSERT_TRUE(expected.ok()) << expected.status();
  const auto y = expected->front().span<float>();
  EXPECT_EQ(network.of_y.count(), y.size());
  EXPECT_NEAR(network.of_y.extremes().max, std::ranges::max(y), 1e-5);
  EXPECT_EQ(network.of_y.extremes().min, 0);
  double first_channel = 0;
  for (size_t i = 0; i < y.size(); ++i) first_channel += i / 4 % 2 == 0 ? y[i] : 0;
  ASSERT_EQ(network.means_of_y.means().size(), 2U);
  EXPECT_NEAR(network.means_of_y.means()[0], first_channel / 44, 1e-4);
}

// What a run takes is bounded, not its rows: wide activations come in fewer at once.
TEST(Calibrate, SeesFewRowsAtOnceWhereTheyAreWide) {
  struct Rows : Collector {
    absl::Status Observe(ConstTensorView batch) override {
      seen.push_back(batch.shape()[0]);
      return absl::OkStatus();
    }
    std::vector<int64_t> seen;
  };
  for (const int64_t width : {int64_t{4}, int64_t{4} << 20}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {kUnknownDim, 1});
    const ValueId y = b.Op("Tile", {x, b.IntList({1, width})});
    b.Output(y);
    Rows rows;
    const Tensor samples = Tensor::From<float>(Shape{3, 1}, {1, 2, 3});
    const absl::Status status =
        Calibrate(b.Build(), std::vector<Observation>{{y, &rows}}, {{"x", samples}}, {});
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(rows.seen, width == 4 ? std::vector<int64_t>{3} : std::vector<int64_t>({1, 1, 1}));
  }
}

TEST(Calibrate, FollowsAFixedBatch) {
  Network network(4);
  std::vector<std::pair<int64_t, int64_t>> steps;
  const absl::Status status =
      network.Collect({{"x", Samples(10)}}, [&](int64_t done, int64_t total) {
        steps.emplace_back(done, total);
        return true;
      });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(network.of_y.count(), 8U * 2 * 2 * 2) << "the last two samples fill no run";
  EXPECT_THAT(steps, ::testing::ElementsAre(std::pair(4, 8), std::pair(8, 8)));
}

TEST(Calibrate, NeedsEnoughSamplesForAFixedBatch) {
  EXPECT_THAT(Network(4).Message({{"x", Samples(3)}}),
              AllOf(HasSubstr("'x'"), HasSubstr("at least 4"), HasSubstr("got 3")));
}

TEST(MatchInputs, RefusesAModelThatTakesNoSamples) {
  Signature signature;
  signature.inputs = {{"x", DType::kF32, Shape{0, 3, 4, 4}}};
  const absl::Status status = MatchInputs(signature, {{"x", Samples(4)}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(Message(status)),
              AllOf(HasSubstr("'x'"), HasSubstr("own batch is 0: [0,3,4,4]")));
}

TEST(Calibrate, StopsWhenTold) {
  const auto stop = [](int64_t, int64_t) { return false; };
  EXPECT_EQ(Network().Collect({{"x", Samples(20)}}, stop).code(), absl::StatusCode::kCancelled);
}

TEST(Calibrate, NamesAMissingInput) {
  EXPECT_THAT(Network().Message({}), HasSubstr("'x'"));
  EXPECT_THAT(Network().Message({{"data", Samples(1)}}), HasSubstr("'x'"));
}

TEST(Calibrate, NamesAnArrayThatIsNoInput) {
  EXPECT_THAT(Network().Message({{"x", Samples(1)}, {"z", Samples(1)}}), HasSubstr("'z'"));
}

TEST(Calibrate, NamesAShapeThatDoesNotFit) {
  EXPECT_THAT(
      Network().Message({{"x", Samples(2, 1)}}),
      AllOf(HasSubstr("'x'"), HasSubstr("expected shape [?,3,4,4]"), HasSubstr("got [2,1,4,4]")));
  EXPECT_THAT(Network().Message({{"x", Samples(1).Reshaped(Shape{48})}}), HasSubstr("got [48]"));
}

TEST(Calibrate, NamesAnElementTypeThatDoesNotFit) {
  EXPECT_THAT(Network().Message({{"x", Tensor(DType::kU8, Shape{2, 3, 4, 4})}}),
              AllOf(HasSubstr("'x'"), HasSubstr("expected FP32"), HasSubstr("got UINT8")));
}

TEST(Calibrate, RefusesAnEmptySet) {
  EXPECT_THAT(Network().Message({{"x", Samples(0)}}), HasSubstr("'x' is empty"));
}

TEST(Calibrate, NamesTheSampleThatHoldsNan) {
  Tensor samples = Samples(9);
  samples.mutable_span<float>()[7 * 48 + 5] = std::nanf("");
  EXPECT_THAT(Network().Message({{"x", samples}}), AllOf(HasSubstr("'x'"), HasSubstr("sample 7")));
}

TEST(Calibrate, NamesAnActivationThatOverflows) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 2});
  const ValueId y = b.Op("Mul", {x, x});
  b.Output(y, "squares");
  const Tensor samples = Tensor::From<float>(Shape{2, 2}, {1, 2, 3, 3e38F});
  Histogram histogram;
  ChannelMoments means(1);
  for (Collector* collector :
       {static_cast<Collector*>(&histogram), static_cast<Collector*>(&means)}) {
    const absl::Status status =
        Calibrate(b.Build(), std::vector<Observation>{{y, collector}}, {{"x", samples}}, {});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(Message(status)), HasSubstr("'squares'"));
  }
}

TEST(Calibrate, NamesInputsOfDifferentLengths) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 2});
  const ValueId z = b.Input("z", {kUnknownDim, 2});
  const ValueId y = b.Op("Add", {x, z});
  b.Output(y);
  const CalibrationSet set = {{"x", Tensor::From<float>(Shape{2, 2}, {1, 2, 3, 4})},
                              {"z", Tensor::From<float>(Shape{3, 2}, {1, 2, 3, 4, 5, 6})}};
  Histogram histogram;
  const absl::Status status =
      Calibrate(b.Build(), std::vector<Observation>{{y, &histogram}}, set, {});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(status)),
              AllOf(HasSubstr("'z'"), HasSubstr("expected 2"), HasSubstr("got 3")));
}

}  // namespace calibrate_test
}  // namespace octet
