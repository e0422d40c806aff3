// Which models stack requests: not those where samples are seen to meet.
#include "engine/plan/row_mixing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace row_mixing_test {
using ::testing::HasSubstr;

// What is said of that which `add` makes of an input [?, 4, 6]; "" when samples stay apart, as far as is seen.
template <typename Add>
std::string Meet(const Add& add, Shape shape = {kUnknownDim, 4, 6}, int opset = 13) {
  GraphBuilder b(opset);
  b.Output(add(b, b.Input("x", std::move(shape))), "y");
  return WhereRowsMeet(b.Build()).value_or("");
}

// One operator of x, with more inputs.
std::string MeetIn(std::string_view op, GraphBuilder::Attrs attributes, int opset = 13) {
  return Meet([&](GraphBuilder& b, ValueId x) { return b.Op(op, {x}, std::move(attributes)); },
              {kUnknownDim, 4, 6}, opset);
}

TEST(WhereRowsMeet, NotInAPerceptronOrAConvolutionalNetwork) {
  EXPECT_EQ(Meet(
                [](GraphBuilder& b, ValueId x) {
                  const ValueId hidden =
                      b.Op("Gemm", {x, b.Random({8, 6}), b.Random({8})}, {{"transB", int64_t{1}}});
                  const ValueId out = b.Op("MatMul", {b.Op("Relu", {hidden}), b.Random({8, 3})});
                  return b.Op("Softmax", {b.Op("Add", {out, b.Random({3})})});
                },
                {kUnknownDim, 6}),
            "");
  EXPECT_EQ(Meet(
                [](GraphBuilder& b, ValueId x) {
                  const ValueId conv = b.Op("Conv", {x, b.Random({4, 3, 1, 1})});
                  const ValueId pooled = b.Op("GlobalAveragePool", {conv});
                  const ValueId gate = b.Op("Sigmoid", {pooled});
                  const ValueId mean = b.Op("ReduceMean", {b.Op("Mul", {conv, gate})},
                                            {{"axes", Ints{2, 3}}, {"keepdims", int64_t{0}}});
                  const ValueId flat =
                      b.Op("Flatten", {b.Op("Concat", {pooled, gate}, {{"axis", int64_t{1}}})});
                  return b.Op("Concat", {mean, flat}, {{"axis", int64_t{-1}}});
                },
                {kUnknownDim, 3, 8, 8}),
            "");
}

TEST(WhereRowsMeet, NotInAnEncoder) {
  const auto encoder = [](GraphBuilder& b, ValueId ids) {
    const ValueId x =
        b.Op("Gather", {b.Random({10, 8}), b.Op("Cast", {ids}, {{"to", int64_t{7}}})});
    const ValueId heads = b.Op("Reshape", {x, b.IntList({0, 0, 2, 4})});
    const ValueId q = b.Op("Transpose", {heads}, {{"perm", Ints{0, 2, 1, 3}}});
    const ValueId k = b.Op("Transpose", {heads}, {{"perm", Ints{0, 2, 3, 1}}});
    const ValueId mask = b.Op("Unsqueeze", {ids, b.IntList({1, 2})});
    const ValueId scores = b.Op("Softmax", {b.Op("Add", {b.Op("MatMul", {q, k}), mask})});
    const ValueId context =
        b.Op("Transpose", {b.Op("MatMul", {scores, q})}, {{"perm", Ints{0, 2, 1, 3}}});
    const ValueId merged = b.Op("Reshape", {context, b.IntList({0, 0, 8})});
    // The first token, as classifiers read it.
    return b.Op("Gather", {merged, b.Scalar<int64_t>(0)}, {{"axis", int64_t{1}}});
  };
  EXPECT_EQ(Meet(encoder, {kUnknownDim, 5}), "");
}

TEST(WhereRowsMeet, WhereAnAxisIsTheirs) {
  for (const std::string_view op : {"Softmax", "LogSoftmax", "Hardmax", "LpNormalization"}) {
    EXPECT_THAT(MeetIn(op, {{"axis", int64_t{0}}}), HasSubstr(op)) << op;
    EXPECT_EQ(MeetIn(op, {{"axis", int64_t{-1}}}), "") << op;
  }
  EXPECT_THAT(MeetIn("ReduceMean", {}), HasSubstr("ReduceMean")) << "of everything";
  EXPECT_THAT(MeetIn("ReduceMax", {{"axes", Ints{1, -3}}}), HasSubstr("ReduceMax"));
  EXPECT_EQ(MeetIn("ReduceMax", {{"axes", Ints{1, -1}}}), "");
  EXPECT_THAT(MeetIn("ArgMax", {}), HasSubstr("ArgMax"));
  EXPECT_EQ(MeetIn("ArgMax", {{"axis", int64_t{1}}, {"keepdims", int64_t{0}}}), "");
  EXPECT_EQ(MeetIn("Softmax", {}, 9), "") << "before opset 13 what lies behind axis 1 is one row";
  EXPECT_THAT(MeetIn("Softmax", {{"axis", int64_t{0}}}, 9), HasSubstr("Softmax"));
}

