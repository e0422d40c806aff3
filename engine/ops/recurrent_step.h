// LSTM, GRU and RNN over all time steps: W x of every step at once, then R h and the cell step by step.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "engine/graph/stored_value.h"
#include "engine/ops/packed_product.h"
#include "engine/ops/recurrent_layer.h"
#include "engine/ops/step.h"

namespace octet {

/// Adjacent hidden units of one direction, with the weights of all their gates: what can be computed on its own between two
/// time steps. Columns of products are [gate, unit].
struct RecurrentPart {
  int64_t direction = 0;
  int64_t first = 0;
  int64_t units = 0;
  PackedMatrix w;  ///< Of all gates.
  PackedMatrix r;  ///< Of all gates, but for the candidate of a GRU whose reset comes first.
  PackedMatrix candidate;         ///< Of that: it is multiplied by r H.
  std::vector<float> bias;        ///< Of W x, padded.
  std::vector<float> state_bias;  ///< Of R h, padded; empty: none.
};

/// How the reals of inputs and outputs are stored.
struct RecurrentFormats {
  RealFormat x, initial_h, initial_c;
  std::array<RealFormat, 3> outputs;  ///< Y, Y_h, Y_c.
};

/// Products are those of `type`, everything else is float. For kInt8 x is quantized by its own scale where it is stored in 8
/// bits, else as ONNX DynamicQuantizeLinear does; states always by the range of one sequence's state, at every step: what a
/// sequence answers does not depend on those beside it.
class RecurrentStep final : public Step {
 public:
  /// Threads share the work between directions and, where a direction is one part, `groups` groups of sequences, none of
  /// which waits for another; else between parts, which wait for each other behind every step.
  /// Requires: the parts of a direction cover its units in order, as many for each direction; groups is 1, or a direction
  /// is one part; X is not empty.
  RecurrentStep(RecurrentLayer layer, ProductType type, RecurrentFormats formats,
                std::vector<RecurrentPart> parts, int64_t groups, int threads);

  absl::Status Run(const StepArgs& args) const override;
  absl::StatusOr<std::unique_ptr<StepState>> NewState() const override;
  size_t scratch_bytes() const override { return scratch_bytes_; }
  bool reads_input(int i) const override;
  bool is_primitive() const override { return true; }

 private:
  class Execution;
  struct State;
  /// Offsets in scratch of what belongs to a part.
  struct PartScratch {
    size_t from_x, from_h, candidate, encoded, scales, zero_points;
  };
  /// Of a direction: h before and behind a step, c, and r H.
  struct StateScratch {
    std::array<size_t, 2> h;
    size_t c, reset;
  };

  template <typename T>
  size_t Reserve(int64_t count);
  void LayOut();

  RecurrentLayer layer_;
  ProductType type_;
  RecurrentFormats formats_;
  std::vector<RecurrentPart> parts_;
  int64_t groups_;
  int threads_;
  bool reset_first_;  ///< A GRU's reset comes before the product.
  bool x_in_place_;   ///< The product reads X as it is stored.
  size_t scratch_bytes_ = 0;
  size_t x_encoded_ = 0, x_scales_ = 0, x_zero_points_ = 0, x_reals_ = 0;
  std::vector<PartScratch> part_scratch_;
  std::vector<StateScratch> state_scratch_;
};

}  // namespace octet
