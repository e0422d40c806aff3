// Products of one row of floats with packed weights.
#pragma once

#include <memory>
#include <optional>

#include "oneapi/dnnl/dnnl.hpp"

#include "engine/ops/gemv.h"
#include "engine/ops/step.h"
#include "engine/tensor/tensor.h"

namespace octet {

/// The layout that oneDNN's matmul has packed [K, N] weights into, when Gemv can read it; its `panels` stay null.
std::optional<PackedMatrix> GemvLayout(const dnnl::memory::desc& weights);

/// y[N] = post_ops(x[K] B + bias[N]), all F32. oneDNN's kernels for many rows keep a quarter of the sums in flight that
/// one row needs: they take up to twice as long. Requires: post-ops without operands. `bias` may have no elements.
std::unique_ptr<Step> MakeGemvStep(const LowerContext& context, PackedMatrix layout,
                                   std::shared_ptr<const std::byte[]> weights, Tensor bias);

}  // namespace octet
