#include "engine/tensor/shape.h"

#include <algorithm>

namespace octet {
namespace {

// One pair of extents, aligned from the back. nullopt when they do not broadcast.
std::optional<int64_t> BroadcastDim(int64_t a, int64_t b) {
  if (a == b || b == 1) return a;
  if (a == 1 || a == kUnknownDim) return b;
  if (b == kUnknownDim) return a;
  return std::nullopt;
}

}  // namespace

Shape::Shape(const Shape&) = default;
Shape::Shape(Shape&&) noexcept = default;
Shape& Shape::operator=(const Shape&) = default;
Shape& Shape::operator=(Shape&&) noexcept = default;

bool Shape::is_static() const {
  return std::ranges::none_of(dims_, [](int64_t d) { return d == kUnknownDim; });
}

int64_t Shape::elements() const { return elements(0, rank()); }

int64_t Shape::elements(int from, int to) const {
  int64_t product = 1;
  for (int i = from; i < to; ++i) product *= dims_[i];
  return product;
}

absl::InlinedVector<int64_t, 6> Shape::strides() const {
  absl::InlinedVector<int64_t, 6> strides(dims_.size());
  int64_t stride = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    strides[i] = stride;
    stride *= dims_[i];
  }
  return strides;
}

std::string Shape::ToString() const {
  std::string text = "[";
  for (const int64_t d : dims_) {
    if (text.size() > 1) text += ',';
    text += d == kUnknownDim ? "?" : std::to_string(d);
  }
  return text + "]";
}

std::optional<int64_t> CheckedElements(std::span<const int64_t> dims) {
  constexpr int64_t kLimit = int64_t{1} << 62;
  // Extents of 0 count as 1 for the limit, so that strides of an accepted shape never overflow.
  int64_t product = 1;
  bool empty = false;
  for (const int64_t d : dims) {
    if (d < 0) return std::nullopt;
    empty |= d == 0;
    const int64_t factor = std::max<int64_t>(d, 1);
    if (product > kLimit / factor) return std::nullopt;
    product *= factor;
  }
  return empty ? 0 : product;
}

std::optional<Shape> Broadcast(const Shape& a, const Shape& b) {
  const Shape& longer = a.rank() >= b.rank() ? a : b;
  const Shape& shorter = a.rank() >= b.rank() ? b : a;
  Shape result = longer;
  const int offset = longer.rank() - shorter.rank();
  for (int i = 0; i < shorter.rank(); ++i) {
    const std::optional<int64_t> dim = BroadcastDim(longer[offset + i], shorter[i]);
    if (!dim) return std::nullopt;
    result[offset + i] = *dim;
  }
  return result;
}

std::optional<int> NormalizeAxis(int64_t axis, int rank) {
  if (axis < -rank || axis >= rank) return std::nullopt;
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

}  // namespace octet
