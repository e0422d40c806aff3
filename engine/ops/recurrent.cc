// Recurrent layers: LSTM, GRU, RNN. One loop over directions, batch and time; a cell is what happens at
// one time step of one sequence.
#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/op_list.h"
#include "engine/ops/recurrent_layer.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using recurrent::kBias, recurrent::kInitialC, recurrent::kInitialH, recurrent::kLengths,
    recurrent::kPeepholes, recurrent::kR, recurrent::kW, recurrent::kX;

/// Input `i`, when its shape is known, has these extents.
absl::Status ExpectShape(const InferContext& context, size_t i, const Shape& expected) {
  if (!context.has_input(i) || !context.shape(i)) return absl::OkStatus();
  const Shape& shape = *context.shape(i);
  bool agrees = shape.rank() == expected.rank();
  for (int d = 0; agrees && d < shape.rank(); ++d) {
    agrees = shape[d] == expected[d] || shape[d] == kUnknownDim || expected[d] == kUnknownDim;
  }
  if (agrees) return absl::OkStatus();
  return context.Error(Format("input {} '{}' must have shape {}, got {}", i, context.input(i).name,
                              expected.ToString(), shape.ToString()));
}

int64_t Times(int64_t factor, int64_t extent) {
  return extent == kUnknownDim ? kUnknownDim : factor * extent;
}

absl::Status InferRecurrent(InferContext& context, CellKind kind) {
  // Each output is optional.
  OCTET_RETURN_IF_ERROR(ExpectInputCount(context, 3, kind == CellKind::kLstm ? 8 : 6));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, kX, kFloats));
  for (const size_t i : {kW, kR, kBias, kInitialH, kInitialC, kPeepholes}) {
    OCTET_RETURN_IF_ERROR(ExpectSameDType(context, kX, i));
  }
  OCTET_RETURN_IF_ERROR(ExpectDType(context, kLengths, {DType::kI32}));
  OCTET_ASSIGN_OR_RETURN(const RecurrentDirection direction, RecurrentDirectionOf(context.node()));
  const int64_t directions = direction == RecurrentDirection::kBidirectional ? 2 : 1;
  OCTET_RETURN_IF_ERROR(
      ReadActivations(context.node(), DefaultActivations(kind), static_cast<size_t>(directions))
          .status());
  OCTET_ASSIGN_OR_RETURN(const int64_t layout, context.attributes().Int("layout", 0));
  const auto& r = context.shape(kR);
  const int64_t of_r = r && r->rank() == 3 ? (*r)[2] : kUnknownDim;
  OCTET_ASSIGN_OR_RETURN(const int64_t hidden, context.attributes().Int("hidden_size", of_r));
  constexpr int64_t kMostHidden = int64_t{1} << 31;
  if (hidden != of_r && (hidden < 1 || hidden > kMostHidden))
    return context.Error(Format("attribute 'hidden_size' must be at least 1, got {}", hidden));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, kX, 3, 3));
  const auto& x = context.shape(kX);
  const int64_t time = x ? (*x)[layout == 0 ? 0 : 1] : kUnknownDim;
  const int64_t batch = x ? (*x)[layout == 0 ? 1 : 0] : kUnknownDim;
  const int64_t gates = GatesOf(kind);
  const Shape state =
      layout == 0 ? Shape{directions, batch, hidden} : Shape{batch, directions, hidden};
  OCTET_RETURN_IF_ERROR(
      ExpectShape(context, kW, {directions, Times(gates, hidden), x ? (*x)[2] : kUnknownDim}));
  OCTET_RETURN_IF_ERROR(ExpectShape(context, kR, {directions, Times(gates, hidden), hidden}));
  OCTET_RETURN_IF_ERROR(ExpectShape(context, kBias, {directions, Times(2 * gates, hidden)}));
  OCTET_RETURN_IF_ERROR(ExpectShape(context, kLengths, {batch}));
  OCTET_RETURN_IF_ERROR(ExpectShape(context, kInitialH, state));
  if (kind == CellKind::kLstm) {
    OCTET_RETURN_IF_ERROR(ExpectShape(context, kInitialC, state));
    OCTET_RETURN_IF_ERROR(ExpectShape(context, kPeepholes, {directions, Times(3, hidden)}));
  }
  const Shape y =
      layout == 0 ? Shape{time, directions, batch, hidden} : Shape{batch, time, directions, hidden};
  OCTET_RETURN_IF_ERROR(context.SetOutput(0, context.dtype(kX), y));
  OCTET_RETURN_IF_ERROR(context.SetOutput(1, context.dtype(kX), state));
  return kind == CellKind::kLstm ? context.SetOutput(2, context.dtype(kX), state)
                                 : absl::OkStatus();
}
absl::Status InferLstm(InferContext& context) { return InferRecurrent(context, CellKind::kLstm); }
absl::Status InferGru(InferContext& context) { return InferRecurrent(context, CellKind::kGru); }
absl::Status InferRnn(InferContext& context) { return InferRecurrent(context, CellKind::kRnn); }

