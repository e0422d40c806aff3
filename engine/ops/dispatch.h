// From an element type known at run time to a template instance.
//
// F16 and BF16 never reach an arithmetic kernel: ops/reference_step.h widens them to F32 before it and rounds
// after it. Only kernels that move elements, or whose family sets OpTraits::any_types, see them.
#pragma once

#include <format>

#include "absl/status/statusor.h"

#include "engine/ops/op.h"
#include "engine/tensor/status.h"

namespace octet {

template <typename... Ts>
struct Types {};

template <typename... As, typename... Bs>
constexpr Types<As..., Bs...> operator+(Types<As...>, Types<Bs...>) {
  return {};
}

inline constexpr Types<float, double> kRealKernels;
inline constexpr Types<uint8_t, int8_t> kByteKernels;
inline constexpr Types<int8_t, int16_t, int32_t, int64_t> kSignedKernels;
inline constexpr Types<uint8_t, uint16_t, uint32_t, uint64_t> kUnsignedKernels;
inline constexpr auto kIntegerKernels = kSignedKernels + kUnsignedKernels;
inline constexpr auto kNumberKernels = kRealKernels + kIntegerKernels;
inline constexpr auto kNumberAndBoolKernels = kNumberKernels + Types<bool>{};
/// Elements that are only moved: by their storage, one instance per width.
inline constexpr Types<uint8_t, uint16_t, uint32_t, uint64_t> kStorageKernels;

/// The unsigned integer of the element's width: what a kernel that moves elements dispatches on.
constexpr DType StorageOf(DType dtype) {
  switch (SizeOf(dtype)) {
    case 1:
      return DType::kU8;
    case 2:
      return DType::kU16;
    case 4:
      return DType::kU32;
    case 8:
      return DType::kU64;
    default:
      return DType::kUndefined;
  }
}

/// Returns make.template operator()<T>() for the T of `types` whose DType is `dtype`. The lambda returns a
/// Kernel or StatusOr<Kernel>. UNIMPLEMENTED naming the node when `types` has no such T.
template <typename... Ts, typename Make>
absl::StatusOr<Kernel> KernelFor(Types<Ts...>, DType dtype, const Node& node, const Make& make) {
  absl::StatusOr<Kernel> kernel =
      Unimplemented("{}: no kernel for element type {}", Describe(node), DTypeName(dtype));
  (void)((DTypeOf<Ts> == dtype && (kernel = make.template operator()<Ts>(), true)) || ...);
  return kernel;
}

}  // namespace octet
