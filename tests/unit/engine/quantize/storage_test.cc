// fp16 and bf16 variants: weights in half the bytes, everything else as it was.
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/onnx/onnx_file.h"
#include "engine/ops/op.h"
#include "engine/quantize/quantizer.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace storage_test {

QuantizeResult Stored(const Graph& graph, Precision to) {
  auto result = Quantize(graph, {.to = to}, {}, {});
  if (!result.ok()) {
    ADD_FAILURE() << result.status();
    return {};
  }
  return *std::move(result);
}

Graph Product(float weight) {
  GraphBuilder b;
  const ValueId w = b.Constant<float>({2, 2}, {1, weight, -0.5F, 3});
  b.Output(b.Op("Mul", {b.Op("MatMul", {b.Input("x", {3, 2}), w}), b.Scalar(2.0F)}));
  return b.Build();
}

TEST(StoredWeights, SitBehindACast) {
  for (const auto& [to, dtype] :
       {std::pair{Precision::kFp16, DType::kF16}, std::pair{Precision::kBf16, DType::kBF16}}) {
    const QuantizeResult result = Stored(Product(1.5F), to);
    EXPECT_THAT(result.graph, HasOps({"Cast", "MatMul", "Mul"}));
    EXPECT_EQ(result.graph.value(TheOnly(result.graph, "Cast").inputs[0]).dtype, dtype);
    EXPECT_EQ(result.graph.metadata.at("octet.precision"), PrecisionName(to));
    EXPECT_EQ(result.records.size(), 1U) << "a scalar is no weight";
  }
}

TEST(StoredWeights, RoundHalfToEvenInTheirType) {
  // 1 + 2^-11 lies between two halves, 1 + 2^-8 between two bfloats: both go to 1, the even one.
  for (const auto& [to, weight] :
       {std::pair{Precision::kFp16, 1 + 0x1p-11F}, std::pair{Precision::kBf16, 1 + 0x1p-8F}}) {
    EXPECT_TRUE(SameAnswers(Product(1), Stored(Product(weight), to).graph, {.rtol = 0, .atol = 0}));
  }
}

TEST(StoredWeights, ThatWouldBeInfiniteAreKept) {
  constexpr float kLowest = std::numeric_limits<float>::lowest();  // What masks add.
  for (const auto& [to, largest, overflows] :
       {std::tuple{Precision::kFp16, 65519.9F, 65520.0F},
        std::tuple{Precision::kBf16, 0x1.FEFFFEp127F, 0x1.FFp127F}}) {
    SCOPED_TRACE(PrecisionName(to));
    EXPECT_THAT(Stored(Product(-largest), to).graph, HasExactly(1, "Cast"));
    for (const float weight : {overflows, -overflows, kLowest}) {
      const QuantizeResult result = Stored(Product(weight), to);
      EXPECT_THAT(result.graph, HasNo("Cast"));
      ASSERT_EQ(result.records.size(), 1U);
      EXPECT_EQ(result.records[0].what, "kept");
      EXPECT_THAT(result.records[0].detail, ::testing::HasSubstr("infinite"));
    }
  }
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_THAT(Stored(Product(kInfinity), Precision::kBf16).graph, HasExactly(1, "Cast"));
}

TEST(StoredWeights, ThatVanishAreKeptWhereTheyDivide) {
  const auto with = [](std::string_view op, float least) {
    GraphBuilder b;
    b.Output(b.Op(op, {b.Input("x", {3, 2}), b.Constant<float>({2}, {1, least})}));
    return b.Build();
  };
  const Graph vanishing = with("Div", 0x1p-25F);
  EXPECT_THAT(Stored(vanishing, Precision::kFp16).graph, HasNo("Cast"));
  EXPECT_TRUE(SameAnswers(vanishing, Stored(vanishing, Precision::kFp16).graph));
  EXPECT_THAT(Stored(with("Div", 0x1.8p-25F), Precision::kFp16).graph, HasExactly(1, "Cast"));
  EXPECT_THAT(Stored(with("Mul", 0x1p-25F), Precision::kFp16).graph, HasExactly(1, "Cast"));
  EXPECT_THAT(Stored(vanishing, Precision::kBf16).graph, HasExactly(1, "Cast"));
}

std::vector<std::string> Kept(const QuantizeResult& result) {
  std::vector<std::string> details;
  for (const QuantizeRecord& record : result.records) {
    if (record.what == "kept") details.push_back(record.detail);
  }
  return details;
}

