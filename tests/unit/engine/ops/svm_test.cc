// SVMRegressor and SVMClassifier, against sums by hand.
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/strings.h"

namespace octet::testing {
namespace svm_test {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

using Ints = std::vector<int64_t>;
using Floats = std::vector<float>;
using Words = std::vector<std::string>;

Floats Answer(const OneNode& node) {
  const auto outputs = node.Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? Elements<float>(outputs->front()) : Floats{};
}

// Rows (3, -4) and (0, 0), vectors (1, 0) and (0, 1).
OneNode Regressor(std::string kernel, Floats parameters) {
  OneNode node("SVMRegressor", 1, "ai.onnx.ml");
  node.Input(Tensor::From<float>(Shape{2, 2}, {3, -4, 0, 0}));
  node.Set("kernel_type", std::move(kernel)).Set("kernel_params", std::move(parameters));
  node.Set("n_supports", int64_t{2}).Set("support_vectors", Floats{1, 0, 0, 1});
  return node.Set("coefficients", Floats{2, -1}).Set("rho", Floats{0.5F});
}

TEST(SvmRegressor, Kernels) {
  EXPECT_THAT(Answer(Regressor("LINEAR", {})), ElementsAre(10.5F, 0.5F));
  EXPECT_THAT(Answer(Regressor("POLY", {1, 1, 2})), ElementsAre(23.5F, 1.5F))
      << "2 (3 + 1)^2 - (-4 + 1)^2 + 0.5";
  // |(3, -4) - (1, 0)|^2 = 20, |(3, -4) - (0, 1)|^2 = 34.
  EXPECT_THAT(Answer(Regressor("RBF", {0.1F, 0, 0})),
              Pointwise(FloatNear(1e-5F),
                        {2 * std::exp(-2.0F) - std::exp(-3.4F) + 0.5F, std::exp(-0.1F) + 0.5F}));
  EXPECT_THAT(Answer(Regressor("SIGMOID", {0.5F, 0.25F, 0})),
              Pointwise(FloatNear(1e-5F), {2 * std::tanh(1.75F) - std::tanh(-1.75F) + 0.5F,
                                           std::tanh(0.25F) + 0.5F}));
}

TEST(SvmRegressor, OneClassAndNoVectors) {
  EXPECT_THAT(Answer(Regressor("LINEAR", {}).Set("one_class", int64_t{1}).Set("rho", Floats{-1})),
              ElementsAre(1, -1));
  OneNode node("SVMRegressor", 1, "ai.onnx.ml");
  node.Input(Tensor::From<int64_t>(Shape{1, 2}, {3, -4}));
  EXPECT_THAT(Answer(node.Set("coefficients", Floats{1, 2}).Set("rho", Floats{0.5F})),
              ElementsAre(-4.5F));
}

TEST(SvmRegressor, RefusesWhatDoesNotFit) {
  EXPECT_THAT(Regressor("CUBIC", {}).InferredShape(),
              HasSubstr("'kernel_type' must be LINEAR, POLY, RBF or SIGMOID, not 'CUBIC'"));
  EXPECT_THAT(Regressor("RBF", {1}).InferredShape(),
              HasSubstr("'kernel_params' must be gamma, coef0 and degree, got 1 elements"));
  EXPECT_THAT(Regressor("LINEAR", {}).Set("n_supports", int64_t{3}).InferredShape(),
              HasSubstr("'support_vectors' has 4 elements for 3 vectors"));
  EXPECT_THAT(Regressor("LINEAR", {}).Set("n_supports", int64_t{1}).InferredShape(),
              HasSubstr("'coefficients' has 2 elements for 1 support vectors"));
  EXPECT_THAT(
      Regressor("LINEAR", {}).Set("support_vectors", Floats{1, 0, 0, 1, 0, 1}).InferredShape(),
      HasSubstr("rows of 2 features, the vectors have 3"));
}

// Three classes of one vector each: (1, 0), (0, 1), (-1, -1).
OneNode Classifier() {
  OneNode node("SVMClassifier", 1, "ai.onnx.ml");
  node.Input(Tensor::From<float>(Shape{2, 2}, {3, -4, 0, 0})).Outputs(2);
  node.Set("vectors_per_class", Ints{1, 1, 1});
  node.Set("support_vectors", Floats{1, 0, 0, 1, -1, -1});
  node.Set("coefficients", Floats{1, 2, 3, 4, 5, 6}).Set("rho", Floats{0.5F, 0.5F, 0.5F});
  return node.Set("classlabels_ints", Ints{10, 20, 30});
}

void ExpectAnswer(const OneNode& node, const Ints& labels, const Floats& scores, float within) {
  const auto outputs = node.Run();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_EQ(Elements<int64_t>((*outputs)[0]), labels);
  EXPECT_THAT(Elements<float>((*outputs)[1]), Pointwise(FloatNear(within), scores));
}

TEST(SvmClassifier, PairsVote) {
  // Kernels of (3, -4): 3, -4, 1. Pairs: 1 * 3 + 2 * -4, 4 * 3 + 3 * 1, 5 * -4 + 6 * 1, and 0.5 each: a vote for each class.
  ExpectAnswer(Classifier(), {10, 10}, {-4.5F, 15.5F, -13.5F, 0.5F, 0.5F, 0.5F}, 1e-5F);
  ExpectAnswer(Classifier().Set("rho", Floats{0.5F, 0.5F, 14.5F}), {20, 10},
               {-4.5F, 15.5F, 0.5F, 0.5F, 0.5F, 14.5F}, 1e-5F);
}

TEST(SvmClassifier, PairsGiveProbabilities) {
  // At (0, 0) the scores are rho: the logarithms of the odds of 0.5, 0.3 and 0.2.
  OneNode node = Classifier();
  node.Set("rho", Floats{std::log(5 / 3.0F), std::log(2.5F), std::log(1.5F)});
  node.Set("prob_a", Floats{-1, -1, -1}).Set("prob_b", Floats{0, 0, 0});
  const auto outputs = node.Run();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  const Floats all = Elements<float>((*outputs)[1]);
  EXPECT_THAT(Floats(all.begin() + 3, all.end()), Pointwise(FloatNear(0.005F), {0.5F, 0.3F, 0.2F}));
  EXPECT_NEAR(all[0] + all[1] + all[2], 1, 1e-5);
}

TEST(SvmClassifier, TwoClasses) {
  OneNode node("SVMClassifier", 1, "ai.onnx.ml");
  node.Input(Tensor::From<float>(Shape{2, 2}, {3, -4, 0, 0})).Outputs(2);
  node.Set("vectors_per_class", Ints{1, 1}).Set("support_vectors", Floats{1, 0, 0, 1});
  node.Set("coefficients", Floats{1, 2}).Set("rho", Floats{0.5F});
  const OneNode numbers = OneNode(node).Set("classlabels_ints", Ints{10, 20});
  ExpectAnswer(numbers, {20, 10}, {4.5F, -4.5F, -0.5F, 0.5F}, 1e-5F);
  ExpectAnswer(OneNode(numbers).Set("post_transform", std::string("LOGISTIC")), {20, 10},
               {5.5F, -4.5F, 0.5F, 0.5F}, 1e-5F);
  const auto words = RunAsModel(node.Set("classlabels_strings", Words{"a", "b"}));
  ASSERT_TRUE(words.ok()) << words.status();
  EXPECT_THAT(Texts((*words)[0]), ElementsAre("b", "a"));
}

TEST(SvmClassifier, WithoutVectorsItIsLinear) {
  OneNode node("SVMClassifier", 1, "ai.onnx.ml");
  node.Input(Tensor::From<float>(Shape{2, 2}, {3, -4, 0, 0})).Outputs(2);
  node.Set("coefficients", Floats{1, 0, -1, 0, 0, 1}).Set("rho", Floats{0.25F});
  node.Set("classlabels_ints", Ints{10, 20, 30});
  ExpectAnswer(node, {10, 10}, {3.25F, -2.75F, -3.75F, 0.25F, 0.25F, 0.25F}, 1e-5F);
  node.Set("coefficients", Floats{1, 0, 0, 1}).Set("classlabels_ints", Ints{10, 20});
  ExpectAnswer(node, {20, 10}, {3.25F, -3.75F, 0.25F, 0.25F}, 1e-5F);
}

TEST(SvmClassifier, RefusesWhatDoesNotFit) {
  EXPECT_THAT(Classifier().Set("vectors_per_class", Ints{2, 1}).InferredShape(),
              HasSubstr("'vectors_per_class' has 2 elements for 3 classes"));
  EXPECT_THAT(Classifier().Set("vectors_per_class", Ints{4, -1, 0}).InferredShape(),
              HasSubstr("'vectors_per_class' holds -1"));
  EXPECT_THAT(Classifier().Set("rho", Floats{1, 2}).InferredShape(),
              HasSubstr("'rho' has 2 elements, expected 3"));
  EXPECT_THAT(Classifier().Set("prob_a", Floats{1, 2}).InferredShape(),
              HasSubstr("'prob_a' and 'prob_b' have 2 and 0 elements for 3 pairs of classes"));
  EXPECT_THAT(Classifier().Set("coefficients", Floats{1, 2}).InferredShape(),
              HasSubstr("'coefficients' has 2 elements for 3 classes of 3 vectors"));
}

}  // namespace svm_test
}  // namespace octet::testing
