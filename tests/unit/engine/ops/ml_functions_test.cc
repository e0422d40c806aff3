// ai.onnx.ml's small operators, those that ONNX has no data for.
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/strings.h"

namespace octet::testing {
namespace ml_functions_test {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::FloatNear;
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

// Three for one feature would be broadcast.
TEST(MlFunctions, ScalerRefusesAnotherNumberOfFeatures) {
  for (const char* name : {"offset", "scale"}) {
    OneNode node("Scaler", 1, "ai.onnx.ml");
    node.Spec(DType::kF32, Shape{2, 1}).Set(name, Floats{1, 2, 3});
    EXPECT_THAT(node.InferredShape(),
                HasSubstr(Format("'{}' has 3 elements for 1 features", name)));
    EXPECT_THAT(Ml("Scaler").Set(name, Floats{1, 2, 3}).InferredShape(),
                HasSubstr(Format("'{}' has 3 elements for 2 features", name)));
  }
}

// The model's constants say how many there are.
TEST(MlFunctions, ScalerAndImputerKnowTheirFeatures) {
  const std::optional<Shape> open = Shape{kUnknownDim, kUnknownDim};
  const auto shape_of = [](const char* op, const std::optional<Shape>& x, const char* name,
                           Floats values) {
    return OneNode(op, 1, "ai.onnx.ml").Spec(DType::kF32, x).Set(name, std::move(values));
  };
  EXPECT_EQ(shape_of("Scaler", open, "offset", {1, 2, 3}).InferredShape(), "[?,3]");
  EXPECT_EQ(shape_of("Scaler", open, "scale", {2}).InferredShape(), "[?,?]");
  EXPECT_EQ(shape_of("Scaler", std::nullopt, "offset", {1, 2}).InferredShape(), "unknown");
  EXPECT_THAT(
      shape_of("Scaler", open, "offset", {1, 2, 3}).Set("scale", Floats{1, 2}).InferredShape(),
      HasSubstr("'scale' has 2 elements for 3 features"));
  EXPECT_THAT(shape_of("Scaler", Shape{}, "offset", {1, 2}).InferredShape(),
              HasSubstr("'offset' has 2 elements for 1 features"));
  EXPECT_EQ(shape_of("Imputer", open, "imputed_value_floats", {1, 2}).InferredShape(), "[?,2]");
  EXPECT_EQ(shape_of("Imputer", std::nullopt, "imputed_value_floats", {1, 2}).InferredShape(),
            "unknown");
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
                  .Set("post_transform", std::string("SOFT"))
                  .InferredShape(),
              HasSubstr("'post_transform' must be NONE, SOFTMAX"));
  EXPECT_THAT(Answer(Ml("LinearRegressor")
                         .Set("targets", int64_t{2})
                         .Set("coefficients", Floats{1, 0, 0, 1})
                         .Set("post_transform", std::string("LOGISTIC"))),
              Pointwise(FloatNear(1e-6F), {0.952574F, 0.0179862F, 0.5F, 0.5F}));
}

using Integers = std::vector<int64_t>;
using Words = std::vector<std::string>;

TEST(MlFunctions, LinearClassifierTakesTheLargestScore) {
  // Scores 3, -4, 1 and 0, 0, 2.
  OneNode node = Ml("LinearClassifier")
                     .Set("coefficients", Floats{1, 0, 0, 1, -1, -1})
                     .Set("intercepts", Floats{0, 0, 2})
                     .Set("classlabels_ints", Integers{10, 20, 30})
                     .Outputs(2);
  const auto outputs = node.Run();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Elements<int64_t>((*outputs)[0]), ElementsAre(10, 30));
  EXPECT_THAT(Elements<float>((*outputs)[1]), ElementsAre(3, -4, 3, 0, 0, 2))
      << "-1 * 3 - 1 * -4 + 2 = 3, and the first of equal ones wins";
  const auto transformed = node.Set("post_transform", std::string("SOFTMAX")).Run();
  ASSERT_TRUE(transformed.ok()) << transformed.status();
  EXPECT_THAT(Elements<int64_t>((*transformed)[0]), ElementsAre(10, 30));
  EXPECT_NEAR(Elements<float>((*transformed)[1])[5], 1 / (1 + 2 * std::exp(-2.0)), 1e-6);
  EXPECT_THAT(node.Set("classlabels_ints", Integers{1, 2}).InferredShape(),
              HasSubstr("3 'intercepts' are not for 2 classes"));
}