TEST(WhereRowsMeet, WhereRowsAreChosen) {
  EXPECT_THAT(Meet([](GraphBuilder& b, ValueId x) {
                return b.Op("Slice", {x, b.IntList({0}), b.IntList({1}), b.IntList({0})});
              }),
              HasSubstr("Slice"));
  EXPECT_EQ(Meet([](GraphBuilder& b, ValueId x) {
              return b.Op("Slice", {x, b.IntList({0, 1}), b.IntList({INT64_MAX, 3})});
            }),
            "");
  EXPECT_THAT(Meet([](GraphBuilder& b, ValueId x) {
                return b.Op("Gather", {x, b.Op("Constant", {}, {{"value_ints", Ints{0, 0}}})});
              }),
              HasSubstr("Gather"));
  EXPECT_THAT(Meet([](GraphBuilder& b, ValueId x) {
                return b.Op("Concat", {x, x}, {{"axis", int64_t{0}}});
              }),
              HasSubstr("Concat"));
}

TEST(WhereRowsMeet, WhereTheyAreNormalizedTogether) {
  const auto batch_norm = [](GraphBuilder& b, ValueId x, int64_t training) {
    return b.Ops("BatchNormalization",
                 {x, b.Random({4}), b.Random({4}), b.Random({4}), b.Random({4}, 0.5F, 1.0F)},
                 training != 0 ? size_t{3} : size_t{1}, {{"training_mode", training}})[0];
  };
  EXPECT_THAT(Meet([&](GraphBuilder& b, ValueId x) { return batch_norm(b, x, 1); },
                   {kUnknownDim, 4, 6}, 15),
              HasSubstr("BatchNormalization"));
  EXPECT_EQ(Meet([&](GraphBuilder& b, ValueId x) { return batch_norm(b, x, 0); },
                 {kUnknownDim, 4, 6}, 15),
            "");
  const auto mean_variance = [](GraphBuilder::Attrs attributes) {
    return Meet(
        [&](GraphBuilder& b, ValueId x) {
          return b.Op("MeanVarianceNormalization", {x}, std::move(attributes));
        },
        {kUnknownDim, 4, 6, 6});
  };
  EXPECT_THAT(mean_variance({}), HasSubstr("MeanVarianceNormalization")) << "over axes 0, 2, 3";
  EXPECT_THAT(mean_variance({{"axes", Ints{-4}}}), HasSubstr("MeanVarianceNormalization"));
  EXPECT_EQ(mean_variance({{"axes", Ints{2, 3}}}), "");
}

TEST(WhereRowsMeet, WhereElementsAreChosenOrTurnedAlongTheirAxis) {
  const auto gathered = [](int64_t axis) {
    return Meet([&](GraphBuilder& b, ValueId x) {
      return b.Op("GatherElements", {x, b.Op("Cast", {x}, {{"to", int64_t{7}}})}, {{"axis", axis}});
    });
  };
  EXPECT_THAT(gathered(0), HasSubstr("GatherElements"));
  EXPECT_EQ(gathered(2), "");
  const auto turned = [](int64_t time, int64_t batch) {
    return Meet([&](GraphBuilder& b, ValueId x) {
      return b.Op("ReverseSequence", {x, b.IntList(batch == 0 ? Ints{3} : Ints{1, 1, 1, 1})},
                  {{"time_axis", time}, {"batch_axis", batch}});
    });
  };
  EXPECT_THAT(turned(0, 1), HasSubstr("ReverseSequence"));
  EXPECT_EQ(turned(1, 0), "");
}

