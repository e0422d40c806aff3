// ai.onnx.ml TreeEnsemble, TreeEnsembleRegressor: each row of X falls through every tree, and the leaves that it reaches are
// aggregated. Source: ONNX TreeEnsemble-5, TreeEnsembleRegressor-1, -3.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

enum class TreeMode : uint8_t { kLeq, kLt, kGte, kGt, kEq, kNeq, kMember };
enum class Aggregate : uint8_t { kAverage, kSum, kMin, kMax };

struct Branch {
  int64_t node = 0;
  bool leaf = false;
};

struct TreeNode {
  TreeMode mode = TreeMode::kLeq;
  size_t feature = 0;
  double split = 0;
  bool missing_is_true = false;
  Branch when_true, when_false;
  std::vector<double> members;
};

struct Gift {
  size_t target = 0;
  double weight = 0;
};

// Gifts [first, last) of the ensemble.
struct Leaf {
  size_t first = 0;
  size_t last = 0;
};

struct Ensemble {
  std::vector<Branch> roots;
  std::vector<TreeNode> nodes;
  std::vector<Leaf> leaves;
  std::vector<Gift> gifts;
  std::vector<double> base;  ///< One for each target, or none.
  int64_t targets = 1;
  int64_t features = 0;  ///< The number that a row must have at least.
  Aggregate aggregate = Aggregate::kSum;
};

// The elements of a tensor attribute; empty when there is none.
absl::StatusOr<std::vector<double>> Doubles(const Attributes& attributes, std::string_view name) {
  OCTET_ASSIGN_OR_RETURN(const Tensor* tensor, attributes.TensorOrNull(name));
  if (tensor == nullptr) return std::vector<double>();
  if (!kNumbers.contains(tensor->dtype()))
    return InvalidArgument("'{}' does not hold numbers", name);
  std::vector<double> values(static_cast<size_t>(tensor->elements()));
  ConvertTensor(tensor->view(), {values.data(), {DType::kF64, tensor->shape()}});
  return values;
}

// One list per field, an element per node.
absl::Status ReadNodes(const Attributes& attributes, Ensemble& e) {
  OCTET_ASSIGN_OR_RETURN(const auto modes, Doubles(attributes, "nodes_modes"));
  OCTET_ASSIGN_OR_RETURN(const auto splits, Doubles(attributes, "nodes_splits"));
  const std::vector<int64_t> zeros(modes.size(), 0);
  std::array<std::vector<int64_t>, 6> lists;
  constexpr std::array<std::string_view, 6> kNames = {
      "nodes_featureids",   "nodes_truenodeids", "nodes_trueleafs",
      "nodes_falsenodeids", "nodes_falseleafs",  "nodes_missing_value_tracks_true"};
  for (size_t i = 0; i < lists.size(); ++i) {
    OCTET_ASSIGN_OR_RETURN(lists[i],
                           attributes.Ints(kNames[i], i == 5 ? zeros : std::vector<int64_t>()));
    if (lists[i].size() != modes.size())
      return InvalidArgument("'{}' has {} elements for {} nodes", kNames[i], lists[i].size(),
                             modes.size());
  }
  if (splits.size() != modes.size())
    return InvalidArgument("'nodes_splits' has {} elements for {} nodes", splits.size(),
                           modes.size());
  for (size_t i = 0; i < modes.size(); ++i) {
    if (modes[i] < 0 || modes[i] > 6) return InvalidArgument("'nodes_modes' holds {}", modes[i]);
    if (lists[0][i] < 0 || lists[0][i] >= kMaxElements)
      return InvalidArgument("'nodes_featureids' holds {}", lists[0][i]);
    e.features = std::max(e.features, lists[0][i] + 1);
    e.nodes.push_back({static_cast<TreeMode>(modes[i]),
                       static_cast<size_t>(lists[0][i]),
                       splits[i],
                       lists[5][i] != 0,
                       {lists[1][i], lists[2][i] != 0},
                       {lists[3][i], lists[4][i] != 0},
                       {}});
  }
  return absl::OkStatus();
}

