// What becomes of batch normalizations, and that the answers stay.
#include <cmath>
#include <vector>

#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"
#include "tests/unit/engine/passes/checked.h"

namespace octet {
namespace fold_batch_norm_test {

ValueId BatchNorm(GraphBuilder& b, ValueId x, int64_t channels) {
  return b.Op("BatchNormalization", {x, b.Random({channels}), b.Random({channels}),
                                     b.Random({channels}), b.Random({channels}, 0.5F, 2.0F)});
}

TEST(FoldBatchNorm, GoesIntoTheWeightsAhead) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4, 5, 5});
  const ValueId c =
      b.Op("Conv", {x, b.Random({6, 2, 3, 3}), b.Random({6})}, {{"group", int64_t{2}}});
  b.Output(BatchNorm(b, c, 6));
  EXPECT_THAT(AfterPassChecked("fold_batch_norm", b.Build()), HasOps({"Conv"}));
}

TEST(FoldBatchNorm, GoesIntoTheWeightsOfATransposedConvolution) {
  for (const int64_t group : {1, 2}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {2, 4, 5, 5});
    const ValueId up = b.Op("ConvTranspose", {x, b.Random({4, 6 / group, 3, 3}), b.Random({6})},
                            {{"strides", Ints{2, 2}}, {"group", group}});
    b.Output(BatchNorm(b, up, 6));
    const Graph graph = b.Build();
    const Graph after = AfterPass("fold_batch_norm", graph);
    EXPECT_THAT(after, HasOps({"ConvTranspose"}));
    EXPECT_TRUE(SameAnswers(graph, after));
  }
}

// The rank of the input is open, and so is whether there are such groups.
TEST(FoldBatchNorm, LeavesATransposedConvolutionOfNoGroups) {
  for (const int64_t group : {-1, 0, 3}) {
    GraphBuilder b;
    const ValueId x =
        b.Op("Reshape", {b.Input("x", {100}), b.Input("to", {kUnknownDim}, DType::kI64)});
    const ValueId up = b.Op("ConvTranspose", {x, b.Random({4, 2, 3, 3})}, {{"group", group}});
    b.Output(BatchNorm(b, up, 6));
    EXPECT_THAT(AfterPass("fold_batch_norm", b.Build()),
                HasOps({"Reshape", "ConvTranspose", "BatchNormalization"}));
  }
}

TEST(FoldBatchNorm, GoesIntoTheWeightsBehindWithoutPadding) {
  GraphBuilder b;
  const ValueId x = BatchNorm(b, b.Input("x", {2, 4, 5, 5}), 4);
  b.Output(b.Op("Conv", {x, b.Random({6, 2, 3, 3})}, {{"group", int64_t{2}}}));
  EXPECT_THAT(AfterPassChecked("fold_batch_norm", b.Build()), HasOps({"Conv"}));
}

TEST(FoldBatchNorm, BecomesMulAndAddElsewhere) {
  GraphBuilder b;
  const ValueId x = BatchNorm(b, b.Input("x", {2, 4, 5, 5}), 4);
  b.Output(b.Op("Conv", {x, b.Random({6, 4, 3, 3})}, {{"pads", Ints{1, 1, 1, 1}}}));
  EXPECT_THAT(AfterPassChecked("fold_batch_norm", b.Build()), HasOps({"Mul", "Add", "Conv"}));
}

TEST(FoldBatchNorm, GoesIntoAMatrixProduct) {
  for (const bool transposed : {false, true}) {
    GraphBuilder b;
    const ValueId w = transposed ? b.Random({5, 4}) : b.Random({4, 5});
    const ValueId y =
        b.Op("octet:MatMul", {b.Input("x", {3, 4}), w}, {{"trans_b", int64_t{transposed ? 1 : 0}}});
    b.Output(BatchNorm(b, y, 5));
    EXPECT_THAT(AfterPassChecked("fold_batch_norm", b.Build()), HasOps({"octet:MatMul"}));
  }
}

