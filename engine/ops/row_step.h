// Steps whose result is a function of one row of the input at a time: softmax, layer normalization.
#pragma once

#include <functional>

#include "engine/graph/stored_value.h"
#include "engine/ops/step.h"

namespace octet {

/// Runs y[row] = fn(x[row]) in float on values of any RealFormat; a row is `width` elements side by side.
class RowStep final : public Step {
 public:
  /// x and y may be the same row; `spare` is room for as many floats as the constructor was told.
  using Fn = std::function<void(const StepArgs& args, const float* x, float* y, float* spare)>;

  /// Requires: RealFormat covers input 0 and output 0, which have rows * width elements each.
  RowStep(const LowerContext& context, int64_t rows, int64_t width, Fn fn, int64_t spare = 0);

  absl::Status Run(const StepArgs& args) const override;
  size_t scratch_bytes() const override;
  int overwrites_input() const override { return overwrites_; }

 private:
  void RunRow(const StepArgs& args, int64_t row, float* scratch) const;
  /// Floats of scratch that one thread needs: x where it is not stored as floats, y likewise, the spare ones.
  int64_t ThreadFloats() const;

  RealFormat input_;
  RealFormat output_;
  int64_t rows_;
  int64_t width_;
  int64_t spare_;
  int threads_;
  int overwrites_;
  Fn fn_;
};

}  // namespace octet
