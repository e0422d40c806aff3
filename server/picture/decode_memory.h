// A bound on the memory of all pictures that are being decoded.
#pragma once

#include <cstddef>
#include <utility>

namespace octet {

/// Memory that a picture takes from when its size is known until nobody needs its pixels any more. Thread-safety: each object
/// belongs to one thread at a time.
class DecodeMemory {
 public:
  /// Of all objects of the process together. A picture that needs more is decoded while no other one is.
  static constexpr size_t kMost = size_t{512} << 20;

  DecodeMemory() = default;
  /// Waits, in the order of arrival, until `bytes` are free. Requires: the thread holds no other one, else it may wait for itself.
  explicit DecodeMemory(size_t bytes);
  ~DecodeMemory() { Release(); }
  DecodeMemory(DecodeMemory&& other) noexcept : bytes_(std::exchange(other.bytes_, 0)) {}
  DecodeMemory& operator=(DecodeMemory&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  /// Bytes that are taken now.
  static size_t used();

 private:
  void Release();

  size_t bytes_ = 0;
};

}  // namespace octet
