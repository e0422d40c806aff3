// LSTM, GRU and RNN as their kernels need them: extents, options, and where things lie.
//   Shapes (layout 0): X [T, B, I], W [D, G*H, I], R [D, G*H, H], bias [D, 2*G*H], sequence_lens [B],
//   states [D, B, H], Y [T, D, B, H]. Layout 1: X [B, T, I], states [B, D, H], Y [B, T, D, H].
//   Gates: i, o, f, c of an LSTM, z, r, h of a GRU.
//   Source: ONNX LSTM-22, GRU-22, RNN-22.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/recurrent_activation.h"

namespace octet {

namespace recurrent {

/// Input slots. GRU and RNN have no initial_c and no peepholes.
inline constexpr size_t kX = 0, kW = 1, kR = 2, kBias = 3, kLengths = 4, kInitialH = 5,
                        kInitialC = 6, kPeepholes = 7;

}  // namespace recurrent

enum class CellKind : uint8_t { kLstm, kGru, kRnn };

constexpr int64_t GatesOf(CellKind kind) {
  return kind == CellKind::kLstm ? 4 : kind == CellKind::kGru ? 3 : 1;
}
/// The activations of one direction where a node names none.
std::vector<std::string> DefaultActivations(CellKind kind);

enum class RecurrentDirection : uint8_t { kForward, kReverse, kBidirectional };
/// INVALID_ARGUMENT for an unknown 'direction'.
absl::StatusOr<RecurrentDirection> RecurrentDirectionOf(const Node& node);

struct RecurrentLayer {
  CellKind kind = CellKind::kLstm;
  RecurrentDirection direction = RecurrentDirection::kForward;
  bool batch_first = false;
  int64_t time = 0, batch = 0, inputs = 0, hidden = 0;
  float clip = 0;  ///< 0: none.
  bool couple_input_forget = false;
  bool linear_before_reset = false;
  std::vector<RecurrentActivation> activations;  ///< As many per direction.

  int64_t gates() const { return GatesOf(kind); }
  int64_t directions() const { return direction == RecurrentDirection::kBidirectional ? 2 : 1; }
  bool reversed(int64_t d) const { return direction == RecurrentDirection::kReverse || d == 1; }
  std::span<const RecurrentActivation> ActivationsOf(int64_t d) const {
    const size_t count = activations.size() / static_cast<size_t>(directions());
    return std::span(activations).subspan(static_cast<size_t>(d) * count, count);
  }
  /// Steps of sequence b; `lengths` may be null.
  int64_t LengthOf(const int32_t* lengths, int64_t b) const {
    return lengths == nullptr ? time : std::clamp<int64_t>(lengths[b], 0, time);
  }
  /// The time step that is number s in a sequence of `length`.
  int64_t TimeOf(int64_t d, int64_t s, int64_t length) const {
    return reversed(d) ? length - 1 - s : s;
  }

  /// Rows of X, and elements of states and Y, where these begin.
  int64_t XRow(int64_t t, int64_t b) const { return batch_first ? b * time + t : t * batch + b; }
  int64_t StateAt(int64_t d, int64_t b) const {
    return (batch_first ? b * directions() + d : d * batch + b) * hidden;
  }
  int64_t YAt(int64_t t, int64_t d, int64_t b) const {
    return (batch_first ? (b * time + t) * directions() + d : (t * directions() + d) * batch + b) *
           hidden;
  }
};

/// The layer of `node` on X and R of these extents. INVALID_ARGUMENT for attributes of other types or unknown names.
absl::StatusOr<RecurrentLayer> ReadRecurrentLayer(const Node& node, CellKind kind, const Shape& x,
                                                  const Shape& r);

}  // namespace octet
