#include "engine/passes/product.h"

#include <algorithm>

#include "engine/passes/match.h"

namespace octet {
namespace {

// Products of real models have a handful of factors; these bound hostile ones.
constexpr size_t kMaxFactors = 8;
constexpr int kMaxDepth = 16;
// Constants do not count as factors, but each power doubles or triples the visits to them.
constexpr int kMaxVisits = 64;

void Collect(const Graph& graph, ValueId value, int depth, int& visits, Product& product) {
  ++visits;
  if (const auto scalar = ScalarOf(graph, value)) {
    product.constant *= *scalar;
    return;
  }
  const Node* node = ProducerOf(graph, value);
  const bool open = node != nullptr && node->post_ops.empty() && depth < kMaxDepth &&
                    visits < kMaxVisits && product.factors.size() < kMaxFactors;
  if (open && node->is("Mul")) {
    Collect(graph, node->input(0), depth + 1, visits, product);
    Collect(graph, node->input(1), depth + 1, visits, product);
    return;
  }
  if (open && (node->is("Div") || node->is("Pow"))) {
    const auto right = ScalarOf(graph, node->input(1));
    if (right && node->is("Div")) {
      product.constant /= *right;
      return Collect(graph, node->input(0), depth + 1, visits, product);
    }
    if (right && (*right == 2.0F || *right == 3.0F)) {
      for (int i = 0; i < static_cast<int>(*right); ++i)
        Collect(graph, node->input(0), depth + 1, visits, product);
      return;
    }
  }
  product.factors.push_back(value);
}

}  // namespace

bool Product::Remove(ValueId value) {
  const auto found = std::ranges::find(factors, value);
  if (found == factors.end()) return false;
  factors.erase(found);
  return true;
}

Product Factorize(const Graph& graph, ValueId value) {
  Product product;
  int visits = 0;
  Collect(graph, value, 0, visits, product);
  return product;
}

Shifted AsShifted(const Graph& graph, ValueId value) {
  const Node* node = ProducerOf(graph, value);
  if (node == nullptr || !node->post_ops.empty()) return {};
  if (node->is("Add")) {
    if (const auto c = ScalarOf(graph, node->input(1))) return {node->input(0), *c};
    if (const auto c = ScalarOf(graph, node->input(0))) return {node->input(1), *c};
  }
  if (node->is("Sub")) {
    if (const auto c = ScalarOf(graph, node->input(1))) return {node->input(0), -*c};
  }
  return {};
}

}  // namespace octet
