// Products whose activation is quantized when they run.
#pragma once

#include "engine/ops/primitive_attributes.h"
#include "engine/ops/primitive_step.h"

namespace octet {

/// Quantizes input 0 (F32, `elements` of them) as ONNX DynamicQuantizeLinear does into scratch, then runs the
/// primitives, which find U8 elements, scale and zero point there.
class DynamicQuantStep final : public PrimitiveStep {
 public:
  /// `never_negative`: see IsNeverNegative; the zero point is 0 then, and need not be told.
  DynamicQuantStep(int64_t elements, bool never_negative)
      : elements_(elements),
        never_negative_(never_negative),
        source_(ReserveScratch(static_cast<size_t>(elements))),
        scale_(ReserveScratch(sizeof(float))),
        zero_point_(ReserveScratch(sizeof(int32_t))) {}

  /// Scratch offset of the elements that Run makes.
  size_t source() const { return source_; }
  /// Tells a primitive's argument `arg` of scale and zero point.
  void Describe(int arg, PrimitiveAttributes& attributes) const {
    attributes.AddScratchScale(arg, scale_);
    if (!never_negative_) attributes.AddScratchZeroPoint(arg, zero_point_);
  }

  absl::Status Run(const StepArgs& args) const override;
  bool reads_input(int i) const override { return i == 0 || PrimitiveStep::reads_input(i); }

 private:
  int64_t elements_;
  bool never_negative_;
  size_t source_;
  size_t scale_;
  size_t zero_point_;
};

}  // namespace octet