TEST(StoredWeights, OfWhichShapesFollowAreKept) {
  for (const float scale : {1.0F / 3, 0.9F}) {
    GraphBuilder b;
    const ValueId x = b.Op("Conv", {b.Input("x", {1, 2, 30, 30}), b.Random({3, 2, 1, 1})});
    b.Output(b.Op("Resize", {x, kNone, b.Constant<float>({4}, {1, 1, scale, scale})},
                  {{"mode", std::string("nearest")}}));
    const Graph fp32 = b.Build();
    for (const Precision to : {Precision::kFp16, Precision::kBf16}) {
      SCOPED_TRACE(PrecisionName(to));
      QuantizeResult result = Stored(fp32, to);
      EXPECT_THAT(Kept(result), ::testing::ElementsAre("fp32: shapes depend on it"));
      EXPECT_EQ(result.records.size(), 2U) << "the weights of the convolution are stored";
      ASSERT_TRUE(InferShapes(result.graph).ok());
      EXPECT_EQ(result.graph.value(result.graph.outputs[0]).shape,
                fp32.value(fp32.outputs[0]).shape);
    }
  }
}

// Extents times a factor, as exporters write them.
TEST(StoredWeights, OfWhichShapesAreComputedAreKept) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 2, 30, 30});
  const ValueId y = b.Op("Conv", {x, b.Random({3, 2, 1, 1})});
  const ValueId extents = b.Op("Cast", {b.Op("Shape", {y})}, {{"to", int64_t{1}}});
  const ValueId product = b.Op("Mul", {extents, b.Constant<float>({4}, {1, 1, 0.9F, 0.9F})});
  const ValueId sizes = b.Op("Cast", {b.Op("Floor", {product})}, {{"to", int64_t{7}}});
  b.Output(b.Op("Resize", {y, kNone, kNone, sizes}, {{"mode", std::string("nearest")}}));
  const QuantizeResult result = Stored(b.Build(), Precision::kBf16);
  EXPECT_THAT(Kept(result), ::testing::ElementsAre("fp32: shapes depend on it"));
  EXPECT_EQ(result.records.size(), 2U) << "the weights of the convolution are stored";
}

// Where an image is cut; what a shape takes from the data is known no earlier, whatever weights went into it.
TEST(StoredWeights, OfWhichPositionsFollowAreKeptAndWhatTheDataDecideIsNot) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 1, 8, 8});
  const ValueId cut = b.Op("Resize",
                           {x, b.Constant<float>({8}, {0, 0, 0.1F, 0.1F, 1, 1, 0.7F, 0.7F}), kNone,
                            b.IntList({1, 1, 5, 5})},
                           {{"coordinate_transformation_mode", std::string("tf_crop_and_resize")}});
  const ValueId scores = b.Op("MatMul", {b.Op("Flatten", {cut}), b.Random({25, 2})});
  const ValueId best = b.Op("ArgMax", {scores}, {{"axis", int64_t{1}}, {"keepdims", int64_t{0}}});
  b.Output(b.Op("Slice", {scores, b.IntList({0}), best, b.IntList({1})}));
  const QuantizeResult result = Stored(b.Build(), Precision::kFp16);
  EXPECT_THAT(Kept(result), ::testing::ElementsAre("fp32: positions depend on it"));
  EXPECT_EQ(result.records.size(), 2U) << "the weights of the product are stored";
}

// sin(position * frequency): the frequencies alone are kept, of which there are few.
TEST(StoredWeights, OfWhichAnglesFollowAreKept) {
  for (const int64_t frequencies : {32, 2048}) {
    GraphBuilder b;
    const ValueId position = b.Input("position", {1, 3, 1});
    const ValueId angles = b.Op("Mul", {position, b.Random({1, frequencies})});
    const ValueId both = b.Op("Concat", {angles, angles}, {{"axis", int64_t{-1}}});
    const ValueId shifted = b.Op("MatMul", {b.Op("Relu", {position}), b.Random({1, 4})});
    b.Output(b.Op("Cos", {both}));
    b.Output(shifted);
    const Graph fp32 = b.Build();
    for (const Precision to : {Precision::kFp16, Precision::kBf16}) {
      SCOPED_TRACE(PrecisionName(to));
      const QuantizeResult result = Stored(fp32, to);
      EXPECT_EQ(result.records.size(), 2U);
      EXPECT_EQ(Kept(result), frequencies == 32
                                  ? std::vector<std::string>{"fp32: angles depend on it"}
                                  : std::vector<std::string>());
    }
  }
}

TEST(StoredWeights, TakeHalfTheBytes) {
  GraphBuilder b;
  b.Output(b.Op("MatMul", {b.Input("x", {1, 256}), b.Random({256, 256})}));
  const Graph fp32 = b.Build();
  const size_t before = WriteOnnxBytes(fp32)->size();
  for (const Precision to : {Precision::kFp16, Precision::kBf16})
    EXPECT_LT(WriteOnnxBytes(Stored(fp32, to).graph)->size(), before * 51 / 100);
}

}  // namespace storage_test
}  // namespace octet