// Sets of values, one for each member node in order, each behind the other with NaN in between.
absl::Status ReadMembers(const Attributes& attributes, Ensemble& e) {
  OCTET_ASSIGN_OR_RETURN(const auto values, Doubles(attributes, "membership_values"));
  size_t at = 0;
  for (TreeNode& node : e.nodes) {
    if (node.mode != TreeMode::kMember) continue;
    if (at >= values.size()) return InvalidArgument("'membership_values' is too short");
    for (; at < values.size() && !std::isnan(values[at]); ++at) node.members.push_back(values[at]);
    ++at;
  }
  return absl::OkStatus();
}

absl::Status ReadLeaves(const Attributes& attributes, Ensemble& e) {
  OCTET_ASSIGN_OR_RETURN(const auto targets, attributes.Ints("leaf_targetids", {}));
  OCTET_ASSIGN_OR_RETURN(const auto weights, Doubles(attributes, "leaf_weights"));
  if (targets.size() != weights.size())
    return InvalidArgument("'leaf_targetids' and 'leaf_weights' differ in length");
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] < 0 || targets[i] >= e.targets)
      return InvalidArgument("'leaf_targetids' holds {}, there are {} targets", targets[i],
                             e.targets);
    e.gifts.push_back({static_cast<size_t>(targets[i]), weights[i]});
    e.leaves.push_back({i, i + 1});
  }
  return absl::OkStatus();
}

// How many nodes lie below the roots. Requires: each is led to once.
size_t CountBelowRoots(const Ensemble& e) {
  std::vector<Branch> open = e.roots;
  size_t count = 0;
  while (!open.empty()) {
    const Branch at = open.back();
    open.pop_back();
    if (at.leaf) continue;
    ++count;
    const TreeNode& node = e.nodes[static_cast<size_t>(at.node)];
    open.push_back(node.when_true);
    open.push_back(node.when_false);
  }
  return count;
}

// Every way down ends: a branch leads to a leaf, or to a node that no other branch or root leads to.
absl::Status CheckTrees(const Ensemble& e) {
  std::vector<bool> reached(e.nodes.size(), false);
  const auto ends = [&](const Branch& branch) {
    const int64_t count = branch.leaf ? std::ssize(e.leaves) : std::ssize(e.nodes);
    if (branch.node < 0 || branch.node >= count) return false;
    if (branch.leaf) return true;
    const bool seen = reached[static_cast<size_t>(branch.node)];
    reached[static_cast<size_t>(branch.node)] = true;
    return !seen;
  };
  for (const Branch& root : e.roots) {
    if (!ends(root)) return InvalidArgument("'tree_roots' holds {}", root.node);
  }
  for (const TreeNode& node : e.nodes) {
    for (const Branch& branch : {node.when_true, node.when_false}) {
      if (!ends(branch))
        return InvalidArgument("a branch leads to {}, which is no node of a tree", branch.node);
    }
  }
  if (CountBelowRoots(e) == e.nodes.size()) return absl::OkStatus();
  return InvalidArgument("no root leads to some of the {} nodes", e.nodes.size());
}

absl::StatusOr<Ensemble> ReadTrees(const Attributes& attributes) {
  Ensemble e;
  OCTET_ASSIGN_OR_RETURN(e.targets, attributes.Int("n_targets", 1));
  OCTET_ASSIGN_OR_RETURN(const int64_t aggregate, attributes.Int("aggregate_function", 1));
  OCTET_ASSIGN_OR_RETURN(const int64_t post, attributes.Int("post_transform", 0));
  OCTET_ASSIGN_OR_RETURN(const auto roots, attributes.Ints("tree_roots", {}));
  for (const int64_t root : roots) e.roots.push_back({root, false});
  if (post != 0) return Unimplemented("unsupported attribute 'post_transform' = {}", post);
  if (aggregate < 0 || aggregate > 3 || e.targets < 1 || e.targets > kMaxElements)
    return InvalidArgument("'aggregate_function' = {}, 'n_targets' = {}", aggregate, e.targets);
  e.aggregate = static_cast<Aggregate>(aggregate);
  OCTET_RETURN_IF_ERROR(ReadNodes(attributes, e));
  OCTET_RETURN_IF_ERROR(ReadMembers(attributes, e));
  OCTET_RETURN_IF_ERROR(ReadLeaves(attributes, e));
  OCTET_RETURN_IF_ERROR(CheckTrees(e));
  return e;
}

// ---- TreeEnsembleRegressor: one list per field, nodes named by tree and number

using NodeName = std::pair<int64_t, int64_t>;

