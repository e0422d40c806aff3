#include "engine/ops/dynamic_quant_step.h"

#include <cstring>

#include "engine/ops/quantize_reals.h"

namespace octet {

absl::Status DynamicQuantStep::Run(const StepArgs& args) const {
  const DynamicScale grid =
      QuantizeToOwnRange(static_cast<const float*>(args.inputs[0]), elements_,
                         reinterpret_cast<uint8_t*>(args.scratch + source_), never_negative_);
  std::memcpy(args.scratch + scale_, &grid.scale, sizeof(float));
  std::memcpy(args.scratch + zero_point_, &grid.zero_point, sizeof(int32_t));
  return RunPrimitives(args);
}

}  // namespace octet
