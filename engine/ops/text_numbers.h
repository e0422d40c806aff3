// Numbers as text and back, which is what Cast does between numbers and strings.
#pragma once

#include "absl/status/statusor.h"

#include "engine/tensor/tensor.h"

namespace octet {

/// Numbers as text: the fewest digits that give the number back, in plain notation where %g would choose it (exponents in
/// [-4, 8), of FP64 [-4, 16)), so 1.0 is "1"; "NaN", "INF", "-INF"; BOOL as "1" and "0"; FP16 and BF16 as the FP32 that
/// they are equal to. Source: ONNX Cast-21, and ONNX Runtime where that leaves the form open.
Tensor TextOfNumbers(const Tensor& numbers);

/// Text as numbers of `dtype`: plain or scientific notation, "+INF", "INF", "-INF" and "NaN" in any case, with white space
/// around; integers also take the whole part of a decimal number; BOOL is what is not 0.
/// Errors: INVALID_ARGUMENT naming the element for what is no number, or no number of that type.
absl::StatusOr<Tensor> NumbersInText(const Tensor& texts, DType dtype);

}  // namespace octet
