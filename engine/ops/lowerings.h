// The fast forms of operators that oneDNN or Octet's own int8 kernels serve: what the families' tables name in
// their `lower` column. Each fills the certificate's row and answers UNIMPLEMENTED, with the reason, for a
// node that has no fast form.
#pragma once

#include <memory>

#include "absl/status/statusor.h"

#include "engine/ops/step.h"

namespace octet {

/// Conv and octet:ConvTranspose as engine/README.md's canonical table has it: 1D and 2D, any group, stride, dilation and padding.
absl::StatusOr<std::unique_ptr<Step>> LowerConv(const LowerContext& context);
/// octet:MatMul, constant and computed right-hand sides.
absl::StatusOr<std::unique_ptr<Step>> LowerMatMul(const LowerContext& context);
/// MatMulInteger with a constant matrix and one zero point per operand.
absl::StatusOr<std::unique_ptr<Step>> LowerMatMulInteger(const LowerContext& context);
/// octet:FourBitMatMul.
absl::StatusOr<std::unique_ptr<Step>> LowerFourBitMatMul(const LowerContext& context);
/// LSTM, GRU and RNN with constant weights: f32, bf16, or int8.
absl::StatusOr<std::unique_ptr<Step>> LowerLstm(const LowerContext& context);
absl::StatusOr<std::unique_ptr<Step>> LowerGru(const LowerContext& context);
absl::StatusOr<std::unique_ptr<Step>> LowerRnn(const LowerContext& context);
/// MaxPool, AveragePool, LpPool and their Global forms.
absl::StatusOr<std::unique_ptr<Step>> LowerPool(const LowerContext& context);

}  // namespace octet