TEST(MlFunctions, LinearClassifierOfTwoByOneScore) {
  OneNode node = Ml("LinearClassifier")
                     .Set("coefficients", Floats{1, 1})
                     .Set("intercepts", Floats{0.75F})
                     .Set("classlabels_strings", Words{"no", "yes"})
                     .Outputs(2);
  const auto outputs = RunAsModel(node);
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Texts((*outputs)[0]), ElementsAre("no", "yes"));
  EXPECT_THAT(Elements<float>((*outputs)[1]), ElementsAre(1.25F, -0.25F, 0.25F, 0.75F));
  EXPECT_THAT(node.Set("classlabels_ints", Integers{0, 1}).InferredShape(),
              HasSubstr("expected labels in one of 'classlabels_strings' and 'classlabels_ints', "
                        "got 2 and 2"));
}

TEST(MlFunctions, Imputer) {
  OneNode reals("Imputer", 1, "ai.onnx.ml");
  reals.Input(Tensor::From<float>(Shape{2, 2}, {NAN, 0, 5, NAN}));
  EXPECT_THAT(Answer(OneNode(reals)
                         .Set("imputed_value_floats", Floats{7, 8})
                         .Set("replaced_value_float", NAN)),
              ElementsAre(7, 0, 5, 8));
  EXPECT_THAT(Answer(OneNode(reals)
                         .Set("imputed_value_floats", Floats{9})
                         .Set("replaced_value_float", 5.0F))[2],
              9);
  EXPECT_THAT(OneNode(reals).Set("imputed_value_floats", Floats{1, 2, 3}).InferredShape(),
              HasSubstr("'imputed_value_floats' has 3 elements for 2 features"));
  EXPECT_THAT(OneNode(reals).Set("imputed_value_int64s", Integers{1}).InferredShape(),
              HasSubstr("expected 'imputed_value_floats'"));
  OneNode whole("Imputer", 1, "ai.onnx.ml");
  whole.Input(Tensor::From<int64_t>(Shape{1, 2}, {-1, 4}));
  const auto outputs = whole.Set("imputed_value_int64s", Integers{int64_t{1} << 60})
                           .Set("replaced_value_int64", int64_t{-1})
                           .Run();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Elements<int64_t>(outputs->front()), ElementsAre(int64_t{1} << 60, 4));
}

TEST(MlFunctions, FeatureVectorizerPutsRowsSideBySide) {
  OneNode node("FeatureVectorizer", 1, "ai.onnx.ml");
  node.Input(Tensor::From<float>(Shape{2, 1}, {1, 2}));
  node.Input(Tensor::From<int64_t>(Shape{2, 3}, {10, 11, 12, 20, 21, 22}));
  EXPECT_THAT(Answer(OneNode(node).Set("inputdimensions", Integers{1, 3})),
              ElementsAre(1, 10, 11, 12, 2, 20, 21, 22));
  EXPECT_THAT(Answer(OneNode(node).Set("inputdimensions", Integers{2, 2})),
              ElementsAre(1, 0, 10, 11, 2, 0, 20, 21))
      << "a shorter row is filled, a longer one cut";
  EXPECT_THAT(OneNode(node).Set("inputdimensions", Integers{1}).InferredShape(),
              HasSubstr("expected 1 to 1 inputs, got 2"));
}

TEST(MlFunctions, ArrayFeatureExtractorTakesStrings) {
  OneNode node("ArrayFeatureExtractor", 1, "ai.onnx.ml");
  node.Input(Strings({3}, {"cat", "dog", "cow"}));
  node.Input(Tensor::From<int64_t>(Shape{2}, {2, 0}));
  const auto outputs = RunAsModel(node);
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Texts(outputs->front()), ElementsAre("cow", "cat"));
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
