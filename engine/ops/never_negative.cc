#include "engine/ops/never_negative.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <vector>

namespace octet {
namespace {

constexpr std::array<std::string_view, 6> kAboveZero = {"Relu",    "Sigmoid", "HardSigmoid",
                                                        "Softmax", "Abs",     "Exp"};
// Elements of the result are elements of input 0, or means of some.
constexpr std::array<std::string_view, 13> kPassOn = {
    "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "Reshape",
    "Flatten", "Squeeze",     "Unsqueeze",     "Transpose",         "Identity",
    "Slice",   "Split",       "Concat"};

bool EndsAboveZero(const PostOp& op) {
  return op.kind == PostOp::Kind::kRelu || op.kind == PostOp::Kind::kSigmoid ||
         op.kind == PostOp::Kind::kHardSigmoid ||
         (op.kind == PostOp::Kind::kClip && op.alpha >= 0 && op.beta >= 0);
}

}  // namespace

bool IsNeverNegative(const Graph& graph, ValueId id) {
  std::set<ValueId> seen = {id};
  std::vector<ValueId> open = {id};
  while (!open.empty()) {
    const NodeId producer = graph.producer(open.back());
    open.pop_back();
    if (producer == kNone) return false;
    const Node& node = graph.node(producer);
    if (!node.post_ops.empty()) {
      if (!EndsAboveZero(node.post_ops.back())) return false;
      continue;
    }
    if (node.domain != kOnnxDomain) return false;
    if (std::ranges::contains(kAboveZero, node.op)) continue;
    if (!std::ranges::contains(kPassOn, node.op)) return false;
    const size_t read = node.is("Concat") ? node.inputs.size() : 1;
    for (size_t slot = 0; slot < read; ++slot) {
      if (seen.insert(node.inputs[slot]).second) open.push_back(node.inputs[slot]);
    }
  }
  return true;
}

}  // namespace octet
