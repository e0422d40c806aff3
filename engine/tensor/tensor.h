// Tensor owns its elements, TensorView points at somebody else's. Both are dense and row-major.
//
// An element of DType::kString is a std::string_view. Elements are moved as any others are, without their characters; a
// Tensor that outlives what its elements point into is made by Tensor::Strings, which owns the characters, too.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

#include "engine/tensor/dtype.h"
#include "engine/tensor/shape.h"

namespace octet {

/// Alignment of every tensor buffer and arena offset: one cache line, one AVX-512 register.
inline constexpr size_t kTensorAlignment = 64;

/// Buffers of a huge page and more begin at one and ask the system for huge pages.
inline constexpr size_t kHugePage = size_t{2} << 20;
/// The least multiple of kTensorAlignment that is not below `bytes`.
constexpr size_t AlignUp(size_t bytes) {
  return (bytes + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
}
/// The same of floats, counted in floats.
constexpr int64_t AlignUpFloats(int64_t floats) {
  constexpr auto kUnit = static_cast<int64_t>(kTensorAlignment / sizeof(float));
  return (floats + kUnit - 1) / kUnit * kUnit;
}

/// Allocates at least `bytes`, aligned to kTensorAlignment, uninitialised. Never null (0 bytes too).
std::shared_ptr<std::byte[]> AllocateAligned(size_t bytes);

/// Element type and extents, without data.
struct TensorSpec {
  DType dtype = DType::kUndefined;
  Shape shape;
  bool operator==(const TensorSpec&) const = default;
  size_t bytes() const { return SizeOf(dtype) * static_cast<size_t>(shape.elements()); }
};

/// Points at dense row-major elements that somebody else owns. `data` is null for an absent optional
/// input. Copying copies the pointer.
struct ConstTensorView {
  const void* data = nullptr;
  TensorSpec spec;

  const Shape& shape() const { return spec.shape; }
  DType dtype() const { return spec.dtype; }
  int64_t elements() const { return spec.shape.elements(); }
  size_t bytes() const { return spec.bytes(); }
  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
  template <typename T>
  std::span<const T> span() const {
    return {as<T>(), static_cast<size_t>(elements())};
  }
};

struct TensorView {
  void* data = nullptr;
  TensorSpec spec;

  const Shape& shape() const { return spec.shape; }
  DType dtype() const { return spec.dtype; }
  int64_t elements() const { return spec.shape.elements(); }
  size_t bytes() const { return spec.bytes(); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  template <typename T>
  std::span<T> span() const {
    return {as<T>(), static_cast<size_t>(elements())};
  }
  operator ConstTensorView() const { return {data, spec}; }  // NOLINT(google-explicit-constructor)
};

/// A tensor that shares ownership of its elements. Copying is cheap and shares them; whoever writes
/// does so before the first copy. Thread-safety: concurrent reads are safe.
class Tensor {
 public:
  Tensor() = default;
  /// Allocates elements: empty strings, numbers that are not initialised. Requires: a static shape.
  Tensor(DType dtype, Shape shape);
  /// Wraps elements owned by `owner` (a mapped file, for example).
  Tensor(DType dtype, Shape shape, std::shared_ptr<const void> owner, const void* data);

  /// Copies `values`. Requires: values.size() == shape.elements().
  template <typename T>
    requires(!std::is_same_v<T, std::string_view>)
  static Tensor From(Shape shape, std::span<const T> values) {
    Tensor t(DTypeOf<T>, std::move(shape));
    if (!values.empty()) std::memcpy(t.mutable_data(), values.data(), values.size_bytes());
    return t;
  }
  template <typename T>
  static Tensor From(Shape shape, std::initializer_list<T> values) {
    return From<T>(std::move(shape), std::span<const T>(values.begin(), values.size()));
  }
  template <typename T>
  static Tensor Scalar(T value) {
    return From<T>(Shape{}, std::span<const T>(&value, 1));
  }
  /// Copies `texts` with their characters: one block of memory. Requires: texts.size() == shape.elements().
  static Tensor Strings(Shape shape, std::span<const std::string_view> texts);

  bool empty_handle() const {
    return data_ == nullptr;
  }  ///< Default-constructed: no tensor at all.
  const TensorSpec& spec() const { return spec_; }
  DType dtype() const { return spec_.dtype; }
  const Shape& shape() const { return spec_.shape; }
  int64_t elements() const { return spec_.shape.elements(); }
  size_t bytes() const { return spec_.bytes(); }
  const void* data() const { return data_; }
  /// What keeps the elements alive.
  const std::shared_ptr<const void>& owner() const { return owner_; }
  void* mutable_data() { return const_cast<void*>(data_); }
  template <typename T>
  std::span<const T> span() const {
    return {static_cast<const T*>(data_), static_cast<size_t>(elements())};
  }
  template <typename T>
  std::span<T> mutable_span() {
    return {static_cast<T*>(mutable_data()), static_cast<size_t>(elements())};
  }
  ConstTensorView view() const { return {data_, spec_}; }
  TensorView mutable_view() { return {mutable_data(), spec_}; }
  /// Same elements under another shape. Requires: equal element counts.
  Tensor Reshaped(Shape shape) const;

 private:
  TensorSpec spec_;
  std::shared_ptr<const void> owner_;
  const void* data_ = nullptr;
};

/// Gives the pages that the first `bytes` bytes of the elements fill back to the system; what they held is lost. Of memory that
/// AllocateAligned made alone, by huge pages: other memory stays as it is.
/// Requires: bytes <= tensor.bytes(), and nobody reads the elements any more, through whatever tensor.
void DiscardFirst(const Tensor& tensor, size_t bytes);

/// What elements hold in memory: their bytes, and the characters that strings point at.
uint64_t MemoryBytes(const ConstTensorView& view);

}  // namespace octet
