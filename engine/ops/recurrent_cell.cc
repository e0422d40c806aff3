#include "engine/ops/recurrent_cell.h"

#include "engine/tensor/cpu_clones.h"

namespace octet {
namespace {

using enum RecurrentActivation::Kind;

template <RecurrentActivation::Kind kKind>
OCTET_INLINE void ActivateAs(RecurrentActivation activation, float* x, int64_t n) {
  activation.kind = kKind;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) x[i] = activation(x[i]);
}

OCTET_CPU_CLONES void Activate(const RecurrentActivation& activation, float* x, int64_t n) {
  switch (activation.kind) {
    case kRelu:
      return ActivateAs<kRelu>(activation, x, n);
    case kTanh:
      return ActivateAs<kTanh>(activation, x, n);
    case kSigmoid:
      return ActivateAs<kSigmoid>(activation, x, n);
    case kAffine:
      return ActivateAs<kAffine>(activation, x, n);
    case kLeakyRelu:
      return ActivateAs<kLeakyRelu>(activation, x, n);
    case kThresholdedRelu:
      return ActivateAs<kThresholdedRelu>(activation, x, n);
    case kScaledTanh:
      return ActivateAs<kScaledTanh>(activation, x, n);
    case kHardSigmoid:
      return ActivateAs<kHardSigmoid>(activation, x, n);
    case kElu:
      return ActivateAs<kElu>(activation, x, n);
    case kSoftsign:
      return ActivateAs<kSoftsign>(activation, x, n);
    case kSoftplus:
      return ActivateAs<kSoftplus>(activation, x, n);
  }
}

OCTET_CPU_CLONES void ClipRow(float limit, float* x, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) x[i] = math::Clip(x[i], -limit, limit);
}

void ActivateClipped(const RecurrentActivation& activation, float limit, float* x, int64_t n) {
  if (limit > 0) ClipRow(limit, x, n);
  Activate(activation, x, n);
}

OCTET_CPU_CLONES void AddRow(const float* x, float* y, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}

OCTET_CPU_CLONES void AddProductRow(const float* a, const float* b, float* y, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] += a[i] * b[i];
}

OCTET_CPU_CLONES void MultiplyRow(const float* a, const float* b, float* y, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] * b[i];
}

OCTET_CPU_CLONES void UpdateCell(const float* in, const float* forget, const float* candidate,
                                 float* c, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) c[i] = forget[i] * c[i] + in[i] * candidate[i];
}

OCTET_CPU_CLONES void UpdateCoupledCell(const float* in, const float* candidate, float* c,
                                        int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) c[i] = (1.0F - in[i]) * c[i] + in[i] * candidate[i];
}

OCTET_CPU_CLONES void Interpolate(const float* z, const float* candidate, const float* h, float* y,
                                  int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = (1.0F - z[i]) * candidate[i] + z[i] * h[i];
}

}  // namespace

void LstmCell(const RecurrentLayer& layer, std::span<const RecurrentActivation> activations,
              const CellRow& row) {
  const int64_t n = row.units;
  float* in = row.from_h;
  float* out = in + n;
  float* forget = out + n;
  float* candidate = forget + n;
  const float* peep = row.peepholes;
  AddRow(row.from_x, row.from_h, 4 * n);
  if (peep != nullptr) {
    AddProductRow(peep, row.c, in, n);
    AddProductRow(peep + 2 * row.peephole_stride, row.c, forget, n);
  }
  ActivateClipped(activations[0], layer.clip, in, n);
  ActivateClipped(activations[1], layer.clip, candidate, n);
  if (layer.couple_input_forget) {
    UpdateCoupledCell(in, candidate, row.c, n);
  } else {
    ActivateClipped(activations[0], layer.clip, forget, n);
    UpdateCell(in, forget, candidate, row.c, n);
  }
  if (peep != nullptr) AddProductRow(peep + row.peephole_stride, row.c, out, n);
  ActivateClipped(activations[0], layer.clip, out, n);
  std::copy_n(row.c, n, candidate);
  Activate(activations[2], candidate, n);
  MultiplyRow(out, candidate, row.next_h, n);
}

void GruGates(const RecurrentLayer& layer, std::span<const RecurrentActivation> activations,
              const CellRow& row) {
  AddRow(row.from_x, row.from_h, 2 * row.units);
  ActivateClipped(activations[0], layer.clip, row.from_h, 2 * row.units);
}

void GruReset(const CellRow& row, float* reset) {
  MultiplyRow(row.from_h + row.units, row.h, reset, row.units);
}

void GruCell(const RecurrentLayer& layer, std::span<const RecurrentActivation> activations,
             const CellRow& row, float* candidate) {
  const int64_t n = row.units;
  if (layer.linear_before_reset) MultiplyRow(row.from_h + n, candidate, candidate, n);
  AddRow(row.from_x + 2 * n, candidate, n);
  ActivateClipped(activations[1], layer.clip, candidate, n);
  Interpolate(row.from_h, candidate, row.h, row.next_h, n);
}

void RnnCell(const RecurrentLayer& layer, std::span<const RecurrentActivation> activations,
             const CellRow& row) {
  AddRow(row.from_x, row.from_h, row.units);
  ActivateClipped(activations[0], layer.clip, row.from_h, row.units);
  std::copy_n(row.from_h, row.units, row.next_h);
}

}  // namespace octet
