// The trees of ai.onnx.ml's ensembles, as TreeEnsemble, TreeEnsembleRegressor and TreeEnsembleClassifier write them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/class_scores.h"

namespace octet {

/// x <= split, x < split, ..., x among the node's members. Of a NaN it asks nothing: see TreeNode::missing_is_true.
enum class TreeMode : uint8_t { kLeq, kLt, kGte, kGt, kEq, kNeq, kMember };
enum class Aggregate : uint8_t { kAverage, kSum, kMin, kMax };

/// Where one goes from a node: to another one, or to a leaf.
struct Branch {
  int64_t node = 0;  ///< Of `nodes`, or of `leaves`.
  bool leaf = false;
};

struct TreeNode {
  TreeMode mode = TreeMode::kLeq;
  uint32_t feature = 0;
  double split = 0;
  bool missing_is_true = false;
  Branch when_true, when_false;
  std::vector<double> members;
};

/// What a leaf gives to one target (a class, of a classifier).
struct Gift {
  size_t target = 0;
  double weight = 0;
};

/// Gifts [first, last) of the ensemble.
struct Leaf {
  size_t first = 0;
  size_t last = 0;
};

/// Requires of itself: every branch and root leads to a leaf, or to a node that no other branch or root leads to.
struct Ensemble {
  std::vector<Branch> roots;
  std::vector<TreeNode> nodes;
  std::vector<Leaf> leaves;
  std::vector<Gift> gifts;
  std::vector<double> base;  ///< One for each target, or none; of a classifier also fewer.
  int64_t targets = 1;
  int64_t features = 0;  ///< The number that a row must have at least.
  Aggregate aggregate = Aggregate::kSum;
  PostTransform post = PostTransform::kKeep;
};

/// The trees of a node: TreeEnsemble, TreeEnsembleRegressor or octet:TreeClassifier, which has the attributes of
/// TreeEnsembleClassifier; its targets are the classes.
/// Errors: INVALID_ARGUMENT naming the attribute: lists that differ in length, branches that lead nowhere or in a circle.
/// Source: ONNX TreeEnsemble-5, TreeEnsembleRegressor-1, -3, TreeEnsembleClassifier-1, -3.
absl::StatusOr<Ensemble> ReadEnsemble(const Node& node);

}  // namespace octet