/// sums[i] += sum over k of matrix[i, k] * vector[k]
template <typename T>
void AddProduct(const T* matrix, const T* vector, int64_t rows, int64_t columns, T* sums) {
  for (int64_t i = 0; i < rows; ++i) {
    const T* row = matrix + i * columns;
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < columns; ++k) sum += row[k] * vector[k];
    sums[i] += sum;
  }
}

/// One direction's weights, and the state of one sequence as it runs.
template <typename T>
struct Sequence {
  const RecurrentLayer& layer;
  const T* w;
  const T* r;
  const T* bias;       // Null: zeros.
  const T* peepholes;  // Null: zeros.
  std::span<const RecurrentActivation> activations;
  std::vector<T> h, c, from_x, from_h, scratch;

  T Clip(T value) const {
    const T limit = static_cast<T>(layer.clip);
    return limit > 0 ? std::clamp(value, -limit, limit) : value;
  }
  T F(T value) const { return activations[0](Clip(value)); }
  T G(T value) const { return activations[1](Clip(value)); }

  /// from_x = W x + Wb, from_h = R h + Rb; then the cell.
  void Step(const T* x) {
    const int64_t rows = layer.gates() * layer.hidden;
    for (int64_t i = 0; i < rows; ++i) {
      from_x[i] = bias != nullptr ? bias[i] : T{0};
      from_h[i] = bias != nullptr ? bias[rows + i] : T{0};
    }
    AddProduct(w, x, rows, layer.inputs, from_x.data());
    AddProduct(r, h.data(), rows, layer.hidden, from_h.data());
    switch (layer.kind) {
      case CellKind::kLstm:
        return LstmCell();
      case CellKind::kGru:
        return GruCell();
      case CellKind::kRnn:
        return RnnCell();
    }
  }

  /// i = f(Xi + Hi + Pi C), f likewise (or 1 - i), C = f C + i g(Xc + Hc), o = f(Xo + Ho + Po C), H = o h(C).
  /// Gates lie in the order i, o, f, c.
  void LstmCell() {
    const int64_t n = layer.hidden;
    for (int64_t k = 0; k < n; ++k) {
      const auto gate = [&](int64_t g) { return from_x[g * n + k] + from_h[g * n + k]; };
      const auto peep = [&](int64_t p, T cell) {
        return peepholes != nullptr ? peepholes[p * n + k] * cell : T{0};
      };
      const T in = F(gate(0) + peep(0, c[k]));
      const T forget = layer.couple_input_forget ? T{1} - in : F(gate(2) + peep(2, c[k]));
      c[k] = forget * c[k] + in * G(gate(3));
      const T out = F(gate(1) + peep(1, c[k]));
      h[k] = out * activations[2](c[k]);
    }
  }

  /// z = f(Xz + Hz), r = f(Xr + Hr), H = (1 - z) n + z H with n = g(Xh + r Hh) when linear_before_reset, else
  /// g(Xh + R (r H) + Rb). Gates lie in the order z, r, h.
  void GruCell() {
    const int64_t n = layer.hidden;
    T* candidate = from_h.data() + 2 * n;
    for (int64_t k = 0; k < n; ++k) scratch[k] = F(from_x[n + k] + from_h[n + k]);
    if (layer.linear_before_reset) {
      for (int64_t k = 0; k < n; ++k) candidate[k] *= scratch[k];
    } else {
      for (int64_t k = 0; k < n; ++k) {
        scratch[k] *= h[k];
        candidate[k] = bias != nullptr ? bias[5 * n + k] : T{0};
      }
      AddProduct(r + 2 * n * n, scratch.data(), n, n, candidate);
    }
    for (int64_t k = 0; k < n; ++k) {
      const T z = F(from_x[k] + from_h[k]);
      h[k] = (T{1} - z) * G(from_x[2 * n + k] + candidate[k]) + z * h[k];
    }
  }

