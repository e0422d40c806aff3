// A state whose extents follow from what a sequence has been sent: the past of a decoder.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

#include "engine/engine.h"

namespace octet {

/// One copy of such a state. Its memory counts in a total that many share, and is kept for the next, larger content.
/// Thread-safety: one thread at a time; those of one total may be used at once.
class GrowingState {
 public:
  explicit GrowingState(std::shared_ptr<std::atomic<size_t>> total) : total_(std::move(total)) {}
  ~GrowingState() { Clear(); }
  GrowingState(GrowingState&& other) noexcept;
  GrowingState& operator=(GrowingState&&) = delete;

  /// Makes room for another content, and forgets this one. False, without room, when the total would be more than `most_total`
  /// bytes. Throws bad_alloc.
  bool Reserve(TensorSpec spec, size_t most_total);

  /// Gives the memory back.
  void Clear();

  const TensorSpec& spec() const { return spec_; }
  std::byte* data() const { return bytes_.get(); }
  size_t capacity() const { return capacity_; }

 private:
  std::shared_ptr<std::atomic<size_t>> total_;
  std::shared_ptr<std::byte[]> bytes_;
  size_t capacity_ = 0;
  TensorSpec spec_;
};

}  // namespace octet