// The place of a maximum is one in the whole batch: that of the third request would be counted from the first one on.
TEST(WhereRowsMeet, WhereAnOutputHoldsPlacesInTheBatch) {
  const auto pooled = [](bool places) {
    return Meet(
        [&](GraphBuilder& b, ValueId x) {
          const auto made = b.Ops("MaxPool", {x}, 2, {{"kernel_shape", Ints{2, 2}}});
          const ValueId moved = b.Op("Cast", {b.Op("Flatten", {made[1]})}, {{"to", int64_t{1}}});
          return places ? moved : made[0];
        },
        {kUnknownDim, 2, 4, 4});
  };
  EXPECT_THAT(pooled(true), HasSubstr("output 'y', whose places"));
  EXPECT_EQ(pooled(false), "");
  EXPECT_EQ(Meet(
                [](GraphBuilder& b, ValueId x) {
                  const auto made = b.Ops("MaxPool", {x}, 2,
                                          {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
                  return b.Op("MaxUnpool", {made[0], made[1]},
                              {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
                },
                {kUnknownDim, 2, 4, 4}),
            "")
      << "which reads them as they are meant";
}

TEST(WhereRowsMeet, WhereTheyAreComputedWithHowManyThereAre) {
  // x over an extent of x, which is chosen in one way or another.
  const auto over = [](const auto& extent) {
    return Meet([&](GraphBuilder& b, ValueId x) {
      const ValueId count = b.Op("Cast", {extent(b, x)}, {{"to", int64_t{1}}});
      return b.Op("Div", {x, b.Op("Sqrt", {count})});
    });
  };
  const auto gathered = [&](int64_t index) {
    return over([&](GraphBuilder& b, ValueId x) {
      return b.Op("Gather", {b.Op("Shape", {x}), b.Scalar(index)});
    });
  };
  const auto sliced = [&](int64_t begin) {
    return over([&](GraphBuilder& b, ValueId x) {
      return b.Op("Slice", {b.Op("Shape", {x}), b.IntList({begin}), b.IntList({begin + 1})});
    });
  };
  for (const int64_t theirs : {0, -3}) EXPECT_THAT(gathered(theirs), HasSubstr("Div"));
  for (const int64_t other : {1, 2, -1, -2}) EXPECT_EQ(gathered(other), "");
  EXPECT_THAT(sliced(0), HasSubstr("Div"));
  EXPECT_EQ(sliced(1), "");
  EXPECT_THAT(over([](GraphBuilder& b, ValueId x) { return b.Op("Size", {x}); }), HasSubstr("Div"));
  EXPECT_THAT(over([](GraphBuilder& b, ValueId x) {
                return b.Op("ReduceProd", {b.Op("Shape", {x})}, {{"keepdims", int64_t{0}}});
              }),
              HasSubstr("Div"));
  // As many rows of zeros as there are samples.
  EXPECT_EQ(Meet([](GraphBuilder& b, ValueId x) {
              return b.Op("Add", {x, b.Op("ConstantOfShape", {b.Op("Shape", {x})})});
            }),
            "");
}

TEST(WhereRowsMeet, WhereProductsAddUpOverThemOrPairThem) {
  const auto turned = [](GraphBuilder& b, ValueId x) {
    return b.Op("Transpose", {x}, {{"perm", Ints{1, 0}}});
  };
  const Shape shape{kUnknownDim, 6};
  EXPECT_THAT(
      Meet([&](GraphBuilder& b, ValueId x) { return b.Op("MatMul", {turned(b, x), x}); }, shape),
      HasSubstr("MatMul"));
  EXPECT_THAT(
      Meet([&](GraphBuilder& b, ValueId x) { return b.Op("MatMul", {x, turned(b, x)}); }, shape),
      HasSubstr("MatMul"));
  EXPECT_THAT(Meet([](GraphBuilder& b,
                      ValueId x) { return b.Op("Gemm", {x, x}, {{"transB", int64_t{1}}}); },
                   shape),
              HasSubstr("Gemm"));
  EXPECT_THAT(Meet(
                  [](GraphBuilder& b, ValueId x) {
                    const ValueId column = b.Op("Unsqueeze", {x, b.IntList({1})});
                    return b.Op("Sub", {column, b.Op("Unsqueeze", {x, b.IntList({0})})});
                  },
                  {kUnknownDim}),
              HasSubstr("Sub"))
      << "every pair";
}

TEST(WhereRowsMeet, InTheStepsOfARecurrentNetwork) {
  const auto lstm = [](GraphBuilder& b, ValueId x) {
    return b.Ops("LSTM", {x, b.Random({1, 16, 6}), b.Random({1, 16, 4})}, 3,
                 {{"hidden_size", int64_t{4}}});
  };
  EXPECT_THAT(Meet([&](GraphBuilder& b, ValueId x) { return lstm(b, x)[0]; }, {kUnknownDim, 1, 6}),
              HasSubstr("LSTM"));
  EXPECT_EQ(Meet(
                [&](GraphBuilder& b, ValueId x) {
                  const ValueId steps = b.Op("Transpose", {x}, {{"perm", Ints{1, 0, 2}}});
                  return b.Op("Squeeze", {lstm(b, steps)[1], b.IntList({0})});
                },
                {kUnknownDim, 3, 6}),
            "");
}

TEST(WhereRowsMeet, WhereAnOutputHasThemAlongAnotherAxis) {
  EXPECT_THAT(Meet([](GraphBuilder& b, ValueId x) {
                return b.Op("Transpose", {x}, {{"perm", Ints{1, 0, 2}}});
              }),
              HasSubstr("output 'y'"));
}

TEST(WhereRowsMeet, IsNotSaidWhereTheAxisIsLost) {
  EXPECT_EQ(Meet([](GraphBuilder& b, ValueId x) {
              const ValueId shape = b.Op("Shape", {x});
              return b.Op("Softmax", {b.Op("Reshape", {x, shape})}, {{"axis", int64_t{0}}});
            }),
            "");
}

TEST(WhereRowsMeet, DecidesWhatBatches) {
  GraphBuilder meets;
  meets.Output(meets.Op("Gather", {meets.Input("data", {kUnknownDim, 2}),
                                   meets.Input("indices", {kUnknownDim}, DType::kI64)}));
  const auto model = Model::FromGraph(meets.Build(), {});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_FALSE((*model)->signature().batches);
  EXPECT_THAT((*model)->signature().samples_meet_in, HasSubstr("Gather"));
}

}  // namespace row_mixing_test
}  // namespace octet
