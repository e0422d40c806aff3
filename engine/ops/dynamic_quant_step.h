// Products whose activation is quantized when they run.
#pragma once

#include "engine/ops/primitive_step.h"

namespace octet {

/// Quantizes input 0 (F32, `elements` of them) as ONNX DynamicQuantizeLinear does into scratch, then runs the
/// primitives, which find U8 elements, scale and zero point there.
class DynamicQuantStep final : public PrimitiveStep {
 public:
  explicit DynamicQuantStep(int64_t elements)
      : elements_(elements),
        source_(ReserveScratch(static_cast<size_t>(elements))),
        scale_(ReserveScratch(sizeof(float))),
        zero_point_(ReserveScratch(sizeof(int32_t))) {}

  /// Scratch offsets of what Run makes.
  size_t source() const { return source_; }
  size_t scale() const { return scale_; }
  size_t zero_point() const { return zero_point_; }

  absl::Status Run(const StepArgs& args) const override;
  bool reads_input(int i) const override { return i == 0 || PrimitiveStep::reads_input(i); }

 private:
  int64_t elements_;
  size_t source_;
  size_t scale_;
  size_t zero_point_;
};

}  // namespace octet
