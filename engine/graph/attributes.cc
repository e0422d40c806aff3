#include "engine/graph/attributes.h"

#include "engine/tensor/status.h"

namespace octet {
namespace {

template <typename T>
constexpr std::string_view kTypeName = "";
template <>
constexpr std::string_view kTypeName<int64_t> = "int";
template <>
constexpr std::string_view kTypeName<float> = "float";
template <>
constexpr std::string_view kTypeName<std::string> = "string";
template <>
constexpr std::string_view kTypeName<std::vector<int64_t>> = "ints";
template <>
constexpr std::string_view kTypeName<std::vector<float>> = "floats";
template <>
constexpr std::string_view kTypeName<std::vector<std::string>> = "strings";
template <>
constexpr std::string_view kTypeName<Tensor> = "tensor";
template <>
constexpr std::string_view kTypeName<Subgraph> = "graph";
template <>
constexpr std::string_view kTypeName<ValueType> = "type";

template <typename T>
using AttributeMap = std::map<std::string, T, std::less<>>;

// Null when absent.
template <typename T>
absl::StatusOr<const T*> Find(const AttributeMap<AttributeValue>& map, std::string_view name) {
  const auto found = map.find(name);
  if (found == map.end()) return nullptr;
  if (const T* value = std::get_if<T>(&found->second)) return value;
  const std::string_view actual = std::visit(
      []<typename U>(const U&) -> std::string_view { return kTypeName<U>; }, found->second);
  return InvalidArgument("wrong type of attribute '{}': expected {}, got {}", name, kTypeName<T>,
                         actual);
}

template <typename T>
absl::StatusOr<T> FindOr(const AttributeMap<AttributeValue>& map, std::string_view name,
                         T fallback) {
  absl::StatusOr<const T*> found = Find<T>(map, name);
  if (!found.ok()) return found.status();
  return *found == nullptr ? std::move(fallback) : **found;
}

}  // namespace

void Attributes::Erase(std::string_view name) {
  if (const auto found = map_.find(name); found != map_.end()) map_.erase(found);
}

absl::StatusOr<int64_t> Attributes::Int(std::string_view name, int64_t fallback) const {
  return FindOr<int64_t>(map_, name, fallback);
}

absl::StatusOr<float> Attributes::Float(std::string_view name, float fallback) const {
  return FindOr<float>(map_, name, fallback);
}

absl::StatusOr<std::string> Attributes::String(std::string_view name,
                                               std::string_view fallback) const {
  return FindOr<std::string>(map_, name, std::string(fallback));
}

absl::StatusOr<std::vector<int64_t>> Attributes::Ints(std::string_view name,
                                                      std::vector<int64_t> fallback) const {
  return FindOr<std::vector<int64_t>>(map_, name, std::move(fallback));
}

absl::StatusOr<std::vector<float>> Attributes::Floats(std::string_view name,
                                                      std::vector<float> fallback) const {
  return FindOr<std::vector<float>>(map_, name, std::move(fallback));
}

absl::StatusOr<std::vector<std::string>> Attributes::Strings(
    std::string_view name, std::vector<std::string> fallback) const {
  return FindOr<std::vector<std::string>>(map_, name, std::move(fallback));
}

absl::StatusOr<const Tensor*> Attributes::TensorOrNull(std::string_view name) const {
  return Find<Tensor>(map_, name);
}

absl::StatusOr<Subgraph> Attributes::GraphOrNull(std::string_view name) const {
  return FindOr<Subgraph>(map_, name, nullptr);
}

absl::StatusOr<ValueType> Attributes::Type(std::string_view name, ValueType fallback) const {
  return FindOr<ValueType>(map_, name, fallback);
}

int64_t Attributes::IntOr(std::string_view name, int64_t fallback) const {
  return Int(name, fallback).value_or(fallback);
}

}  // namespace octet