// Which of `names` an attribute's strings are.
absl::StatusOr<std::vector<size_t>> Choices(const Attributes& attributes, std::string_view name,
                                            std::span<const std::string_view> names) {
  std::vector<size_t> choices;
  OCTET_ASSIGN_OR_RETURN(const auto strings, attributes.Strings(name, {}));
  for (const std::string& one : strings) {
    const auto at = std::ranges::find(names, std::string_view(one));
    if (at == names.end()) return InvalidArgument("'{}' holds '{}'", name, one);
    choices.push_back(static_cast<size_t>(at - names.begin()));
  }
  return choices;
}

absl::Status ReadGifts(const Attributes& attributes, const std::map<NodeName, Branch>& places,
                       Ensemble& e) {
  OCTET_ASSIGN_OR_RETURN(const auto trees, attributes.Ints("target_treeids", {}));
  OCTET_ASSIGN_OR_RETURN(const auto nodes, attributes.Ints("target_nodeids", {}));
  OCTET_ASSIGN_OR_RETURN(const auto targets, attributes.Ints("target_ids", {}));
  OCTET_ASSIGN_OR_RETURN(const auto weights, attributes.Floats("target_weights", {}));
  if (nodes.size() != trees.size() || targets.size() != trees.size() ||
      weights.size() != trees.size())
    return InvalidArgument("the lists of targets differ in length");
  std::vector<std::vector<Gift>> of_leaf(e.leaves.size());
  for (size_t i = 0; i < trees.size(); ++i) {
    const auto place = places.find({trees[i], nodes[i]});
    if (place == places.end() || !place->second.leaf)
      return InvalidArgument("'target_nodeids' holds {}, which is no leaf", nodes[i]);
    if (targets[i] < 0 || targets[i] >= e.targets)
      return InvalidArgument("'target_ids' holds {}, there are {} targets", targets[i], e.targets);
    of_leaf[static_cast<size_t>(place->second.node)].push_back(
        {static_cast<size_t>(targets[i]), double{weights[i]}});
  }
  for (size_t leaf = 0; leaf < of_leaf.size(); ++leaf) {
    e.leaves[leaf].first = e.gifts.size();
    e.gifts.insert(e.gifts.end(), of_leaf[leaf].begin(), of_leaf[leaf].end());
    e.leaves[leaf].last = e.gifts.size();
  }
  return absl::OkStatus();
}

// The lists of all nodes, as long as each other.
struct NodeLists {
  std::vector<size_t> modes;
  std::vector<int64_t> trees, numbers, features, when_true, when_false, missing;
  std::vector<float> values;
};

