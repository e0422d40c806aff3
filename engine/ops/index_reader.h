// Index tensors of gathers and scatters: I32 or I64, negative ones counting from the end.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"

#include "engine/tensor/status.h"
#include "engine/tensor/tensor.h"

namespace octet {

/// Reads indices of either type. Every index is checked before it is used: they arrive with requests.
class IndexReader {
 public:
  explicit IndexReader(ConstTensorView view) : view_(view), size_(view.elements()) {}

  int64_t size() const { return size_; }
  int64_t Raw(int64_t i) const {
    return view_.dtype() == DType::kI32 ? view_.as<int32_t>()[i] : view_.as<int64_t>()[i];
  }
  bool InRange(int64_t i, int64_t extent) const {
    const int64_t raw = Raw(i);
    return -extent <= raw && raw < extent;
  }
  /// Position in [0, extent). Requires: InRange(i, extent).
  int64_t At(int64_t i, int64_t extent) const {
    const int64_t raw = Raw(i);
    return raw < 0 ? raw + extent : raw;
  }
  /// INVALID_ARGUMENT naming `who` and the first index outside [-extent, extent).
  absl::Status CheckAll(int64_t extent, std::string_view who) const {
    for (int64_t i = 0; i < size_; ++i) {
      if (!InRange(i, extent)) return OutOfRange(i, extent, who);
    }
    return absl::OkStatus();
  }
  absl::Status OutOfRange(int64_t i, int64_t extent, std::string_view who) const {
    return InvalidArgument("{}: index {} is outside [-{}, {}): {}", who, i, extent, extent, Raw(i));
  }

 private:
  ConstTensorView view_;
  int64_t size_;
};

}  // namespace octet
