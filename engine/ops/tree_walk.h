// Trees laid out for the way down: a few bytes per node, children side by side, eight ways at a time.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "engine/ops/tree_ensemble.h"

namespace octet {

/// An ensemble's trees over rows of `T`, with splits and weights held as `S`.
///
/// A node asks x <= split or x < split, whichever all of them ask once those that ask for more have their children exchanged;
/// where an ensemble asks both, or for equality, each node says what it asks. A step is `first + (takes the false branch)`,
/// and a leaf's next node is the leaf: no jump depends on the data, and eight ways go on at once.
/// Thread-safety: const functions may be called from several threads.
template <typename T, typename S>
class TreeWalk {
 public:
  explicit TreeWalk(const Ensemble& e) {
    Choose(e);
    for (const Branch& root : e.roots) {
      roots_.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.emplace_back();
      leaves_.push_back(0);
      Place(e, root);
    }
  }

  /// True when each leaf that a way ends at gives to one target: `give` may ask target() and weight().
  bool single() const { return single_; }
  uint32_t target(uint32_t node) const { return nodes_[node].bits >> kTargetShift; }
  S weight(uint32_t node) const { return nodes_[node].split; }
  /// The leaf of the ensemble that a way ends at.
  uint32_t leaf(uint32_t node) const { return leaves_[node]; }
  size_t trees() const { return roots_.size(); }

  /// Calls give(row, node) for each of `rows` rows of `columns` features and each tree, of one row in the order of the trees.
  template <typename Give>
  void ForEachLeaf(const T* x, int64_t columns, size_t rows, const Give& give) const {
    switch (asks_) {
      case Asks::kLeq:
        return missing_ ? Walk<Asks::kLeq, true>(x, columns, rows, give)
                        : Walk<Asks::kLeq, false>(x, columns, rows, give);
      case Asks::kLt:
        return missing_ ? Walk<Asks::kLt, true>(x, columns, rows, give)
                        : Walk<Asks::kLt, false>(x, columns, rows, give);
      case Asks::kAny:
        return Walk<Asks::kAny, true>(x, columns, rows, give);
    }
  }

 private:
  enum class Asks : uint8_t { kLeq, kLt, kAny };
  static constexpr size_t kWays = 8;
  static constexpr uint32_t kBranch = 1;
  static constexpr uint32_t kMissingIsTrue = 2;
  static constexpr int kModeShift = 2;
  static constexpr uint32_t kModeMask = 7;
  static constexpr int kTargetShift = 8;

  struct Node {
    S split = 0;  // Of a leaf of a single() ensemble: its weight.
    uint32_t feature = 0;
    uint32_t first = 0;  // Taken when true, the next one when false. Of a leaf: itself.
    uint32_t bits = 0;
  };

  // x >= s is not x < s, but for a NaN, which goes where it is sent.
  static bool IsMirrored(const TreeNode& node) {
    return (node.mode == TreeMode::kGte || node.mode == TreeMode::kGt) && !std::isnan(node.split);
  }
  // What is asked of a number. Nothing is above, below or equal to a NaN.
  static TreeMode AskedMode(const TreeNode& node) {
    switch (node.mode) {
      case TreeMode::kGte:
        return TreeMode::kLt;
      case TreeMode::kGt:
        return TreeMode::kLeq;
      default:
        return node.mode;
    }
  }

  void Choose(const Ensemble& e) {
    const auto all = [&](TreeMode mode) {
      return std::ranges::all_of(e.nodes, [&](const TreeNode& n) { return AskedMode(n) == mode; });
    };
    asks_ = all(TreeMode::kLeq) ? Asks::kLeq : all(TreeMode::kLt) ? Asks::kLt : Asks::kAny;
    single_ =
        std::ranges::all_of(e.leaves, [](const Leaf& leaf) { return leaf.last == leaf.first + 1; });
    single_ = single_ && std::ranges::all_of(e.gifts, [](const Gift& gift) {
                return gift.target < size_t{1} << (32 - kTargetShift);
              });
  }

