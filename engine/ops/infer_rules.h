// What most operators' shape inference is made of: checks with clear messages, and the common shapes.
//
// InferContext::dtype() is the logical element type: F32 for a value with `quant`.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>

#include "absl/status/status.h"

#include "engine/ops/op.h"
#include "engine/tensor/limits.h"

namespace octet {

/// A set of element types that an operator accepts.
class DTypeSet {
 public:
  constexpr DTypeSet(std::initializer_list<DType> types) {
    for (const DType type : types) bits_ |= uint32_t{1} << static_cast<int>(type);
  }
  constexpr bool contains(DType type) const { return bits_ >> static_cast<int>(type) & 1; }
  constexpr DTypeSet operator|(DTypeSet other) const { return DTypeSet(bits_ | other.bits_); }
  /// "FP16, FP32".
  std::string ToString() const;

 private:
  constexpr explicit DTypeSet(uint32_t bits) : bits_(bits) {}
  uint32_t bits_ = 0;
};

inline constexpr DTypeSet kFloats = {DType::kF16, DType::kBF16, DType::kF32, DType::kF64};
inline constexpr DTypeSet kSignedInts = {DType::kI8, DType::kI16, DType::kI32, DType::kI64};
inline constexpr DTypeSet kUnsignedInts = {DType::kU8, DType::kU16, DType::kU32, DType::kU64};
inline constexpr DTypeSet kIntegers = kSignedInts | kUnsignedInts;
inline constexpr DTypeSet kSignedNumbers = kFloats | kSignedInts;
inline constexpr DTypeSet kNumbers = kFloats | kIntegers;
inline constexpr DTypeSet kBools = {DType::kBool};
inline constexpr DTypeSet kAnyTypes = kNumbers | kBools;
inline constexpr DTypeSet kStrings = {DType::kString};
inline constexpr DTypeSet kIndexTypes = {DType::kI32, DType::kI64};

/// True when values of the two types may meet in one operator: equal, or both of F32, F16 and BF16 (a pass
/// may have narrowed one of them).
bool SameRealKind(DType a, DType b);

/// INVALID_ARGUMENT unless the node has between `min` and `max` inputs, the first `min` of them present.
absl::Status ExpectInputCount(const InferContext& context, size_t min, size_t max);
/// The same, and output 0 must be present, too.
absl::Status ExpectInputs(const InferContext& context, size_t min, size_t max);
/// INVALID_ARGUMENT unless input `i` is absent, or its type is in `accepted`.
absl::Status ExpectDType(const InferContext& context, size_t i, DTypeSet accepted);
/// INVALID_ARGUMENT unless inputs `i` and `j` are of one type (SameRealKind) where both are present.
absl::Status ExpectSameDType(const InferContext& context, size_t i, size_t j);
/// INVALID_ARGUMENT unless input `i` is absent, of an open shape, or has one element.
absl::Status ExpectScalar(const InferContext& context, size_t i);
/// INVALID_ARGUMENT unless input `i` is absent, of unknown rank, or [extent] (kUnknownDim: any).
absl::Status ExpectVector(const InferContext& context, size_t i, int64_t extent);
/// INVALID_ARGUMENT unless input `i` is absent, of unknown rank, or of a rank in [min, max].
absl::Status ExpectRank(const InferContext& context, size_t i, int min, int max);
/// The integer attribute `name` as an axis in [0, rank). INVALID_ARGUMENT when outside [-rank, rank).
absl::StatusOr<int> AxisAttribute(const InferContext& context, std::string_view name,
                                  int64_t fallback, int rank);

/// One to one: output 0 has input 0's type and shape. Requires: `min` to `max` inputs, input 0 in `accepted`.
absl::Status InferSameAsInput(InferContext& context, DTypeSet accepted, size_t min = 1,
                              size_t max = 1);
/// Output 0 is the broadcast of inputs [first, first + count); its type is `result`, or input `first`'s.
absl::Status InferBroadcast(InferContext& context, size_t first, size_t count, DTypeSet accepted,
                            std::optional<DType> result = std::nullopt);

}  // namespace octet
