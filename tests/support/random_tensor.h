// Tensors of random elements for tests, the same for the same seed.
#pragma once

#include <random>

#include "engine/tensor/quant_params.h"
#include "engine/tensor/tensor.h"

namespace octet::testing {

/// F32, uniform in [low, high).
inline Tensor RandomReals(Shape shape, uint32_t seed, float low = -1, float high = 1) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(low, high);
  Tensor tensor(DType::kF32, std::move(shape));
  for (float& x : tensor.mutable_span<float>()) x = uniform(random);
  return tensor;
}

/// U8 or I8 over the type's whole range, but for -128, which symmetric weights do not use.
inline Tensor RandomBytes(DType dtype, Shape shape, uint32_t seed) {
  std::mt19937 random(seed);
  Tensor tensor(dtype, std::move(shape));
  auto* bytes = static_cast<uint8_t*>(tensor.mutable_data());
  for (size_t i = 0; i < tensor.bytes(); ++i) {
    const auto byte = static_cast<uint8_t>(random());
    bytes[i] = dtype == DType::kI8 && byte == 0x80 ? 0x81 : byte;
  }
  return tensor;
}

/// Scales that are powers of two, so that every product of integers and scales is exact in float: along `axis`, one per
/// channel, all zero points 0.
inline QuantParams PowerOfTwoScales(int64_t channels, int axis) {
  QuantParams params{{}, std::vector<int32_t>(static_cast<size_t>(channels), 0), axis};
  for (int64_t i = 0; i < channels; ++i)
    params.scales.push_back(i % 3 == 0 ? 0x1p-7f : i % 3 == 1 ? 0x1p-6f : 0x1p-8f);
  return params;
}

}  // namespace octet::testing
