// TreeEnsemble: how leaves are aggregated, and trees that are none. ONNX's own data cover the rest.
#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/one_node.h"

namespace octet::testing {
namespace tree_ensemble_test {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

using Ints = std::vector<int64_t>;

Tensor Row(std::vector<float> values) {
  return Tensor::From<float>(Shape{std::ssize(values)}, std::span<const float>(values));
}

// Two trees of one node each, x[0] <= 1 and x[1] > 2, for one target.
OneNode Stumps() {
  OneNode node("TreeEnsemble", 5, "ai.onnx.ml");
  node.Input(
      Tensor::From<float>(Shape{3, 2}, {1, 3, 2, 2, std::numeric_limits<float>::quiet_NaN(), 3}));
  node.Set("tree_roots", Ints{0, 1});
  node.Set("nodes_modes", Tensor::From<uint8_t>(Shape{2}, {0, 3}));
  node.Set("nodes_splits", Row({1, 2}));
  node.Set("nodes_featureids", Ints{0, 1});
  node.Set("nodes_truenodeids", Ints{0, 2}).Set("nodes_trueleafs", Ints{1, 1});
  node.Set("nodes_falsenodeids", Ints{1, 3}).Set("nodes_falseleafs", Ints{1, 1});
  node.Set("leaf_targetids", Ints{0, 0, 0, 0}).Set("leaf_weights", Row({10, 20, 1, 4}));
  return node;
}

std::vector<float> Answer(const OneNode& node) {
  const auto outputs = node.Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? Elements<float>(outputs->front()) : std::vector<float>{};
}

TEST(TreeEnsemble, Aggregates) {
  EXPECT_THAT(Answer(Stumps()), ElementsAre(11, 24, 21));
  EXPECT_THAT(Answer(Stumps().Set("aggregate_function", int64_t{0})), ElementsAre(5.5F, 12, 10.5F));
  EXPECT_THAT(Answer(Stumps().Set("aggregate_function", int64_t{2})), ElementsAre(1, 4, 1));
  EXPECT_THAT(Answer(Stumps().Set("aggregate_function", int64_t{3})), ElementsAre(10, 20, 20));
}

TEST(TreeEnsemble, MissingValuesGoWhereTheyAreSent) {
  EXPECT_THAT(Answer(Stumps().Set("nodes_missing_value_tracks_true", Ints{1, 0})),
              ElementsAre(11, 24, 11));
}

TEST(TreeEnsemble, TargetsApart) {
  EXPECT_THAT(Answer(Stumps().Set("n_targets", int64_t{2}).Set("leaf_targetids", Ints{0, 0, 1, 1})),
              ElementsAre(10, 1, 20, 4, 20, 1));
}

// Tree 0: x[0] <= 1 ? 10 : 20 (for both targets). Tree 7 is one leaf.
OneNode Regressor() {
  OneNode node("TreeEnsembleRegressor", 3, "ai.onnx.ml");
  node.Input(Tensor::From<int64_t>(Shape{2, 1}, {1, 2})).Set("n_targets", int64_t{2});
  node.Set("nodes_treeids", Ints{0, 0, 0, 7}).Set("nodes_nodeids", Ints{0, 1, 2, 0});
  node.Set("nodes_modes", std::vector<std::string>{"BRANCH_LEQ", "LEAF", "LEAF", "LEAF"});
  node.Set("nodes_featureids", Ints{0, 0, 0, 0});
  node.Set("nodes_values", std::vector<float>{1, 0, 0, 0});
  node.Set("nodes_truenodeids", Ints{1, 0, 0, 0}).Set("nodes_falsenodeids", Ints{2, 0, 0, 0});
  node.Set("target_treeids", Ints{0, 0, 0, 7}).Set("target_nodeids", Ints{1, 2, 2, 0});
  node.Set("target_ids", Ints{0, 0, 1, 1});
  return node.Set("target_weights", std::vector<float>{10, 20, 30, 4});
}

TEST(TreeEnsembleRegressor, NamesNodesByTreeAndNumber) {
  EXPECT_THAT(Answer(Regressor()), ElementsAre(10, 4, 20, 34));
  EXPECT_THAT(Answer(Regressor().Set("aggregate_function", std::string("AVERAGE"))),
              ElementsAre(5, 2, 10, 17));
  EXPECT_THAT(Answer(Regressor().Set("base_values", std::vector<float>{100, 200})),
              ElementsAre(110, 204, 120, 234));
}

TEST(TreeEnsembleRegressor, TransformsTheTargets) {
  // Scores 10 and 4, 20 and 34.
  const auto transformed = [](std::string post) {
    return Answer(Regressor().Set("post_transform", std::move(post)));
  };
  const float e6 = std::exp(-6.0F);
  const float e14 = std::exp(-14.0F);
  EXPECT_THAT(
      transformed("SOFTMAX"),
      Pointwise(FloatNear(1e-6F), {1 / (1 + e6), e6 / (1 + e6), e14 / (1 + e14), 1 / (1 + e14)}));
  EXPECT_THAT(transformed("LOGISTIC"),
              Pointwise(FloatNear(1e-6F),
                        {1 / (1 + std::exp(-10.0F)), 1 / (1 + std::exp(-4.0F)), 1.0F, 1.0F}));
}

TEST(TreeEnsembleRegressor, TakesListsAsTensorsOfDoubles) {
  const auto doubles = [](std::vector<double> values) {
    return Tensor::From<double>(Shape{std::ssize(values)}, std::span<const double>(values));
  };
  OneNode node("TreeEnsembleRegressor", 3, "ai.onnx.ml");
  node.Input(Tensor::From<double>(Shape{2, 1}, {1, 1.0000000001})).Set("n_targets", int64_t{1});
  node.Set("nodes_treeids", Ints{0, 0, 0}).Set("nodes_nodeids", Ints{0, 1, 2});
  node.Set("nodes_modes", std::vector<std::string>{"BRANCH_LEQ", "LEAF", "LEAF"});
  node.Set("nodes_featureids", Ints{0, 0, 0}).Set("nodes_values_as_tensor", doubles({1, 0, 0}));
  node.Set("nodes_truenodeids", Ints{1, 0, 0}).Set("nodes_falsenodeids", Ints{2, 0, 0});
  node.Set("target_treeids", Ints{0, 0}).Set("target_nodeids", Ints{1, 2});
  node.Set("target_ids", Ints{0, 0}).Set("target_weights_as_tensor", doubles({10, 20}));
  EXPECT_THAT(Answer(node.Set("base_values_as_tensor", doubles({0.5}))), ElementsAre(10.5F, 20.5F));
}

// One tree of one node; what it asks of 1, 2, 3 and a NaN.
std::vector<float> Asked(std::string mode, float split, bool missing_is_true) {
  OneNode node("TreeEnsembleRegressor", 3, "ai.onnx.ml");
  node.Input(Tensor::From<float>(Shape{4, 1}, {1, 2, 3, std::numeric_limits<float>::quiet_NaN()}));
  node.Set("nodes_treeids", Ints{0, 0, 0}).Set("nodes_nodeids", Ints{5, 7, 6});
  node.Set("nodes_modes", std::vector<std::string>{std::move(mode), "LEAF", "LEAF"});
  node.Set("nodes_featureids", Ints{0, 0, 0}).Set("nodes_values", std::vector<float>{split, 0, 0});
  node.Set("nodes_truenodeids", Ints{7, 0, 0}).Set("nodes_falsenodeids", Ints{6, 0, 0});
  node.Set("nodes_missing_value_tracks_true", Ints{missing_is_true ? 1 : 0, 0, 0});
  node.Set("target_treeids", Ints{0, 0}).Set("target_nodeids", Ints{7, 6});
  node.Set("target_ids", Ints{0, 0}).Set("target_weights", std::vector<float>{1, 0});
  return Answer(node);
}

TEST(TreeEnsembleRegressor, AsksWhatTheModeSays) {
  for (const bool missing : {false, true}) {
    const float nan = missing ? 1 : 0;
    EXPECT_THAT(Asked("BRANCH_LEQ", 2, missing), ElementsAre(1, 1, 0, nan));
    EXPECT_THAT(Asked("BRANCH_LT", 2, missing), ElementsAre(1, 0, 0, nan));
    EXPECT_THAT(Asked("BRANCH_GTE", 2, missing), ElementsAre(0, 1, 1, nan));
    EXPECT_THAT(Asked("BRANCH_GT", 2, missing), ElementsAre(0, 0, 1, nan));
    EXPECT_THAT(Asked("BRANCH_EQ", 2, missing), ElementsAre(0, 1, 0, nan));
    EXPECT_THAT(Asked("BRANCH_NEQ", 2, missing), ElementsAre(1, 0, 1, nan));
    for (const std::string mode : {"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"}) {
      EXPECT_THAT(Asked(mode, std::numeric_limits<float>::quiet_NaN(), missing),
                  ElementsAre(0, 0, 0, nan))
          << mode;
    }
  }
}

TEST(TreeEnsembleRegressor, RefusesWhatIsNoTree) {
  EXPECT_THAT(Regressor().Set("nodes_truenodeids", Ints{0, 0, 0, 0}).InferredShape(),
              HasSubstr("no root leads to some of the 1 nodes"))
      << "a cycle";
  EXPECT_THAT(Regressor().Set("nodes_nodeids", Ints{0, 1, 1, 0}).InferredShape(),
              HasSubstr("holds 1 twice"));
  EXPECT_THAT(Regressor().Set("target_nodeids", Ints{0, 2, 2, 0}).InferredShape(),
              HasSubstr("'target_nodeids' holds 0, which is no leaf"));
  EXPECT_THAT(
      Regressor().Set("nodes_modes", std::vector<std::string>{"BRANCH", "LEAF"}).InferredShape(),
      HasSubstr("'nodes_modes' holds 'BRANCH'"));
  EXPECT_THAT(Regressor().Set("post_transform", std::string("PROBITS")).InferredShape(),
              HasSubstr("'post_transform' must be NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT, "
                        "not 'PROBITS'"));
  EXPECT_THAT(Regressor().Set("base_values", std::vector<float>{1}).InferredShape(),
              HasSubstr("'base_values' has 1 elements for 2 targets"));
  EXPECT_THAT(Regressor().Set("nodes_truenodeids", Ints{2, 0, 0, 0}).InferredShape(),
              HasSubstr("tree 0 has more than one root: nodes 0 and 1"));
}

TEST(TreeEnsemble, RefusesWhatIsNoTree) {
  EXPECT_THAT(Stumps().Set("tree_roots", Ints{0, 7}).InferredShape(),
              HasSubstr("'tree_roots' holds 7"));
  EXPECT_THAT(Stumps().Set("nodes_trueleafs", Ints{0, 1}).InferredShape(),
              HasSubstr("leads to 0, which is no node of a tree"))
      << "a cycle";
  EXPECT_THAT(Stumps().Set("nodes_truenodeids", Ints{9, 2}).InferredShape(),
              HasSubstr("leads to 9"));
  EXPECT_THAT(Stumps().Set("nodes_featureids", Ints{0, 2}).InferredShape(),
              HasSubstr("rows of 2 features, the trees read 3"));
  EXPECT_THAT(Stumps().Set("nodes_featureids", Ints{0}).InferredShape(),
              HasSubstr("'nodes_featureids' has 1 elements for 2 nodes"));
  EXPECT_THAT(Stumps().Set("leaf_targetids", Ints{0, 0, 0, 1}).InferredShape(),
              HasSubstr("'leaf_targetids' holds 1"));
  EXPECT_THAT(Stumps().Set("post_transform", int64_t{5}).InferredShape(),
              HasSubstr("'post_transform' must be 0 to 4, not 5"));
  EXPECT_THAT(Stumps()
                  .Set("nodes_modes",
                       Tensor::From<float>(Shape{2}, {0, std::numeric_limits<float>::quiet_NaN()}))
                  .InferredShape(),
              HasSubstr("'nodes_modes' holds nan"));
  EXPECT_THAT(Stumps().Set("nodes_modes", Tensor::From<uint8_t>(Shape{2}, {0, 6})).InferredShape(),
              HasSubstr("'membership_values' is too short"));
}

}  // namespace tree_ensemble_test
}  // namespace octet::testing
