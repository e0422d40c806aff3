// Reals however they are stored: read in pieces that stay in the cache, computed in float, rounded once when written.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/tensor/dtype.h"
#include "engine/tensor/quant_params.h"

namespace octet {

/// How reals are stored: F32, F16, BF16, or 8-bit integers with one scale and zero point. Thread-safety: pure.
struct RealFormat {
  DType stored = DType::kF32;
  std::optional<QuantParams> quant;

  bool plain() const { return stored == DType::kF32; }
  /// The reals of elements [offset, offset + n): in place when stored as F32, else written to `buffer`.
  const float* Read(const void* base, int64_t offset, int64_t n, float* buffer) const;
  /// Rounds `reals` into elements [offset, offset + n).
  void Write(const float* reals, void* base, int64_t offset, int64_t n) const;
  bool operator==(const RealFormat&) const = default;
};

}  // namespace octet
