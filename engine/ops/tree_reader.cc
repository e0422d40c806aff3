// Reads trees from their lists, and checks that they are trees.
#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/ops/infer_rules.h"
#include "engine/ops/tree_ensemble.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr int64_t kMostFeatures = int64_t{1} << 31;
constexpr int64_t kMostTargets = int64_t{1} << 24;

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

absl::StatusOr<uint32_t> ReadFeature(int64_t feature, Ensemble& e) {
  if (feature < 0 || feature >= kMostFeatures)
    return InvalidArgument("'nodes_featureids' holds {}", feature);
  e.features = std::max(e.features, feature + 1);
  return static_cast<uint32_t>(feature);
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
    if (!(modes[i] >= 0 && modes[i] <= 6))
      return InvalidArgument("'nodes_modes' holds {}", modes[i]);
    OCTET_ASSIGN_OR_RETURN(const uint32_t feature, ReadFeature(lists[0][i], e));
    e.nodes.push_back({static_cast<TreeMode>(modes[i]),
                       feature,
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
  if (post < 0 || post > 4) return InvalidArgument("'post_transform' must be 0 to 4, not {}", post);
  if (aggregate < 0 || aggregate > 3 || e.targets < 1 || e.targets > kMostTargets)
    return InvalidArgument("'aggregate_function' = {}, 'n_targets' = {}", aggregate, e.targets);
  e.post = static_cast<PostTransform>(post);
  e.aggregate = static_cast<Aggregate>(aggregate);
  OCTET_RETURN_IF_ERROR(ReadNodes(attributes, e));
  OCTET_RETURN_IF_ERROR(ReadMembers(attributes, e));
  OCTET_RETURN_IF_ERROR(ReadLeaves(attributes, e));
  OCTET_RETURN_IF_ERROR(CheckTrees(e));
  return e;
}

// ---- TreeEnsembleRegressor, TreeEnsembleClassifier: one list per field, nodes named by tree and number

// A node of a tree, and where it went.
struct Place {
  int64_t tree = 0;
  int64_t number = 0;
  Branch branch;
  bool led_to = false;  ///< By a branch: not a root.
};

/// Places by name. Most files list the nodes in order, so that one is found where its neighbour says.
class Places {
 public:
  explicit Places(std::vector<Place> places) : places_(std::move(places)) {
    if (!std::ranges::is_sorted(places_, {}, Name)) std::ranges::sort(places_, {}, Name);
  }

  std::span<Place> all() { return places_; }
  /// Null when there is none.
  Place* Find(int64_t tree, int64_t number) {
    const std::pair name(tree, number);
    const std::ptrdiff_t next = last_ + 1;
    const auto at = next < std::ssize(places_) && Name(places_[static_cast<size_t>(next)]) == name
                        ? places_.begin() + next
                        : std::ranges::lower_bound(places_, name, {}, Name);
    if (at == places_.end() || Name(*at) != name) return nullptr;
    last_ = at - places_.begin();
    return &*at;
  }
  /// A name that two nodes have; null when there is none.
  const Place* Twice() const {
    const auto at = std::ranges::adjacent_find(places_, {}, Name);
    return at == places_.end() ? nullptr : &*at;
  }

 private:
  static std::pair<int64_t, int64_t> Name(const Place& place) { return {place.tree, place.number}; }
  std::vector<Place> places_;
  std::ptrdiff_t last_ = -1;
};

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

// A list of floats, which since version 3 a tensor <name>_as_tensor may hold instead.
absl::StatusOr<std::vector<double>> RealList(const Attributes& attributes,
                                             const std::string& name) {
  if (attributes.has(name + "_as_tensor")) return Doubles(attributes, name + "_as_tensor");
  OCTET_ASSIGN_OR_RETURN(const auto floats, attributes.Floats(name, {}));
  return std::vector<double>(floats.begin(), floats.end());
}

// What leaves give, from the lists <kind>_treeids, _nodeids, _ids and _weights; kind is "target" or "class".
absl::Status ReadGifts(const Attributes& attributes, const std::string& kind, Places& places,
                       Ensemble& e) {
  OCTET_ASSIGN_OR_RETURN(const auto trees, attributes.Ints(kind + "_treeids", {}));
  OCTET_ASSIGN_OR_RETURN(const auto nodes, attributes.Ints(kind + "_nodeids", {}));
  OCTET_ASSIGN_OR_RETURN(const auto targets, attributes.Ints(kind + "_ids", {}));
  OCTET_ASSIGN_OR_RETURN(const auto weights, RealList(attributes, kind + "_weights"));
  if (nodes.size() != trees.size() || targets.size() != trees.size() ||
      weights.size() != trees.size()) {
    return InvalidArgument(
        "'{0}_treeids', '{0}_nodeids', '{0}_ids' and '{0}_weights' differ in length: {1}, {2}, "
        "{3}, "
        "{4}",
        kind, trees.size(), nodes.size(), targets.size(), weights.size());
  }
  std::vector<size_t> leaf_of;
  for (size_t i = 0; i < trees.size(); ++i) {
    const Place* place = places.Find(trees[i], nodes[i]);
    if (place == nullptr || !place->branch.leaf)
      return InvalidArgument("'{}_nodeids' holds {}, which is no leaf", kind, nodes[i]);
    if (targets[i] < 0 || targets[i] >= e.targets) {
      return InvalidArgument("'{}_ids' holds {}, there are {} {}", kind, targets[i], e.targets,
                             kind == "class" ? "classes" : "targets");
    }
    leaf_of.push_back(static_cast<size_t>(place->branch.node));
  }
  // Gifts of one leaf stand side by side, in the file's order.
  for (const size_t leaf : leaf_of) ++e.leaves[leaf].last;
  for (size_t leaf = 0, sum = 0; leaf < e.leaves.size(); ++leaf) {
    const size_t count = e.leaves[leaf].last;
    e.leaves[leaf] = {sum, sum};
    sum += count;
  }
  e.gifts.resize(leaf_of.size());
  for (size_t i = 0; i < leaf_of.size(); ++i)
    e.gifts[e.leaves[leaf_of[i]].last++] = {static_cast<size_t>(targets[i]), weights[i]};
  return absl::OkStatus();
}

// The lists of all nodes, as long as each other.
struct NodeLists {
  std::vector<size_t> modes;
  std::vector<int64_t> trees, numbers, features, when_true, when_false, missing;
  std::vector<double> values;
};
constexpr size_t kLeafMode = 6;

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
  OCTET_ASSIGN_OR_RETURN(lists.values, RealList(attributes, "nodes_values"));
  if (lists.values.size() != lists.modes.size())
    return InvalidArgument("'nodes_values' has {} elements for {} nodes", lists.values.size(),
                           lists.modes.size());
  return lists;
}

// The nodes of all trees in the file's order, leaves apart.
absl::StatusOr<Places> PlaceNodes(const NodeLists& lists, Ensemble& e) {
  std::vector<Place> made;
  int64_t branches = 0;
  for (size_t i = 0; i < lists.modes.size(); ++i) {
    const bool leaf = lists.modes[i] == kLeafMode;
    made.push_back(
        {lists.trees[i], lists.numbers[i], {leaf ? std::ssize(e.leaves) : branches, leaf}});
    if (leaf) e.leaves.emplace_back();
    branches += leaf ? 0 : 1;
  }
  Places places(std::move(made));
  if (const Place* twice = places.Twice())
    return InvalidArgument("'nodes_nodeids' holds {} twice", twice->number);
  return places;
}

// The nodes of all trees; a node that no branch leads to is a root.
absl::Status LinkNodes(const NodeLists& lists, Places& places, Ensemble& e) {
  for (size_t i = 0; i < lists.modes.size(); ++i) {
    if (lists.modes[i] == kLeafMode) continue;
    TreeNode& node = e.nodes.emplace_back();
    OCTET_ASSIGN_OR_RETURN(node.feature, ReadFeature(lists.features[i], e));
    node.mode = static_cast<TreeMode>(lists.modes[i]);
    node.split = lists.values[i];
    node.missing_is_true = lists.missing[i] != 0;
    const std::pair<int64_t, Branch*> ways[] = {{lists.when_true[i], &node.when_true},
                                                {lists.when_false[i], &node.when_false}};
    for (const auto& [number, branch] : ways) {
      Place* place = places.Find(lists.trees[i], number);
      if (place == nullptr)
        return InvalidArgument("a branch leads to {}, which is no node of a tree", number);
      *branch = place->branch;
      place->led_to = true;
    }
  }
  const Place* root = nullptr;
  for (const Place& place : places.all()) {
    if (place.led_to) continue;
    if (root != nullptr && root->tree == place.tree) {
      return InvalidArgument("tree {} has more than one root: nodes {} and {}", place.tree,
                             root->number, place.number);
    }
    root = &place;
    e.roots.push_back(place.branch);
  }
  return absl::OkStatus();
}

absl::StatusOr<Ensemble> ReadNamed(const Attributes& attributes, const std::string& kind,
                                   Ensemble e) {
  OCTET_ASSIGN_OR_RETURN(e.post, ReadPostTransform(attributes));
  OCTET_ASSIGN_OR_RETURN(e.base, RealList(attributes, "base_values"));
  OCTET_ASSIGN_OR_RETURN(const NodeLists lists, ReadNodeLists(attributes));
  OCTET_ASSIGN_OR_RETURN(Places places, PlaceNodes(lists, e));
  OCTET_RETURN_IF_ERROR(LinkNodes(lists, places, e));
  OCTET_RETURN_IF_ERROR(ReadGifts(attributes, kind, places, e));
  OCTET_RETURN_IF_ERROR(CheckTrees(e));
  return e;
}

absl::StatusOr<Ensemble> ReadRegressor(const Attributes& attributes) {
  constexpr std::array<std::string_view, 4> kAggregates = {"AVERAGE", "SUM", "MIN", "MAX"};
  Ensemble e;
  OCTET_ASSIGN_OR_RETURN(e.targets, attributes.Int("n_targets", 1));
  OCTET_ASSIGN_OR_RETURN(const auto aggregate, attributes.String("aggregate_function", "SUM"));
  const auto at = std::ranges::find(kAggregates, std::string_view(aggregate));
  if (at == kAggregates.end() || e.targets < 1 || e.targets > kMostTargets)
    return InvalidArgument("'aggregate_function' = '{}', 'n_targets' = {}", aggregate, e.targets);
  e.aggregate = static_cast<Aggregate>(at - kAggregates.begin());
  OCTET_ASSIGN_OR_RETURN(e, ReadNamed(attributes, "target", std::move(e)));
  if (!e.base.empty() && std::ssize(e.base) != e.targets) {
    return InvalidArgument("'base_values' has {} elements for {} targets", e.base.size(),
                           e.targets);
  }
  return e;
}

absl::StatusOr<Ensemble> ReadClassifier(const Attributes& attributes) {
  OCTET_ASSIGN_OR_RETURN(const Tensor labels,
                         ReadClassLabels(attributes, "classlabels_strings", "classlabels_int64s"));
  Ensemble e;
  e.targets = labels.elements();
  OCTET_ASSIGN_OR_RETURN(e, ReadNamed(attributes, "class", std::move(e)));
  if (std::ssize(e.base) > e.targets) {
    return InvalidArgument("'base_values' has {} elements for {} classes", e.base.size(),
                           e.targets);
  }
  return e;
}

}  // namespace

absl::StatusOr<Ensemble> ReadEnsemble(const Node& node) {
  if (node.op == "TreeEnsemble") return ReadTrees(node.attributes);
  if (node.op == "TreeEnsembleRegressor") return ReadRegressor(node.attributes);
  return ReadClassifier(node.attributes);
}

}  // namespace octet
