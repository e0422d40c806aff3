// Attributes of a node: named constants that are fixed when the model is written.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/value_type.h"
#include "engine/tensor/tensor.h"

namespace octet {

class Graph;

/// A body of If, Loop, Scan or SequenceMap is shared by the copies of the node that has it, and never changed.
using Subgraph = std::shared_ptr<const Graph>;

using AttributeValue =
    std::variant<int64_t, float, std::string, std::vector<int64_t>, std::vector<float>,
                 std::vector<std::string>, Tensor, Subgraph, ValueType>;

/// Name -> value. The typed getters return `fallback` when the attribute is absent, and an
/// INVALID_ARGUMENT that names attribute, expected and actual type when it has another type.
class Attributes {
 public:
  bool has(std::string_view name) const { return map_.contains(name); }
  void Set(std::string name, AttributeValue value) {
    map_.insert_or_assign(std::move(name), std::move(value));
  }
  void Erase(std::string_view name);

  absl::StatusOr<int64_t> Int(std::string_view name, int64_t fallback) const;
  absl::StatusOr<float> Float(std::string_view name, float fallback) const;
  absl::StatusOr<std::string> String(std::string_view name, std::string_view fallback) const;
  absl::StatusOr<std::vector<int64_t>> Ints(std::string_view name,
                                            std::vector<int64_t> fallback) const;
  absl::StatusOr<std::vector<float>> Floats(std::string_view name,
                                            std::vector<float> fallback) const;
  absl::StatusOr<std::vector<std::string>> Strings(std::string_view name,
                                                   std::vector<std::string> fallback) const;
  /// Null when absent.
  absl::StatusOr<const Tensor*> TensorOrNull(std::string_view name) const;

  /// Null when absent.
  absl::StatusOr<Subgraph> GraphOrNull(std::string_view name) const;
  absl::StatusOr<ValueType> Type(std::string_view name, ValueType fallback) const;

  /// For passes, on attributes that validation has already typed: returns fallback on any mismatch.
  int64_t IntOr(std::string_view name, int64_t fallback) const;

  auto begin() const { return map_.begin(); }
  auto end() const { return map_.end(); }
  size_t size() const { return map_.size(); }

 private:
  std::map<std::string, AttributeValue, std::less<>> map_;
};

}  // namespace octet
