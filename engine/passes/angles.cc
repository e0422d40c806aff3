#include "engine/passes/angles.h"

#include <algorithm>
#include <array>
#include <ranges>
#include <string_view>

#include "engine/ops/op.h"
#include "engine/passes/match.h"

namespace octet {
namespace {

constexpr int64_t kMostFactors = 1024;

// Multiplies by more constants than frequencies are.
bool IsLayer(const Graph& graph, const Node& node) {
  return node.op == "MatMul" && std::ranges::any_of(node.inputs, [&](ValueId x) {
           const Tensor* const constant = ConstantOf(graph, x);
           return constant != nullptr && constant->elements() > kMostFactors;
         });
}

// Its results are angles where its inputs are: octet:MatMul, too.
bool IsLinear(const Node& node) {
  constexpr std::array<std::string_view, 5> kLinear = {"Mul", "Div", "Add", "Sub", "MatMul"};
  return std::ranges::contains(kLinear, node.op) || MovesElements(node) ||
         node.is("Convert", kOctetDomain);
}

}  // namespace

Angles::Angles(const Graph& graph) : angles_(static_cast<size_t>(graph.value_count())) {
  for (const NodeId id : std::views::reverse(graph.order())) {
    const Node& node = graph.node(id);
    const bool into_angles = std::ranges::any_of(
        node.outputs, [&](ValueId y) { return y != kNone && angles_[static_cast<size_t>(y)]; });
    const bool makes_angles = into_angles && IsLinear(node) && !IsLayer(graph, node);
    if (!makes_angles && !node.is("Sin") && !node.is("Cos")) continue;
    for (const ValueId x : node.inputs) {
      if (x != kNone) angles_[static_cast<size_t>(x)] = true;
    }
  }
}

bool Angles::IsFactor(const Graph& graph, ValueId id) const {
  const Tensor* const constant = ConstantOf(graph, id);
  return constant != nullptr && constant->elements() <= kMostFactors &&
         angles_[static_cast<size_t>(id)];
}

bool Angles::AreMadeBy(const Graph& graph, const Node& product) const {
  const ValueId y = product.output(0);
  return y != kNone && angles_[static_cast<size_t>(y)] && !IsLayer(graph, product);
}

}  // namespace octet
