// com.microsoft's operators for which ONNX Runtime has no kernel on CPUs, held against the operators that they mean; and the errors of
// attention.
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"
#include "tests/support/one_node.h"

namespace octet {
namespace contrib_functions_test {

using ::testing::HasSubstr;
using Make = std::function<void(GraphBuilder&)>;

// Both draw the same random constants when they draw them in the same order. In place, by reference kernels, and optimised.
void ExpectSame(const Make& contrib, const Make& onnx, int opset = 17) {
  GraphBuilder first(opset);
  GraphBuilder second(opset);
  contrib(first);
  onnx(second);
  const Graph graph = first.Build();
  const Graph expected = second.Build();
  EXPECT_TRUE(SameAnswers(expected, graph));
  EXPECT_TRUE(SameAnswers(expected, AfterPass("expand_functions", graph)));
  EXPECT_TRUE(SameAnswers(expected, Optimised(graph), {.rtol = 1e-3F, .atol = 1e-4F}));
}

TEST(ContribFunctions, ExpandDims) {
  for (const int32_t axis : {0, 1, -1}) {
    ExpectSame(
        [&](GraphBuilder& b) {
          const ValueId x = b.Input("x", {2, 3});
          b.Output(b.Op("com.microsoft:ExpandDims", {x, b.Scalar<int32_t>(axis)}), "y");
        },
        [&](GraphBuilder& b) {
          const ValueId x = b.Input("x", {2, 3});
          b.Output(b.Op("Unsqueeze", {x, b.IntList({axis})}), "y");
        });
  }
}

TEST(ContribFunctions, NhwcConv) {
  const GraphBuilder::Attrs attributes = {{"pads", Ints{1, 1, 0, 0}}, {"strides", Ints{2, 1}}};
  ExpectSame(
      [&](GraphBuilder& b) {
        const ValueId x = b.Input("x", {2, 6, 5, 3});
        b.Output(
            b.Op("com.microsoft:NhwcConv", {x, b.Random({4, 3, 3, 3}), b.Random({4})}, attributes),
            "y");
      },
      [&](GraphBuilder& b) {
        const ValueId x =
            b.Op("Transpose", {b.Input("x", {2, 6, 5, 3})}, {{"perm", Ints{0, 3, 1, 2}}});
        const ValueId y = b.Op("Conv", {x, b.Random({4, 3, 3, 3}), b.Random({4})}, attributes);
        b.Output(b.Op("Transpose", {y}, {{"perm", Ints{0, 2, 3, 1}}}), "y");
      });
}

// GroupNormalization of opset 21 has one scale per channel, as com.microsoft's has.
TEST(ContribFunctions, GroupNorm) {
  for (const int64_t last : {0, 1}) {
    for (const int64_t activation : {0, 1}) {
      const Shape shape = last != 0 ? Shape{2, 3, 4, 6} : Shape{2, 6, 3, 4};
      ExpectSame(
          [&](GraphBuilder& b) {
            const ValueId x = b.Input("x", shape);
            b.Output(
                b.Op("com.microsoft:GroupNorm", {x, b.Random({6}), b.Random({6})},
                     {{"groups", int64_t{3}}, {"activation", activation}, {"channels_last", last}}),
                "y");
          },
          [&](GraphBuilder& b) {
            ValueId x = b.Input("x", shape);
            if (last != 0) x = b.Op("Transpose", {x}, {{"perm", Ints{0, 3, 1, 2}}});
            ValueId y = b.Op("GroupNormalization", {x, b.Random({6}), b.Random({6})},
                             {{"num_groups", int64_t{3}}});
            if (activation != 0) y = b.Op("Mul", {y, b.Op("Sigmoid", {y})});
            if (last != 0) y = b.Op("Transpose", {y}, {{"perm", Ints{0, 2, 3, 1}}});
            b.Output(y, "y");
          },
          21);
    }
  }
}

TEST(ContribFunctions, SkipGroupNormIsGroupNormOfTheSum) {
  const GraphBuilder::Attrs attributes = {{"groups", int64_t{2}}, {"activation", int64_t{0}}};
  for (const Shape& skip : {Shape{2, 3, 4, 6}, Shape{2, 1, 1, 6}, Shape{2, 6}}) {
    ExpectSame(
        [&](GraphBuilder& b) {
          const ValueId x = b.Input("x", {2, 3, 4, 6});
          const auto y = b.Ops("com.microsoft:SkipGroupNorm",
                               {x, b.Random({6}), b.Random({6}), b.Random(skip), b.Random({6})}, 2,
                               attributes);
          b.Output(y[0], "y");
          b.Output(y[1], "s");
        },
        [&](GraphBuilder& b) {
          const ValueId x = b.Input("x", {2, 3, 4, 6});
          const ValueId gamma = b.Random({6});
          const ValueId beta = b.Random({6});
          ValueId added = b.Random(skip);
          const ValueId bias = b.Random({6});
          if (skip.rank() == 2) added = b.Op("Unsqueeze", {added, b.IntList({1, 2})});
          const ValueId sum = b.Op("Add", {b.Op("Add", {x, added}), bias});
          b.Output(b.Op("com.microsoft:GroupNorm", {sum, gamma, beta}, attributes), "y");
          b.Output(sum, "s");
        });
  }
}

TEST(ContribFunctions, BiasAddAndBiasSplitGelu) {
  ExpectSame(
      [](GraphBuilder& b) {
        const ValueId x = b.Input("x", {2, 3, 8});
        const ValueId sum = b.Op("com.microsoft:BiasAdd", {x, b.Random({8}), b.Random({2, 3, 8})});
        b.Output(b.Op("com.microsoft:BiasSplitGelu", {sum, b.Random({8})}), "y");
      },
      [](GraphBuilder& b) {
        const ValueId x = b.Input("x", {2, 3, 8});
        ValueId sum = b.Op("Add", {x, b.Random({8})});
        sum = b.Op("Add", {b.Op("Add", {sum, b.Random({2, 3, 8})}), b.Random({8})});
        const auto halves = b.Ops("Split", {sum, b.IntList({4, 4})}, 2, {{"axis", int64_t{-1}}});
        b.Output(b.Op("Mul", {halves[0], b.Op("com.microsoft:Gelu", {halves[1]})}), "y");
      });
}

// A mask [B, 1, M, M] has a row for each position; the first query stands behind the past.
TEST(ContribFunctions, AMaskOfRank4IsTheRowsOfOneOfRank3) {
  const auto attention = [](GraphBuilder& b, bool rank4) {
    const ValueId x = b.Input("x", {1, 3, 8});
    const ValueId past = b.Input("past", {2, 1, 2, 2, 4});
    std::vector<int32_t> keep;
    for (int row = 0; row < 7; ++row) {
      for (int column = 0; column < 7; ++column) {
        const bool given = rank4 || (row >= 2 && row < 5 && column < 5);
        if (given) keep.push_back((row * 3 + column) % 4 != 0 ? 1 : 0);
      }
    }
    const ValueId mask = b.Constant<int32_t>(rank4 ? Shape{1, 1, 7, 7} : Shape{1, 3, 5}, keep);
    const auto y =
        b.Ops("com.microsoft:Attention", {x, b.Random({8, 24}), b.Random({24}), mask, past}, 2,
              {{"num_heads", int64_t{2}}});
    b.Output(y[0], "y");
    b.Output(y[1], "present");
  };
  ExpectSame([&](GraphBuilder& b) { attention(b, true); },
             [&](GraphBuilder& b) { attention(b, false); });
}

std::string ErrorOf(const testing::OneNode& node) {
  const absl::Status status = node.Infer().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(Message(status));
}

testing::OneNode GroupQuery(int64_t batch, int64_t rows, int64_t room, int32_t total) {
  testing::OneNode node("GroupQueryAttention", 1, kMicrosoftDomain);
  node.Spec(DType::kF32, Shape{batch, rows, 32}).Spec(DType::kF32, Shape{batch, rows, 16});
  node.Spec(DType::kF32, Shape{batch, rows, 16}).Spec(DType::kF32, Shape{batch, 2, room, 8});
  node.Spec(DType::kF32, Shape{batch, 2, room, 8}).Spec(DType::kI32, Shape{batch});
  node.Constant(Tensor::Scalar<int32_t>(total)).Outputs(3);
  return node.Set("num_heads", int64_t{4}).Set("kv_num_heads", int64_t{2});
}

TEST(ContribFunctions, GroupQueryAttentionSaysWhatIsWrong) {
  EXPECT_TRUE(GroupQuery(2, 1, 8, 9).Infer().ok());
  EXPECT_THAT(ErrorOf(GroupQuery(2, 1, 8, 10)),
              HasSubstr("'total_sequence_length' is 10, with 1 new positions and 8 past ones"));
  EXPECT_THAT(ErrorOf(GroupQuery(1, 3, 8, 2)), HasSubstr("'total_sequence_length' is 2"));
  EXPECT_THAT(ErrorOf(GroupQuery(1, 1, 8, std::numeric_limits<int32_t>::max())),
              HasSubstr("'total_sequence_length' is 2147483647"));
  EXPECT_THAT(ErrorOf(GroupQuery(2, 3, 8, 9)),
              HasSubstr("2 sequences go on with 3 positions each: only a batch of 1 does"));
  EXPECT_THAT(ErrorOf(GroupQuery(1, 1, 8, 9).Set("kv_num_heads", int64_t{3})),
              HasSubstr("'num_heads' 4 is no multiple of 'kv_num_heads' 3"));
  EXPECT_THAT(ErrorOf(GroupQuery(1, 1, 8, 9).Set("do_rotary", int64_t{1})),
              HasSubstr("'do_rotary' asks for 'cos_cache' and 'sin_cache'"));
}

// Of a new position without a place in the past nothing would be seen.
TEST(ContribFunctions, GroupQueryAttentionRefusesLengthsOutsideThePast) {
  const auto answer = [](bool rotary, int32_t first, int32_t second) {
    testing::OneNode node("GroupQueryAttention", 1, kMicrosoftDomain);
    node.Input(testing::Iota<float>(Shape{2, 1, 32})).Input(testing::Iota<float>(Shape{2, 1, 16}));
    node.Input(testing::Iota<float>(Shape{2, 1, 16}));
    node.Input(testing::Iota<float>(Shape{2, 2, 4, 8}));
    node.Input(testing::Iota<float>(Shape{2, 2, 4, 8}));
    node.Input(Tensor::From<int32_t>(Shape{2}, {first, second}));
    node.Constant(Tensor::Scalar<int32_t>(4)).Outputs(3);
    node.Set("num_heads", int64_t{4}).Set("kv_num_heads", int64_t{2});
    if (rotary) {
      node.Input(testing::Iota<float>(Shape{128, 4})).Input(testing::Iota<float>(Shape{128, 4}));
      node.Set("do_rotary", int64_t{1});
    }
    return node.Run().status();
  };
  for (const bool rotary : {false, true}) {
    EXPECT_TRUE(answer(rotary, 3, 0).ok()) << answer(rotary, 3, 0);
    EXPECT_TRUE(answer(rotary, 3, -1).ok()) << "a row that fills up the batch";
    for (const auto& [first, second] : std::vector<std::pair<int32_t, int32_t>>{
             {100, -5}, {INT32_MIN, 3}, {4, 3}, {3, 4}, {-2, 3}, {3, -4}}) {
      const absl::Status refused = answer(rotary, first, second);
      EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << first << " " << second;
      EXPECT_THAT(
          std::string(Message(refused)),
          HasSubstr(Format("Gather 'tested/seqlens_k' (opset 13): index {} is outside [-4, 4)",
                           first == 3 ? 1 : 0)));
    }
  }
}

}  // namespace contrib_functions_test
}  // namespace octet