  // Fills the tree whose root's node is the last one, level by level.
  void Place(const Ensemble& e, const Branch& root) {
    std::vector<std::pair<Branch, uint32_t>> open{{root, roots_.back()}};
    for (size_t i = 0; i < open.size(); ++i) {
      const auto [from, at] = open[i];
      if (from.leaf) {
        PlaceLeaf(e, static_cast<size_t>(from.node), at);
        continue;
      }
      const TreeNode& node = e.nodes[static_cast<size_t>(from.node)];
      const bool mirrored = IsMirrored(node);
      const auto first = static_cast<uint32_t>(nodes_.size());
      const bool missing = node.missing_is_true != mirrored;
      missing_ = missing_ || missing;
      nodes_[at] = {static_cast<S>(node.split), node.feature, first,
                    kBranch | (missing ? kMissingIsTrue : 0) |
                        static_cast<uint32_t>(AskedMode(node)) << kModeShift};
      if (node.mode == TreeMode::kMember) {
        members_.resize(nodes_.size());
        members_[at] = node.members;
      }
      open.emplace_back(mirrored ? node.when_false : node.when_true, first);
      open.emplace_back(mirrored ? node.when_true : node.when_false, first + 1);
      nodes_.resize(nodes_.size() + 2);
      leaves_.resize(nodes_.size());
    }
  }

  void PlaceLeaf(const Ensemble& e, size_t leaf, uint32_t at) {
    leaves_[at] = static_cast<uint32_t>(leaf);
    nodes_[at].first = at;
    if (!single_) return;
    const Gift& gift = e.gifts[e.leaves[leaf].first];
    nodes_[at].split = static_cast<S>(gift.weight);
    nodes_[at].bits = static_cast<uint32_t>(gift.target) << kTargetShift;
  }

  template <Asks kAsks>
  bool IsTrue(const Node& node, uint32_t at, S x) const {
    if constexpr (kAsks == Asks::kLeq) return x <= node.split;
    if constexpr (kAsks == Asks::kLt) return x < node.split;
    switch (static_cast<TreeMode>(node.bits >> kModeShift & kModeMask)) {
      case TreeMode::kLeq:
        return x <= node.split;
      case TreeMode::kLt:
        return x < node.split;
      case TreeMode::kEq:
        return x == node.split;
      case TreeMode::kNeq:
        return x != node.split && !std::isnan(x);
      case TreeMode::kMember:
        return at < members_.size() && std::ranges::contains(members_[at], static_cast<double>(x));
      default:
        return false;
    }
  }

  template <Asks kAsks, bool kMissing>
  void Descend(const std::array<const T*, kWays>& rows, std::array<uint32_t, kWays>& at) const {
    const Node* nodes = nodes_.data();
    uint32_t moved = 1;
    while (moved != 0) {
      moved = 0;
      for (size_t way = 0; way < kWays; ++way) {
        const Node& node = nodes[at[way]];
        const auto x = static_cast<S>(rows[way][node.feature]);
        uint32_t is_true = IsTrue<kAsks>(node, at[way], x) ? 1 : 0;
        if constexpr (kMissing) is_true |= std::isnan(x) ? node.bits / kMissingIsTrue : 0;
        const uint32_t next = node.first + (~is_true & node.bits & kBranch);
        moved |= next ^ at[way];
        at[way] = next;
      }
    }
  }

  template <Asks kAsks, bool kMissing, typename Give>
  void Walk(const T* x, int64_t columns, size_t rows, const Give& give) const {
    const size_t pairs = roots_.size() * rows;
    size_t tree = 0;
    size_t row = 0;
    std::array<const T*, kWays> of;
    of.fill(x);
    std::array<uint32_t, kWays> at{};
    std::array<size_t, kWays> row_of{};
    for (size_t pair = 0; pair < pairs; pair += kWays) {
      const size_t ways = std::min(kWays, pairs - pair);
      for (size_t way = 0; way < ways; ++way) {
        row_of[way] = row;
        of[way] = x + static_cast<int64_t>(row) * columns;
        at[way] = roots_[tree];
        if (++row == rows) row = 0, ++tree;
      }
      // Ways that are no pair any more stand at a leaf. Rows without features have no trees but leaves.
      if (columns > 0) Descend<kAsks, kMissing>(of, at);
      for (size_t way = 0; way < ways; ++way) give(row_of[way], at[way]);
    }
  }

  Asks asks_ = Asks::kLeq;
  bool single_ = false;
  bool missing_ = false;  // Some node sends a NaN to its true branch.
  std::vector<Node> nodes_;
  std::vector<uint32_t> leaves_;  // By node.
  std::vector<uint32_t> roots_;
  std::vector<std::vector<double>> members_;  // By node, up to the last one that has some.
};

}  // namespace octet
