// Tensors of a request where a transport received them.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

#include "engine/tensor/tensor.h"

namespace octet {

/// Bytes in one piece, or in several that follow each other, as a transport received them. A view.
class WireBytes {
 public:
  WireBytes() = default;
  WireBytes(std::string_view whole) : whole_(whole), size_(whole.size()) {}  // NOLINT(*-explicit-*)
  explicit WireBytes(std::span<const std::string_view> pieces) {
    for (const std::string_view piece : pieces) size_ += piece.size();
    if (pieces.size() == 1) {
      whole_ = pieces[0];
    } else {
      pieces_ = pieces;
    }
  }

  size_t size() const { return size_; }
  bool in_pieces() const { return !pieces_.empty(); }
  /// Requires: !in_pieces().
  std::string_view whole() const { return whole_; }
  /// Empty for bytes in one piece.
  std::span<const std::string_view> pieces() const { return pieces_; }

  void CopyTo(void* dst) const {
    auto* to = static_cast<char*>(dst);
    for (const std::string_view piece : in_pieces() ? pieces_ : std::span(&whole_, 1)) {
      if (!piece.empty()) std::memcpy(to, piece.data(), piece.size());
      to += piece.size();
    }
  }

 private:
  std::string_view whole_;
  std::span<const std::string_view> pieces_;
  size_t size_ = 0;
};

/// A tensor of a request. Elements may be unaligned; those of BYTES are views of their texts, in one piece.
struct WireTensor : ConstTensorView {
  WireTensor() = default;
  WireTensor(ConstTensorView view) : ConstTensorView(view) {}  // NOLINT(*-explicit-*)
  WireTensor(const void* elements, TensorSpec tensor)
      : ConstTensorView{elements, std::move(tensor)} {}
  WireTensor(const WireBytes& bytes, TensorSpec tensor)
      : ConstTensorView{bytes.in_pieces() ? nullptr : bytes.whole().data(), std::move(tensor)},
        pieces(bytes.pieces()) {}

  /// Where the elements are when `data` is null. An element may lie across two of them.
  std::span<const std::string_view> pieces;

  bool in_pieces() const { return !pieces.empty(); }
  /// Requires: not of BYTES.
  void CopyTo(void* dst) const {
    const WireBytes all =
        in_pieces() ? WireBytes(pieces)
                    : WireBytes(std::string_view(static_cast<const char*>(data), bytes()));
    all.CopyTo(dst);
  }
};

}  // namespace octet
