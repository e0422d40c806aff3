#include "engine/ops/dynamic_quant_step.h"

#include <cstring>

#include "engine/ops/dynamic_quant.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/quantize.h"

namespace octet {
namespace {

constexpr int64_t kGrain = int64_t{64} * 1024;

}  // namespace

absl::Status DynamicQuantStep::Run(const StepArgs& args) const {
  const auto* x = static_cast<const float*>(args.inputs[0]);
  const QuantParams params = DynamicQuantParams(FindMinMax({x, {DType::kF32, Shape{elements_}}}));
  std::memcpy(args.scratch + scale_, params.scales.data(), sizeof(float));
  std::memcpy(args.scratch + zero_point_, params.zero_points.data(), sizeof(int32_t));
  ParallelFor(elements_, kGrain, [&](int64_t begin, int64_t end) {
    const Shape range{end - begin};
    QuantizeTensor({x + begin, {DType::kF32, range}}, params,
                   {args.scratch + source_ + begin, {DType::kU8, range}});
  });
  return RunPrimitives(args);
}

}  // namespace octet
