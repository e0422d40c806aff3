// Products of one row with packed weights.
#pragma once

#include <memory>
#include <span>

#include "engine/ops/gemv.h"
#include "engine/ops/int8_numbers.h"
#include "engine/ops/step.h"
#include "engine/ops/whole_sums.h"
#include "engine/tensor/panel_layout.h"
#include "engine/tensor/tensor.h"

namespace octet {

/// y[N] = post_ops(x[K] B + bias[N]), all F32, or x and B BF16 and y either, the sums F32. oneDNN's kernels for many rows keep a
/// quarter of the sums in flight that one row needs: they take up to twice as long. `bias` may have no elements. Requires:
/// post-ops without operands.
std::unique_ptr<Step> MakeGemvStep(const LowerContext& context, const PanelLayout& layout,
                                   std::shared_ptr<const std::byte[]> weights, Tensor bias);

/// The same for 8-bit x and y, with post-ops that are bounds (NumbersOf): see GemvInt8. `column_sums`: N sums of the weights of
/// a column.
std::unique_ptr<Step> MakeGemvInt8Step(const PanelLayout& layout,
                                       std::shared_ptr<const std::byte[]> weights,
                                       const Int8Numbers& numbers, const WholeSums& whole,
                                       std::span<const int32_t> column_sums);

/// The same for y of F32 and x of 8 bits, or of F32 that is quantized when it runs (ONNX DynamicQuantizeLinear): see
/// GemvInt8ToReals. `bias` may have no elements. Requires: post-ops without operands.
std::unique_ptr<Step> MakeGemvRealsStep(const LowerContext& context, const PanelLayout& layout,
                                        std::shared_ptr<const std::byte[]> weights,
                                        const Tensor& bias, std::span<const int32_t> column_sums);

}  // namespace octet
