// Names of what quantization adds to a graph.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "engine/graph/graph.h"

namespace octet {

/// A letter and a number to the base of 62, which no value of the graph has. Nobody looks for these values; with names made of the weights' own, a file
/// would spend several bytes of names on each of its channels.
class ShortNames {
 public:
  explicit ShortNames(const Graph& graph) { Take(graph); }

  std::string Next(char kind) {
    std::string name;
    do {
      name = kind + Digits(next_[kind]++);
    } while (!taken_.insert(name).second);
    return name;
  }

  /// The name of a constant, which gives it up to what takes its place in its only reader; a new one where others read it.
  std::string InPlaceOf(Graph& graph, ValueId constant) {
    std::string name = Next('w');
    if (graph.SoleConsumer(constant) != kNone) std::swap(graph.mutable_value(constant).name, name);
    return name;
  }

 private:
  /// Names in bodies hide none of the graph's.
  void Take(const Graph& graph) {
    for (ValueId id = 0; id < graph.value_count(); ++id) taken_.insert(graph.value(id).name);
    for (const NodeId id : graph.order()) {
      for (const auto& [unused, attribute] : graph.node(id).attributes) {
        if (const auto* body = std::get_if<Subgraph>(&attribute)) Take(**body);
      }
    }
  }

  static std::string Digits(int number) {
    constexpr std::string_view kDigits =
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    constexpr int kBase = static_cast<int>(kDigits.size());
    std::string digits;
    do {
      digits.insert(digits.begin(), kDigits[static_cast<size_t>(number % kBase)]);
      number /= kBase;
    } while (number > 0);
    return digits;
  }

  std::set<std::string> taken_;
  std::map<char, int> next_;
};

}  // namespace octet
