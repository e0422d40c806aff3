// The precisions that a variant of a model comes in, under the names used everywhere.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace octet {

enum class Precision : uint8_t { kFp32, kFp16, kBf16, kInt8, kInt8Dynamic };

inline constexpr std::array kAllPrecisions = {Precision::kFp32, Precision::kFp16, Precision::kBf16,
                                              Precision::kInt8, Precision::kInt8Dynamic};

/// "fp32", "fp16", "bf16", "int8", "int8-dynamic".
std::string_view PrecisionName(Precision precision);
/// Inverse of PrecisionName; nullopt for an unknown name.
std::optional<Precision> ParsePrecision(std::string_view name);

}  // namespace octet
