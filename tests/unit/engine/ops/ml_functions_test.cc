// ai.onnx.ml's small operators, those that ONNX has no data for.
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/one_node.h"

namespace octet::testing {
namespace ml_functions_test {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::HasSubstr;
using ::testing::Pointwise;

using Floats = std::vector<float>;

OneNode Ml(std::string op) {
  OneNode node(std::move(op), 3, "ai.onnx.ml");
  node.Input(Tensor::From<float>(Shape{2, 2}, {3, -4, 0, 0}));
  return node;
}

Floats Answer(const OneNode& node) {
  const auto outputs = node.Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? Elements<float>(outputs->front()) : Floats{};
}

TEST(MlFunctions, Scaler) {
  EXPECT_THAT(Answer(Ml("Scaler").Set("offset", Floats{1, 2}).Set("scale", Floats{10, 100})),
              ElementsAre(20, -600, -10, -200));
  EXPECT_THAT(Answer(Ml("Scaler").Set("scale", Floats{2})), ElementsAre(6, -8, 0, 0));
  OneNode whole("Scaler", 1, "ai.onnx.ml");
  whole.Input(Tensor::From<int64_t>(Shape{1, 2}, {3, 5})).Set("offset", Floats{1});
  EXPECT_THAT(Answer(whole), ElementsAre(2, 4));
}

TEST(MlFunctions, Normalizer) {
  EXPECT_THAT(Answer(Ml("Normalizer").Set("norm", std::string("L1"))),
              Pointwise(FloatEq(), {3 / 7.0F, -4 / 7.0F, 0.0F, 0.0F}));
  EXPECT_THAT(Answer(Ml("Normalizer").Set("norm", std::string("L2"))),
              Pointwise(FloatEq(), {0.6F, -0.8F, 0.0F, 0.0F}));
  EXPECT_THAT(Answer(Ml("Normalizer")), Pointwise(FloatEq(), {1.0F, -4 / 3.0F, 0.0F, 0.0F}));
  EXPECT_THAT(Ml("Normalizer").Set("norm", std::string("L3")).InferredShape(), HasSubstr("'L3'"));
}

TEST(MlFunctions, LpNormalizationIsOnnxsNormalizer) {
  for (const int opset : {1, 7, 13, 22}) {
    SCOPED_TRACE(opset);
    OneNode node("LpNormalization", opset);
    node.Input(Tensor::From<float>(Shape{2, 2}, {3, -4, 0, 0}));
    EXPECT_THAT(Answer(node), Pointwise(FloatEq(), {0.6F, -0.8F, 0.0F, 0.0F}));
    node.Set("p", int64_t{1}).Set("axis", int64_t{0});
    EXPECT_THAT(Answer(node), Pointwise(FloatEq(), {1.0F, -1.0F, 0.0F, 0.0F}));
    EXPECT_THAT(node.Set("p", int64_t{3}).InferredShape(), HasSubstr("'p' must be 1 or 2, not 3"));
  }
  OneNode wide("LpNormalization", 13);
  wide.Input(Tensor::From<double>(Shape{2}, {3, -4}));
  const auto outputs = wide.Run();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Elements<double>(outputs->front()), ElementsAre(0.6, -0.8));
}

TEST(MlFunctions, LinearRegressor) {
  EXPECT_THAT(Answer(Ml("LinearRegressor")
                         .Set("targets", int64_t{2})
                         .Set("coefficients", Floats{1, 2, 3, 4})
                         .Set("intercepts", Floats{100, 200})),
              ElementsAre(95, 193, 100, 200));
  EXPECT_THAT(Ml("LinearRegressor")
                  .Set("targets", int64_t{3})
                  .Set("coefficients", Floats{1, 2})
                  .InferredShape(),
              HasSubstr("2 'coefficients' are not for 3 'targets'"));
  EXPECT_THAT(Ml("LinearRegressor")
                  .Set("coefficients", Floats{1, 2})
                  .Set("post_transform", std::string("SOFTMAX"))
                  .InferredShape(),
              HasSubstr("unsupported attribute 'post_transform' = 'SOFTMAX'"));
}

TEST(MlFunctions, BinarizerKeepsTheType) {
  OneNode node("Binarizer", 1, "ai.onnx.ml");
  node.Input(Tensor::From<int64_t>(Shape{3}, {-1, 2, 3})).Set("threshold", 2.0F);
  const auto outputs = node.Run();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Elements<int64_t>(outputs->front()), ElementsAre(0, 0, 1));
}

}  // namespace ml_functions_test
}  // namespace octet::testing
