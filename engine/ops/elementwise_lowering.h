// Steps for elementwise nodes over typed values that never leave the cache: stored elements are widened,
// computed and rounded in blocks.
#pragma once

#include <memory>

#include "absl/status/statusor.h"

#include "engine/ops/op.h"

namespace octet {

/// Lowers a node of OpTraits::elementwise_unary.
/// "octet:elementwise": blocks of the family's own kernel. UNIMPLEMENTED for per-axis quantization.
absl::StatusOr<std::unique_ptr<Step>> LowerElementwiseUnary(const LowerContext& context);

/// Lowers two inputs with broadcasting: as ops/channel_scale.h says where that is possible, else as blocks of the real
/// function of the node's operator ("octet:elementwise") for real values of any stored type, post-ops included; the
/// family's kernel for integers and booleans.
absl::StatusOr<std::unique_ptr<Step>> LowerElementwiseBinary(const LowerContext& context);

/// Lowers any elementwise node without typed values or post-ops to its own kernel, "octet:elementwise".
absl::StatusOr<std::unique_ptr<Step>> LowerElementwiseKernel(const LowerContext& context);

/// Lowers octet:Convert: "octet:convert".
absl::StatusOr<std::unique_ptr<Step>> LowerConvert(const LowerContext& context);

}  // namespace octet