absl::StatusOr<NodeLists> ReadNodeLists(const Attributes& attributes) {
  // The order of TreeMode without members; leaves are behind them.
  constexpr std::array<std::string_view, 7> kModes = {
      "BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "LEAF"};
  NodeLists lists;
  OCTET_ASSIGN_OR_RETURN(lists.modes, Choices(attributes, "nodes_modes", kModes));
  const std::vector<int64_t> zeros(lists.modes.size(), 0);
  const std::pair<std::string_view, std::vector<int64_t>*> kInts[] = {
      {"nodes_treeids", &lists.trees},
      {"nodes_nodeids", &lists.numbers},
      {"nodes_featureids", &lists.features},
      {"nodes_truenodeids", &lists.when_true},
      {"nodes_falsenodeids", &lists.when_false},
      {"nodes_missing_value_tracks_true", &lists.missing}};
  for (const auto& [name, list] : kInts) {
    const bool optional = list == &lists.missing;
    OCTET_ASSIGN_OR_RETURN(*list, attributes.Ints(name, optional ? zeros : std::vector<int64_t>()));
    if (list->size() != lists.modes.size())
      return InvalidArgument("'{}' has {} elements for {} nodes", name, list->size(),
                             lists.modes.size());
  }
  OCTET_ASSIGN_OR_RETURN(lists.values, attributes.Floats("nodes_values", {}));
  if (lists.values.size() != lists.modes.size())
    return InvalidArgument("'nodes_values' has {} elements for {} nodes", lists.values.size(),
                           lists.modes.size());
  return lists;
}

// The nodes of all trees; a node that no branch leads to is a root.
absl::Status LinkNodes(const NodeLists& lists, std::map<NodeName, Branch>& places, Ensemble& e) {
  constexpr size_t kLeaf = 6;
  int64_t branches = 0;
  for (size_t i = 0; i < lists.modes.size(); ++i) {
    const bool leaf = lists.modes[i] == kLeaf;
    const Branch place{leaf ? std::ssize(e.leaves) : branches, leaf};
    if (leaf) e.leaves.emplace_back();
    branches += leaf ? 0 : 1;
    if (!places.emplace(NodeName{lists.trees[i], lists.numbers[i]}, place).second)
      return InvalidArgument("'nodes_nodeids' holds {} twice", lists.numbers[i]);
  }
  std::map<NodeName, Branch> roots = places;
  for (size_t i = 0; i < lists.modes.size(); ++i) {
    if (lists.modes[i] == kLeaf) continue;
    if (lists.features[i] < 0 || lists.features[i] >= kMaxElements)
      return InvalidArgument("'nodes_featureids' holds {}", lists.features[i]);
    e.features = std::max(e.features, lists.features[i] + 1);
    TreeNode& node = e.nodes.emplace_back();
    node.mode = static_cast<TreeMode>(lists.modes[i]);
    node.feature = static_cast<size_t>(lists.features[i]);
    node.split = double{lists.values[i]};
    node.missing_is_true = lists.missing[i] != 0;
    const std::pair<int64_t, Branch*> ways[] = {{lists.when_true[i], &node.when_true},
                                                {lists.when_false[i], &node.when_false}};
    for (const auto& [number, branch] : ways) {
      const auto place = places.find({lists.trees[i], number});
      if (place == places.end())
        return InvalidArgument("a branch leads to {}, which is no node of a tree", number);
      *branch = place->second;
      roots.erase({lists.trees[i], number});
    }
  }
  for (const auto& [name, place] : roots) e.roots.push_back(place);
  return absl::OkStatus();
}

absl::StatusOr<Ensemble> ReadRegressor(const Attributes& attributes) {
  constexpr std::array<std::string_view, 4> kAggregates = {"AVERAGE", "SUM", "MIN", "MAX"};
  Ensemble e;
  OCTET_ASSIGN_OR_RETURN(e.targets, attributes.Int("n_targets", 1));
  OCTET_ASSIGN_OR_RETURN(const auto aggregate, attributes.String("aggregate_function", "SUM"));
  OCTET_ASSIGN_OR_RETURN(const auto post, attributes.String("post_transform", "NONE"));
  OCTET_ASSIGN_OR_RETURN(const auto base, attributes.Floats("base_values", {}));
  if (post != "NONE") return Unimplemented("unsupported attribute 'post_transform' = '{}'", post);
  const auto at = std::ranges::find(kAggregates, std::string_view(aggregate));
  if (at == kAggregates.end() || e.targets < 1 || e.targets > kMaxElements)
    return InvalidArgument("'aggregate_function' = '{}', 'n_targets' = {}", aggregate, e.targets);
  if (!base.empty() && std::ssize(base) != e.targets)
    return InvalidArgument("'base_values' has {} elements for {} targets", base.size(), e.targets);
  e.aggregate = static_cast<Aggregate>(at - kAggregates.begin());
  e.base.assign(base.begin(), base.end());
  OCTET_ASSIGN_OR_RETURN(const NodeLists lists, ReadNodeLists(attributes));
  std::map<NodeName, Branch> places;
  OCTET_RETURN_IF_ERROR(LinkNodes(lists, places, e));
  OCTET_RETURN_IF_ERROR(ReadGifts(attributes, places, e));
  OCTET_RETURN_IF_ERROR(CheckTrees(e));
  return e;
}

absl::StatusOr<Ensemble> ReadEnsemble(const Node& node) {
  return node.op == "TreeEnsemble" ? ReadTrees(node.attributes) : ReadRegressor(node.attributes);
}

/// TreeEnsemble answers in the type of X, the older operator in floats.
DType AnswerType(const Node& node, DType input) {
  return node.op == "TreeEnsemble" ? input : DType::kF32;
}

absl::Status InferTreeEnsemble(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  const bool older = context.node().op != "TreeEnsemble";
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, older ? kFloats | kIndexTypes : kFloats));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, 2));
  OCTET_ASSIGN_OR_RETURN(const Ensemble e, ReadEnsemble(context.node()));
  const DType dtype = AnswerType(context.node(), context.dtype(0));
  if (!context.shape(0)) return context.SetOutput(0, dtype, std::nullopt);
  const Shape& x = *context.shape(0);
  if (x[1] != kUnknownDim && x[1] < e.features)
    return context.Error(Format("rows of {} features, the trees read {}", x[1], e.features));
  return context.SetOutput(0, dtype, Shape{x[0], e.targets});
}

