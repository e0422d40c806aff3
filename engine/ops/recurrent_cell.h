// What a recurrent cell does with the products of one time step: elementwise, in float.
#pragma once

#include <cstdint>
#include <span>

#include "engine/ops/recurrent_layer.h"

namespace octet {

/// `units` units of one sequence, side by side. The gates' rows are `units` apart, in ONNX's order.
struct CellRow {
  int64_t units = 0;
  const float* from_x = nullptr;     ///< Gates: W x + biases.
  float* from_h = nullptr;           ///< Gates: R h. Overwritten.
  const float* peepholes = nullptr;  ///< LSTM: of i, o and f, `peephole_stride` apart; null: zeros.
  int64_t peephole_stride = 0;
  const float* h = nullptr;  ///< Before this step.
  float* c = nullptr;        ///< LSTM: before, then behind this step.
  float* next_h = nullptr;   ///< Behind this step.
};

/// i = f(Xi + Hi + Pi C), f likewise (or 1 - i), C = f C + i g(Xc + Hc), o = f(Xo + Ho + Po C), H = o h(C).
void LstmCell(const RecurrentLayer& layer, std::span<const RecurrentActivation> activations,
              const CellRow& row);

/// z = f(Xz + Hz) and r = f(Xr + Hr), left in from_h.
void GruGates(const RecurrentLayer& layer, std::span<const RecurrentActivation> activations,
              const CellRow& row);
/// reset = r H, behind GruGates.
void GruReset(const CellRow& row, float* reset);
/// H = (1 - z) n + z H behind GruGates, with n = g(Xh + r Hh) when linear_before_reset, else g(Xh + candidate).
/// `candidate` is overwritten; it may be from_h's third gate.
void GruCell(const RecurrentLayer& layer, std::span<const RecurrentActivation> activations,
             const CellRow& row, float* candidate);

/// H = f(X + H).
void RnnCell(const RecurrentLayer& layer, std::span<const RecurrentActivation> activations,
             const CellRow& row);

}  // namespace octet
