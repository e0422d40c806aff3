// Linear Resize of values that are rounded to 8 bits: sums of corners in the order in which ONNX Runtime adds them up.
#pragma once

#include <memory>
#include <vector>

#include "engine/ops/resize.h"
#include "engine/ops/step.h"

namespace octet {

/// Whether every axis that changes has two taps, and there are one to three of them.
bool BlendsCorners(const std::vector<AxisTable>& tables);

/// y = sum over corners of ((w_last * w_middle) * w_first) * x, the last axis fastest, every product and sum rounded to float and none
/// fused: of ties, of which integers make many, each falls to the side that it falls to there.
/// Requires: BlendsCorners, values of any RealFormat, no empty ones.
std::unique_ptr<Step> MakeCornerStep(const LowerContext& context,
                                     const std::vector<AxisTable>& tables);

}  // namespace octet