bool TakesTrue(const TreeNode& node, double x) {
  if (std::isnan(x)) return node.missing_is_true;
  switch (node.mode) {
    case TreeMode::kLeq:
      return x <= node.split;
    case TreeMode::kLt:
      return x < node.split;
    case TreeMode::kGte:
      return x >= node.split;
    case TreeMode::kGt:
      return x > node.split;
    case TreeMode::kEq:
      return x == node.split;
    case TreeMode::kNeq:
      return x != node.split;
    case TreeMode::kMember:
      return std::ranges::contains(node.members, x);
  }
  return false;
}

template <typename T>
const Leaf& Reached(const Ensemble& e, Branch at, const T* row) {
  while (!at.leaf) {
    const TreeNode& node = e.nodes[static_cast<size_t>(at.node)];
    at = TakesTrue(node, static_cast<double>(row[node.feature])) ? node.when_true : node.when_false;
  }
  return e.leaves[static_cast<size_t>(at.node)];
}

// One row: what its leaves give to each target; a target that none gives to is 0.
template <typename T, typename Y>
void AggregateRow(const Ensemble& e, const T* row, std::vector<double>& sums,
                  std::vector<bool>& given, Y* y) {
  std::ranges::fill(sums, 0.0);
  given.assign(sums.size(), false);
  for (const Branch& root : e.roots) {
    const Leaf& leaf = Reached(e, root, row);
    for (size_t i = leaf.first; i < leaf.last; ++i) {
      const auto& [target, weight] = e.gifts[i];
      double& sum = sums[target];
      if (!given[target]) {
        sum = weight;
      } else if (e.aggregate == Aggregate::kMin) {
        sum = std::min(sum, weight);
      } else if (e.aggregate == Aggregate::kMax) {
        sum = std::max(sum, weight);
      } else {
        sum += weight;
      }
      given[target] = true;
    }
  }
  const double divisor = e.aggregate == Aggregate::kAverage && !e.roots.empty()
                             ? static_cast<double>(e.roots.size())
                             : 1.0;
  for (size_t t = 0; t < sums.size(); ++t)
    y[t] = static_cast<Y>(sums[t] / divisor + (e.base.empty() ? 0.0 : e.base[t]));
}

template <typename T, typename Y>
Kernel EnsembleKernel(Ensemble ensemble) {
  return [e = std::move(ensemble)](std::span<const ConstTensorView> inputs,
                                   std::span<const TensorView> outputs) {
    const Shape& shape = inputs[0].shape();
    ParallelFor(shape[0], 64, [&](int64_t begin, int64_t end) {
      std::vector<double> sums(static_cast<size_t>(e.targets));
      std::vector<bool> given;
      for (int64_t row = begin; row < end; ++row) {
        AggregateRow(e, inputs[0].as<T>() + row * shape[1], sums, given,
                     outputs[0].as<Y>() + row * e.targets);
      }
    });
    return absl::OkStatus();
  };
}

absl::StatusOr<Kernel> MakeTreeEnsemble(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(Ensemble e, ReadEnsemble(context.node));
  return KernelFor(Types<float, double, int32_t, int64_t>{}, context.inputs[0].dtype(),
                   context.node, [&]<typename T>() -> Kernel {
                     if (context.outputs[0].dtype == DType::kF64)
                       return EnsembleKernel<T, double>(std::move(e));
                     return EnsembleKernel<T, float>(std::move(e));
                   });
}

}  // namespace

std::span<const OpDef> TreeEnsembleOps() {
  static constexpr OpDef kOps[] = {
      {"ai.onnx.ml", "TreeEnsemble", 5, INT_MAX, InferTreeEnsemble, MakeTreeEnsemble},
      {"ai.onnx.ml", "TreeEnsembleRegressor", 1, INT_MAX, InferTreeEnsemble, MakeTreeEnsemble},
  };
  return kOps;
}

}  // namespace octet
