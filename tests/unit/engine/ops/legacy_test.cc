// Operators in the form that opsets 1 to 6 gave them.
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/one_node.h"

namespace octet::testing {
namespace legacy_test {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

template <typename T>
std::vector<T> AnswerOf(const OneNode& node) {
  const auto outputs = node.Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? Elements<T>(outputs->front()) : std::vector<T>{};
}

std::string ErrorOf(const OneNode& node) {
  const auto graph = node.Infer();
  EXPECT_FALSE(graph.ok());
  return std::string(Message(graph.status()));
}

Tensor Floats(Shape shape, std::vector<float> values) {
  return Tensor::From<float>(std::move(shape), std::span<const float>(values));
}

TEST(Legacy, BroadcastsFromAnAxisOn) {
  const auto add = [](int64_t axis, Tensor b) {
    return AnswerOf<float>(OneNode("Add", 6)
                               .Input(Floats({2, 3, 1}, {0, 0, 0, 0, 0, 0}))
                               .Input(std::move(b))
                               .Set("broadcast", int64_t{1})
                               .Set("axis", axis));
  };
  EXPECT_THAT(add(1, Floats({3}, {1, 2, 3})), ElementsAre(1, 2, 3, 1, 2, 3));
  EXPECT_THAT(add(0, Floats({2}, {1, 2})), ElementsAre(1, 1, 1, 2, 2, 2));
  EXPECT_THAT(add(0, Floats({2, 3}, {1, 2, 3, 4, 5, 6})), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(add(-2, Floats({3}, {1, 2, 3})), ElementsAre(1, 2, 3, 1, 2, 3));
}

TEST(Legacy, BroadcastsFromTheLastAxisWithoutOne) {
  EXPECT_THAT(AnswerOf<float>(OneNode("Mul", 1)
                                  .Input(Floats({2, 2}, {1, 2, 3, 4}))
                                  .Input(Floats({2}, {10, 100}))
                                  .Set("broadcast", int64_t{1})
                                  .Set("consumed_inputs", std::vector<int64_t>{0, 0})),
              ElementsAre(10, 200, 30, 400));
}

TEST(Legacy, ComparesWithBroadcast) {
  EXPECT_THAT(AnswerOf<bool>(OneNode("Greater", 1)
                                 .Input(Floats({2, 2}, {1, 2, 3, 4}))
                                 .Input(Floats({2}, {1, 3}))
                                 .Set("broadcast", int64_t{1})
                                 .Set("axis", int64_t{0})),
              ElementsAre(false, true, false, true));
}

TEST(Legacy, RefusesAnAxisWithoutRoom) {
  EXPECT_THAT(ErrorOf(OneNode("Add", 6)
                          .Input(Iota<float>({2, 3}))
                          .Input(Iota<float>({2, 3}))
                          .Set("broadcast", int64_t{1})
                          .Set("axis", int64_t{1})),
              HasSubstr("Add 'tested' (opset 6): input of rank 2 does not fit at 'axis' = 1"));
  EXPECT_THAT(ErrorOf(OneNode("Add", 6).Input(Iota<float>({2}))), HasSubstr("expected 2 to 2"));
}

TEST(Legacy, RefusesOutputsThatTheOperatorLacks) {
  EXPECT_THAT(ErrorOf(OneNode("Sub", 6).Input(Iota<float>({2})).Input(Iota<float>({2})).Outputs(2)),
              HasSubstr("the operator has 1 outputs, not 2"));
}

TEST(Legacy, WaitsForRanks) {
  OneNode node("Less", 6);
  node.Spec(DType::kF32, std::nullopt).Spec(DType::kF32, Shape{3});
  node.Set("broadcast", int64_t{1}).Set("axis", int64_t{1});
  EXPECT_EQ(node.InferredShape(), "unknown");
  const auto graph = node.Infer();
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ(graph->value(graph->outputs[0]).dtype, DType::kBool);
}

TEST(Legacy, PReluHasASlopePerChannel) {
  EXPECT_THAT(AnswerOf<float>(OneNode("PRelu", 6)
                                  .Input(Floats({1, 2, 2}, {-1, 1, -1, -2}))
                                  .Input(Floats({2}, {0.5F, 0.25F}))),
              ElementsAre(-0.5F, 1, -0.25F, -0.5F));
  EXPECT_THAT(
      AnswerOf<float>(OneNode("PRelu", 1).Input(Floats({2}, {-1, 1})).Input(Floats({1}, {0.5F}))),
      ElementsAre(-0.5F, 1));
}

TEST(Legacy, GemmBroadcastsC) {
  EXPECT_THAT(AnswerOf<float>(OneNode("Gemm", 6)
                                  .Input(Floats({1, 2}, {1, 2}))
                                  .Input(Floats({2, 2}, {1, 0, 0, 1}))
                                  .Input(Floats({2}, {10, 20}))
                                  .Set("broadcast", int64_t{1})),
              ElementsAre(11, 22));
}

OneNode BatchNorm() {
  OneNode node("BatchNormalization", 6);
  node.Input(Floats({1, 1, 2}, {1, 3}));
  for (const float value : {2.0F, 1.0F, 1.0F, 1.0F}) node.Input(Floats({1}, {value}));
  return node.Set("epsilon", 0.0F);
}

TEST(Legacy, BatchNormalizationAndDropoutAreInference) {
  EXPECT_THAT(AnswerOf<float>(BatchNorm().Set("is_test", int64_t{1})), ElementsAre(1, 5));
  EXPECT_THAT(AnswerOf<float>(BatchNorm()), ElementsAre(1, 5));
  EXPECT_THAT(ErrorOf(BatchNorm().Set("is_test", int64_t{0})),
              HasSubstr("unsupported attribute 'is_test' = 0"));
  EXPECT_THAT(ErrorOf(BatchNorm().Outputs(3)), HasSubstr("unsupported outputs of training"));
  EXPECT_THAT(AnswerOf<float>(OneNode("Dropout", 1)
                                  .Input(Floats({2}, {1, 2}))
                                  .Set("is_test", int64_t{1})
                                  .Set("ratio", 0.9F)),
              ElementsAre(1, 2));
}

TEST(Legacy, DropoutsMaskIsOfItsDatasTypeBeforeOpset10) {
  const auto mask_of = [](OneNode node) {
    const auto outputs = node.Input(Floats({2}, {1, 2})).Outputs(2).Run();
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return outputs.ok() ? (*outputs)[1] : Tensor();
  };
  for (const int opset : {7, 9}) {
    const Tensor mask = mask_of(OneNode("Dropout", opset));
    ASSERT_EQ(mask.dtype(), DType::kF32);
    EXPECT_THAT(Elements<float>(mask), ElementsAre(1, 1));
  }
  const Tensor mask = mask_of(OneNode("Dropout", 10));
  ASSERT_EQ(mask.dtype(), DType::kBool);
  EXPECT_THAT(Elements<bool>(mask), ElementsAre(true, true));
}

TEST(Legacy, CastNamesItsType) {
  const auto cast = [](std::string to) {
    return OneNode("Cast", 1).Input(Floats({2}, {1.5F, -2})).Set("to", std::move(to));
  };
  EXPECT_THAT(AnswerOf<int32_t>(cast("INT32")), ElementsAre(1, -2));
  EXPECT_THAT(AnswerOf<int64_t>(cast("INT64")), ElementsAre(1, -2));
  EXPECT_THAT(ErrorOf(cast("STRING")), HasSubstr("unsupported element type 'STRING'"));
  EXPECT_THAT(ErrorOf(cast("")), HasSubstr("unsupported element type ''"));
}

TEST(Legacy, AttributesBecomeInputsAndDefaults) {
  EXPECT_EQ(OneNode("Reshape", 1)
                .Input(Iota<float>({2, 6}))
                .Set("shape", std::vector<int64_t>{0, 3, -1})
                .InferredShape(),
            "[2,3,2]");
  EXPECT_EQ(
      OneNode("Concat", 1).Input(Iota<float>({2, 1})).Input(Iota<float>({2, 2})).InferredShape(),
      "[2,3]");
  EXPECT_EQ(OneNode("Pad", 1)
                .Input(Iota<float>({2, 2}))
                .Set("paddings", std::vector<int64_t>{0, 1, 2, 3})
                .InferredShape(),
            "[4,6]");
  EXPECT_EQ(OneNode("Upsample", 1)
                .Input(Iota<float>({1, 1, 2, 2}))
                .Set("height_scale", 2.0F)
                .Set("width_scale", 3.0F)
                .InferredShape(),
            "[1,1,4,6]");
  EXPECT_EQ(OneNode("Split", 1)
                .Input(Iota<float>({4}))
                .Constant(Floats({2}, {1, 3}))
                .Outputs(2)
                .InferredShape(1),
            "[3]");
  EXPECT_THAT(ErrorOf(OneNode("Split", 1).Input(Iota<float>({4})).Input(Floats({2}, {1, 3}))),
              HasSubstr("'split' that is no constant"));
}

TEST(Legacy, SeluHasShorterDefaults) {
  EXPECT_THAT(AnswerOf<float>(OneNode("Selu", 1).Input(Floats({1}, {2}))),
              Pointwise(FloatNear(1e-7F), {2 * 1.0507F}));
}

TEST(Legacy, NormsTakeAFloat) {
  const auto pool = [](float p) {
    return OneNode("GlobalLpPool", 1).Input(Floats({1, 1, 2}, {3, 4})).Set("p", p);
  };
  EXPECT_THAT(AnswerOf<float>(pool(2)), ElementsAre(5));
  EXPECT_THAT(ErrorOf(pool(1.5F)), HasSubstr("unsupported attribute 'p' = 1.5"));
}

}  // namespace legacy_test
}  // namespace octet::testing