  void RnnCell() {
    for (int64_t k = 0; k < layer.hidden; ++k) h[k] = F(from_x[k] + from_h[k]);
  }
};

template <typename T>
const T* Optional(std::span<const ConstTensorView> inputs, size_t i) {
  return i < inputs.size() ? inputs[i].as<T>() : nullptr;
}

/// Runs one sequence (direction d, batch row b) and writes its outputs. Time steps past its length give zeros.
template <typename T>
void RunSequence(const RecurrentLayer& layer, int64_t d, int64_t b,
                 std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
  const int64_t n = layer.hidden;
  const int64_t rows = layer.gates() * n;
  const auto at = [d](const T* base, int64_t stride) {
    return base == nullptr ? nullptr : base + d * stride;
  };
  const bool lstm = layer.kind == CellKind::kLstm;
  Sequence<T> run{layer,
                  at(inputs[kW].as<T>(), rows * layer.inputs),
                  at(inputs[kR].as<T>(), rows * n),
                  at(Optional<T>(inputs, kBias), 2 * rows),
                  lstm ? at(Optional<T>(inputs, kPeepholes), 3 * n) : nullptr,
                  layer.ActivationsOf(d),
                  std::vector<T>(n),
                  std::vector<T>(n),
                  std::vector<T>(rows),
                  std::vector<T>(rows),
                  std::vector<T>(n)};
  const T* initial_h = Optional<T>(inputs, kInitialH);
  const T* initial_c = lstm ? Optional<T>(inputs, kInitialC) : nullptr;
  if (initial_h != nullptr) std::copy_n(initial_h + layer.StateAt(d, b), n, run.h.begin());
  if (initial_c != nullptr) std::copy_n(initial_c + layer.StateAt(d, b), n, run.c.begin());

  const int32_t* lengths = Optional<int32_t>(inputs, kLengths);
  const int64_t length = layer.LengthOf(lengths, b);
  T* y = outputs[0].as<T>();
  for (int64_t s = 0; s < length; ++s) {
    const int64_t t = layer.TimeOf(d, s, length);
    run.Step(inputs[kX].as<T>() + layer.XRow(t, b) * layer.inputs);
    if (y != nullptr) std::ranges::copy(run.h, y + layer.YAt(t, d, b));
  }
  for (int64_t t = length; y != nullptr && t < layer.time; ++t)
    std::fill_n(y + layer.YAt(t, d, b), n, T{0});
  const std::vector<T>* states[] = {&run.h, &run.c};
  for (size_t i = 1; i < outputs.size() && i < 3; ++i) {
    if (outputs[i].data != nullptr)
      std::ranges::copy(*states[i - 1], outputs[i].as<T>() + layer.StateAt(d, b));
  }
}

absl::StatusOr<Kernel> MakeRecurrent(const KernelContext& context, CellKind kind) {
  OCTET_ASSIGN_OR_RETURN(RecurrentLayer layer,
                         ReadRecurrentLayer(context.node, kind, context.inputs[kX].shape(),
                                            context.inputs[kR].shape()));
  return KernelFor(
      kRealKernels, context.inputs[kX].dtype(), context.node, [&]<typename T>() -> Kernel {
        return
            [layer](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
              ParallelFor(layer.directions() * layer.batch, 1, [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i)
                  RunSequence<T>(layer, i / layer.batch, i % layer.batch, inputs, outputs);
              });
              return absl::OkStatus();
            };
      });
}
absl::StatusOr<Kernel> MakeLstm(const KernelContext& context) {
  return MakeRecurrent(context, CellKind::kLstm);
}
absl::StatusOr<Kernel> MakeGru(const KernelContext& context) {
  return MakeRecurrent(context, CellKind::kGru);
}
absl::StatusOr<Kernel> MakeRnn(const KernelContext& context) {
  return MakeRecurrent(context, CellKind::kRnn);
}

}  // namespace

std::span<const OpDef> RecurrentOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "LSTM", 7, INT_MAX, InferLstm, MakeLstm, LowerLstm},
      {kOnnxDomain, "GRU", 7, INT_MAX, InferGru, MakeGru, LowerGru},
      {kOnnxDomain, "RNN", 7, INT_MAX, InferRnn, MakeRnn, LowerRnn},
  };
  return kOps;
}

}  // namespace octet