TEST(FoldBatchNorm, LeavesDoublePrecision) {
  for (const bool ahead : {false, true}) {
    GraphBuilder b;
    const auto ones = [&](Shape shape, double value) {
      const auto count = static_cast<size_t>(shape.elements());
      return b.Constant<double>(std::move(shape), std::vector<double>(count, value));
    };
    const auto norm = [&](ValueId x) {
      return b.Op("BatchNormalization",
                  {x, ones({4}, 2), ones({4}, -1), ones({4}, 0.5), ones({4}, 3)});
    };
    ValueId y = b.Input("x", {1, 4, 5, 5}, DType::kF64);
    if (ahead) y = norm(y);
    y = b.Op("Conv", {y, ones({4, 4, 3, 3}, 0.25)});
    if (!ahead) y = norm(y);
    b.Output(y);
    const Graph graph = b.Build();
    const Graph after = Optimised(graph);
    EXPECT_TRUE(SameAnswers(graph, after)) << ahead;
    EXPECT_EQ(CountOps(after, "BatchNormalization"), 1) << ahead;
  }
}

// What a batch normalization becomes of one channel of four: that of an input, of a Conv's result, or of what a Conv reads.
struct OneNorm {
  float scale = 1;
  float bias = 0;
  float mean = 0;
  float var = 1;
  float epsilon = 0;
  float weight = 1;
  float conv_bias = 0;

  enum class Place : uint8_t { kAlone, kBehind, kAhead };
  Graph After(Place place) const {
    GraphBuilder b;
    const auto four = [&](float first, float others) {
      return b.Constant<float>({4}, {first, others, others, others});
    };
    const auto norm = [&](ValueId x) {
      return b.Op("BatchNormalization",
                  {x, four(scale, 1), four(bias, 0), four(mean, 0), four(var, 1)},
                  {{"epsilon", epsilon}});
    };
    ValueId y = b.Input("x", {1, 4, 2, 2});
    if (place != Place::kBehind) y = norm(y);
    if (place != Place::kAlone) {
      const ValueId w = b.Constant<float>({4, 1, 1, 1}, {weight, 1, 1, 1});
      y = b.Op("Conv", {y, w, four(conv_bias, 0)}, {{"group", int64_t{4}}});
    }
    if (place == Place::kBehind) y = norm(y);
    b.Output(y);
    Graph after = AfterPass("fold_batch_norm", b.Build());
    for (ValueId id = 0; id < after.value_count(); ++id) {
      const Value& value = after.value(id);
      if (!value.is_constant() || after.consumers(id).empty()) continue;
      for (const float f : value.constant.span<float>())
        EXPECT_TRUE(std::isfinite(f)) << value.name;
    }
    return after;
  }
};

TEST(FoldBatchNorm, LeavesWhatNoFloatHolds) {
  using Place = OneNorm::Place;
  for (const Place place : {Place::kAlone, Place::kBehind, Place::kAhead}) {
    const auto stays = [&](const OneNorm& norm) {
      return CountOps(norm.After(place), "BatchNormalization") == 1;
    };
    EXPECT_FALSE(stays({}));
    EXPECT_TRUE(stays({.var = 0})) << "an infinite factor";
    EXPECT_TRUE(stays({.scale = 0, .var = 0})) << "a factor that is no number";
    EXPECT_TRUE(stays({.var = -1})) << "nor this one";
    EXPECT_TRUE(stays({.scale = 1e30F, .var = 1e-20F})) << "beyond the largest float";
    EXPECT_TRUE(stays({.scale = 1e20F, .mean = -1e20F})) << "an infinite addend";
    EXPECT_FALSE(stays({.scale = 1e20F, .mean = 1e10F}));
    EXPECT_FALSE(stays({.scale = 1e-40F})) << "a channel of its bias alone";
  }
  const auto splits = [](const OneNorm& norm, Place place) {
    return CountOps(norm.After(place), "Mul") == 1;
  };
  for (const Place place : {Place::kBehind, Place::kAhead}) {
    EXPECT_TRUE(splits({.scale = 1e20F, .weight = 1e20F}, place)) << "an infinite weight";
    EXPECT_TRUE(splits({.var = 1e30F, .weight = 1e-20F}, place)) << "a weight that vanishes";
    EXPECT_FALSE(splits({.var = 1e30F, .weight = 1e-10F}, place));
    EXPECT_FALSE(splits({.scale = 1e-40F, .weight = 1e-3F}, place)) << "a channel of its bias";
  }
  EXPECT_TRUE(splits({.scale = 1e20F, .conv_bias = 1e20F}, Place::kBehind)) << "an infinite bias";
  EXPECT_TRUE(splits({.scale = 0, .bias = 1e20F, .weight = 1e20F}, Place::kAhead));
}

}  // namespace fold_batch_norm_test
}  // namespace octet
