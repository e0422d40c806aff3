// The extents of a tensor, outermost first, row-major.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>

#include "absl/container/inlined_vector.h"

namespace octet {

/// An extent that is not known before a request arrives (a symbolic batch, for example).
inline constexpr int64_t kUnknownDim = -1;

/// Extents of a tensor. Rank 0 is a scalar. An extent may be 0 (empty tensor) or kUnknownDim.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : dims_(dims) {}
  explicit Shape(std::span<const int64_t> dims) : dims_(dims.begin(), dims.end()) {}
  // Out of line: inlined, GCC 14 mistakes the unused inline storage for a read of uninitialised memory.
  Shape(const Shape&);
  Shape(Shape&&) noexcept;
  Shape& operator=(const Shape&);
  Shape& operator=(Shape&&) noexcept;

  int rank() const { return static_cast<int>(dims_.size()); }
  int64_t operator[](int i) const { return dims_[i]; }
  int64_t& operator[](int i) { return dims_[i]; }
  int64_t back() const { return dims_.back(); }
  std::span<const int64_t> dims() const { return dims_; }
  void push_back(int64_t d) { dims_.push_back(d); }
  auto begin() const { return dims_.begin(); }
  auto end() const { return dims_.end(); }
  bool operator==(const Shape&) const = default;

  /// True when no extent is kUnknownDim.
  bool is_static() const;
  /// Product of the extents; 1 for a scalar. Requires: is_static().
  int64_t elements() const;
  /// Product of extents [from, to). Requires: those extents are known.
  int64_t elements(int from, int to) const;
  /// Row-major strides in elements. Requires: is_static().
  absl::InlinedVector<int64_t, 6> strides() const;
  /// "[1,3,224,224]"; unknown extents print as "?".
  std::string ToString() const;

 private:
  absl::InlinedVector<int64_t, 6> dims_;
};

/// Number of elements, or nullopt when an extent is negative or the product exceeds 2^62.
/// For shapes that come from a file or a wire.
std::optional<int64_t> CheckedElements(std::span<const int64_t> dims);

/// Multidirectional (numpy) broadcast of two shapes; an unknown extent against a known one > 1 gives
/// the known one. nullopt when they do not broadcast. Source: ONNX Broadcasting.md.
std::optional<Shape> Broadcast(const Shape& a, const Shape& b);

/// Maps a possibly negative axis into [0, rank); nullopt outside [-rank, rank).
std::optional<int> NormalizeAxis(int64_t axis, int rank);

}  // namespace octet
