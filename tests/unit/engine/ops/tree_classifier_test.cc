// TreeEnsembleClassifier: how the sums over leaves become a class and its scores. Expected answers: ONNX Runtime 1.21's.
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/strings.h"

namespace octet::testing {
namespace tree_classifier_test {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

using Ints = std::vector<int64_t>;
using Floats = std::vector<float>;
using Words = std::vector<std::string>;
/// Class and weight.
using Gifts = std::vector<std::pair<int64_t, float>>;

// Tree t asks x[0] <= t, and gives the first of its two lists of gifts where it is, else the second.
OneNode Classifier(const std::vector<std::pair<Gifts, Gifts>>& trees,
                   Tensor x = Tensor::From<float>(Shape{3, 1}, {-1, 0.5F, 5})) {
  Ints tree_ids, node_ids, when_true, when_false, class_trees, class_nodes, classes;
  Floats values, weights;
  Words modes;
  for (int64_t t = 0; t < std::ssize(trees); ++t) {
    for (const int64_t node : {0, 1, 2}) {
      tree_ids.push_back(t);
      node_ids.push_back(node);
      modes.push_back(node == 0 ? "BRANCH_LEQ" : "LEAF");
      values.push_back(static_cast<float>(node == 0 ? t : 0));
      when_true.push_back(node == 0 ? 1 : 0);
      when_false.push_back(node == 0 ? 2 : 0);
    }
    const auto& [first, second] = trees[static_cast<size_t>(t)];
    for (const Gifts* gifts : {&first, &second}) {
      for (const auto& [of, weight] : *gifts) {
        class_trees.push_back(t);
        class_nodes.push_back(gifts == &first ? 1 : 2);
        classes.push_back(of);
        weights.push_back(weight);
      }
    }
  }
  OneNode node("TreeEnsembleClassifier", 3, "ai.onnx.ml");
  node.Input(std::move(x)).Outputs(2);
  node.Set("nodes_treeids", tree_ids).Set("nodes_nodeids", node_ids).Set("nodes_modes", modes);
  node.Set("nodes_featureids", Ints(modes.size(), 0)).Set("nodes_values", values);
  node.Set("nodes_truenodeids", when_true).Set("nodes_falsenodeids", when_false);
  node.Set("class_treeids", class_trees).Set("class_nodeids", class_nodes);
  return node.Set("class_ids", classes).Set("class_weights", weights);
}

void ExpectAnswer(const OneNode& node, const Ints& labels, const Floats& scores) {
  const auto outputs = node.Run();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_EQ(Elements<int64_t>((*outputs)[0]), labels);
  EXPECT_THAT(Elements<float>((*outputs)[1]), Pointwise(FloatNear(1e-5F), scores));
}

OneNode Shares() {
  return Classifier({{{{0, 0.3F}}, {{0, 0.1F}}}, {{{0, 0.3F}}, {{0, 0.4F}}}})
      .Set("classlabels_int64s", Ints{3, 5});
}
OneNode Margins() {
  return Classifier({{{{0, 0.3F}}, {{0, -0.4F}}}, {{{0, 0.2F}}, {{0, -0.2F}}}})
      .Set("classlabels_int64s", Ints{3, 5});
}

TEST(TreeClassifier, OneScoreForTwoIsAShareWhereNoWeightIsBelowZero) {
  ExpectAnswer(Shares(), {5, 3, 3}, {0.4F, 0.6F, 0.6F, 0.4F, 0.5F, 0.5F});
  ExpectAnswer(Shares().Set("post_transform", std::string("LOGISTIC")), {5, 3, 3},
               {0.4F, 0.6F, 0.6F, 0.4F, 0.5F, 0.5F});
  ExpectAnswer(Shares().Set("base_values", Floats{0.25F}), {5, 5, 5},
               {0.15F, 0.85F, 0.35F, 0.65F, 0.25F, 0.75F});
  ExpectAnswer(Shares().Set("base_values", Floats{0.25F, -0.5F}), {5, 5, 5},
               {0.85F, 0, 0.65F, 0, 0.75F, 0});
}

TEST(TreeClassifier, OneScoreForTwoIsAMarginElse) {
  ExpectAnswer(Margins(), {5, 3, 3}, {-0.5F, 0.5F, 0.2F, -0.2F, 0.6F, -0.6F});
  ExpectAnswer(Margins().Set("post_transform", std::string("LOGISTIC")), {5, 3, 3},
               {0.37754F, 0.62246F, 0.54983F, 0.45017F, 0.64566F, 0.35434F});
  ExpectAnswer(
      Margins().Set("post_transform", std::string("LOGISTIC")).Set("base_values", Floats{0.25F}),
      {5, 5, 3}, {0.32082F, 0.67918F, 0.4875F, 0.5125F, 0.58662F, 0.41338F});
  ExpectAnswer(Margins().Set("post_transform", std::string("SOFTMAX")), {5, 3, 3},
               {-0.5F, 0.5F, 0.2F, -0.2F, 0.6F, -0.6F});
}

TEST(TreeClassifier, TheSecondOfTwoAlone) {
  const OneNode node = Classifier({{{{1, 0.3F}}, {{1, 0.1F}}}, {{{1, 0.3F}}, {{1, 0.4F}}}})
                           .Set("classlabels_int64s", Ints{3, 5});
  ExpectAnswer(node, {5, 3, 3}, {0, 0.6F, 0, 0.4F, 0, 0.5F});
  ExpectAnswer(OneNode(node).Set("post_transform", std::string("SOFTMAX_ZERO")), {5, 3, 3},
               {0, 1, 0, 1, 0, 1});
  ExpectAnswer(OneNode(node).Set("base_values", Floats{0.25F, -0.5F}), {3, 3, 3},
               {0, -0.5F, 0, -0.5F, 0, -0.5F});
}

TEST(TreeClassifier, ScoresForBoth) {
  const OneNode node = Classifier({{{{0, -0.3F}, {1, -0.2F}}, {{0, 0.1F}, {1, 0.4F}}}})
                           .Set("classlabels_int64s", Ints{0, 1});
  ExpectAnswer(node, {0, 1, 1}, {-0.3F, -0.2F, 0.1F, 0.4F, 0.1F, 0.4F});
  ExpectAnswer(OneNode(node).Set("base_values", Floats{0.25F, -0.5F}), {0, 0, 0},
               {0.8F, -0.8F, 0.4F, -0.4F, 0.4F, -0.4F});
}

TEST(TreeClassifier, ThreeClassesTakeTheLargestOfThoseThatWereGivenTo) {
  const OneNode node = Classifier({{{{0, -0.3F}, {1, -0.2F}}, {{1, -0.1F}, {2, -0.4F}}}})
                           .Set("classlabels_int64s", Ints{3, 5, 7});
  ExpectAnswer(node, {5, 5, 5}, {-0.3F, -0.2F, 0, 0, -0.1F, -0.4F, 0, -0.1F, -0.4F});
  ExpectAnswer(OneNode(node).Set("base_values", Floats{0.1F, 0.2F, 0.3F}), {7, 3, 3},
               {-0.2F, 0, 0.3F, 0.1F, 0.1F, -0.1F, 0.1F, 0.1F, -0.1F});
  ExpectAnswer(
      OneNode(node).Set("post_transform", std::string("SOFTMAX")), {5, 5, 5},
      {0.28943F, 0.31987F, 0.39069F, 0.38833F, 0.35137F, 0.2603F, 0.38833F, 0.35137F, 0.2603F});
}

TEST(TreeClassifier, OneLabelIsThereOrNot) {
  ExpectAnswer(Classifier({{{{0, 0.3F}}, {{0, -0.1F}}}}).Set("classlabels_int64s", Ints{3}),
               {1, 0, 0}, {0.3F, -0.1F, -0.1F});
}

TEST(TreeClassifier, LabelsAreStrings) {
  const OneNode node = Classifier({{{{0, 0.3F}}, {{0, -0.4F}}}, {{{0, 0.2F}}, {{0, -0.2F}}}})
                           .Set("classlabels_strings", Words{"cat", "dog"});
  const auto outputs = RunAsModel(node);
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Texts((*outputs)[0]), ElementsAre("dog", "cat", "cat"));
  EXPECT_THAT(Elements<float>((*outputs)[1]),
              Pointwise(FloatNear(1e-6F), {-0.5F, 0.5F, 0.2F, -0.2F, 0.6F, -0.6F}));
}

// More rows and trees than go down at once, against the sum by hand: a row falls left in the trees from its own number on.
TEST(TreeClassifier, ManyRowsThroughManyTrees) {
  constexpr int64_t kRows = 131;
  constexpr int kTrees = 21;
  std::vector<std::pair<Gifts, Gifts>> trees;
  for (int t = 0; t < kTrees; ++t) {
    const auto weight = static_cast<float>(t + 1);
    trees.push_back({{{t % 3, weight}}, {{(t + 1) % 3, -weight}}});
  }
  Tensor x(DType::kF32, Shape{kRows, 1});
  Floats expected;
  for (int64_t row = 0; row < kRows; ++row) {
    const auto value = static_cast<float>(row % 23);
    x.mutable_span<float>()[static_cast<size_t>(row)] = value;
    Floats sums(3, 0.0F);
    for (int t = 0; t < kTrees; ++t) {
      const bool left = value <= static_cast<float>(t);
      sums[static_cast<size_t>(left ? t % 3 : (t + 1) % 3)] +=
          static_cast<float>(left ? t + 1 : -t - 1);
    }
    expected.insert(expected.end(), sums.begin(), sums.end());
  }
  const auto answers = Classifier(trees, x).Set("classlabels_int64s", Ints{0, 1, 2}).Run();
  ASSERT_TRUE(answers.ok()) << answers.status();
  EXPECT_EQ(Elements<float>((*answers)[1]), expected);
}

TEST(TreeClassifier, RefusesWhatDoesNotFit) {
  EXPECT_THAT(Classifier({{{{2, 1.0F}}, {}}}).Set("classlabels_int64s", Ints{0, 1}).InferredShape(),
              HasSubstr("'class_ids' holds 2, there are 2 classes"));
  EXPECT_THAT(Classifier({{{}, {}}}).InferredShape(),
              HasSubstr("expected labels in one of 'classlabels_strings' and "
                        "'classlabels_int64s', got 0 and 0"));
  EXPECT_THAT(Shares().Set("base_values", Floats{1, 2, 3}).InferredShape(),
              HasSubstr("'base_values' has 3 elements for 2 classes"));
  EXPECT_THAT(Shares().Set("nodes_featureids", Ints{0, 0, 0, 4, 0, 0}).InferredShape(),
              HasSubstr("rows of 1 features, the trees read 5"));
}

}  // namespace tree_classifier_test
}  // namespace octet::testing
