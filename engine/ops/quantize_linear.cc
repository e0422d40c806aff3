// Between reals and integers: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "engine/ops/dispatch.h"
#include "engine/ops/dynamic_quant.h"
#include "engine/ops/elementwise_lowering.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr DTypeSet kQuantized = {DType::kU8, DType::kI8, DType::kU16, DType::kI16};
constexpr DTypeSet kSmallFloats = {DType::kF16, DType::kBF16, DType::kF32};

/// The scales and zero points of blocks: x's shape, but for the axis, which has one for `block_size` elements.
absl::Status ExpectBlocks(const InferContext& context, int64_t block_size) {
  if (context.node().version < 21 || block_size < 0)
    return context.Error(Format("impossible 'block_size': {}", block_size));
  if (!context.shape(0) || !context.shape(1)) return absl::OkStatus();
  Shape expected = *context.shape(0);
  OCTET_ASSIGN_OR_RETURN(const int axis, AxisAttribute(context, "axis", 1, expected.rank()));
  if (!expected.is_static()) return absl::OkStatus();
  expected[axis] = expected[axis] / block_size + (expected[axis] % block_size != 0);
  for (const size_t i : {1, 2}) {
    if (!context.has_input(i) || !context.shape(i) || !context.shape(i)->is_static()) continue;
    if (*context.shape(i) != expected) {
      return context.Error(Format("input {} for blocks of {} must have shape {}, got {}", i,
                                  block_size, expected.ToString(), context.shape(i)->ToString()));
    }
  }
  return absl::OkStatus();
}

/// Scales run along one axis of x, or there is one for all; or, with block_size, one for each block.
///   Shapes: scale and zero point [] or [1] (per tensor), or [extent of axis].
absl::Status ExpectScales(const InferContext& context) {
  const auto& x = context.shape(0);
  const auto& scale = context.shape(1);
  OCTET_ASSIGN_OR_RETURN(const int64_t block_size, context.attributes().Int("block_size", 0));
  if (block_size != 0) return ExpectBlocks(context, block_size);
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, 0, 1));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 2, 0, 1));
  const std::optional<Shape> zero = context.has_input(2) ? context.shape(2) : std::nullopt;
  if (zero && scale && zero->is_static() && scale->is_static() &&
      zero->elements() != scale->elements()) {
    return context.Error(Format("scales {} and zero points {} differ in shape", scale->ToString(),
                                zero->ToString()));
  }
  if (!x || !scale || !scale->is_static() || scale->elements() == 1) return absl::OkStatus();
  if (context.node().domain == kOnnxDomain && context.node().version < 13 && scale->rank() == 1 &&
      scale->elements() != 1) {
    return context.Error(Format("per-axis scales need opset 13, got scales {}", scale->ToString()));
  }
  OCTET_ASSIGN_OR_RETURN(const int axis, AxisAttribute(context, "axis", 1, x->rank()));
  if ((*x)[axis] != kUnknownDim && (*x)[axis] != scale->elements()) {
    return context.Error(
        Format("scales {} do not run along axis {} of {}", scale->ToString(), axis, x->ToString()));
  }
  return absl::OkStatus();
}

absl::Status InferQuantizeLinear(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kSmallFloats | DTypeSet{DType::kI32}));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kSmallFloats | DTypeSet{DType::kI32}));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 2, kQuantized));
  OCTET_RETURN_IF_ERROR(ExpectScales(context));
  OCTET_ASSIGN_OR_RETURN(const int64_t number, context.attributes().Int("output_dtype", 0));
  DType dtype = DType::kU8;
  if (context.has_input(2)) {
    dtype = context.dtype(2);
  } else if (number != 0) {
    const auto named = DTypeOfOnnx(number);
    if (!named || !kQuantized.contains(*named)) {
      return Unimplemented("{}: unsupported element type {} of ONNX", Describe(context.node()),
                           number);
    }
    dtype = *named;
  }
  return context.SetOutput(0, dtype, context.shape(0));
}

/// x as [outer, extent, inner]: scales run along the middle, one for `block` elements of it, and with blocks along the
/// others, too.
struct Channels {
  int64_t extent = 1;
  int64_t inner = 1;
  int64_t block = 1;
  bool blocked = false;

  int64_t Of(int64_t i) const {
    if (blocked) {
      const int64_t blocks = (extent + block - 1) / block;
      return (i / inner / extent * blocks + i / inner % extent / block) * inner + i % inner;
    }
    return extent == 1 ? 0 : i / inner % extent;
  }
  /// Elements from `i` on that share a scale.
  int64_t Run(int64_t i) const {
    if (!blocked) return inner - i % inner;
    return inner > 1 ? 1 : std::min(block - i % extent % block, extent - i % extent);
  }
};

absl::StatusOr<Channels> ChannelsOf(const KernelContext& context) {
  const Shape& x = context.inputs[0].shape();
  const int64_t scales = context.inputs[1].elements();
  OCTET_ASSIGN_OR_RETURN(const int64_t block_size, context.node.attributes.Int("block_size", 0));
  if (scales == 1 && block_size == 0) return Channels{1, x.elements()};
  OCTET_ASSIGN_OR_RETURN(const int64_t attribute, context.node.attributes.Int("axis", 1));
  OCTET_ASSIGN_OR_RETURN(const int axis, NormalizeNodeAxis(context.node, attribute, x.rank()));
  const int64_t inner = x.elements(axis + 1, x.rank());
  if (block_size != 0) return Channels{x[axis], inner, block_size, true};
  if (x[axis] != scales) {
    return InvalidArgument("{}: {} scales for {} along axis {}", Describe(context.node), scales,
                           x.ToString(), axis);
  }
  return Channels{scales, inner};
}

constexpr int64_t kGrain = int64_t{16} * 1024;

/// Calls fn(begin, end, channel) for runs of elements that share a scale.
template <typename Fn>
void ForEachRun(int64_t count, const Channels& c, const Fn& fn) {
  ParallelFor(count, kGrain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t run_end = std::min(end, begin + c.Run(begin));
      fn(begin, run_end, c.Of(begin));
      begin = run_end;
    }
  });
}

/// y = saturate(round_half_even(x / scale) + zero_point); NaN becomes zero_point.
template <typename Y>
Y QuantizeTo(float x, float scale, int32_t zero_point) {
  using Limits = std::numeric_limits<Y>;
  const float steps = std::nearbyint(x / scale);
  if (std::isnan(steps)) return static_cast<Y>(zero_point);
  const float low = static_cast<float>(Limits::min() - zero_point);
  const float high = static_cast<float>(Limits::max() - zero_point);
  return static_cast<Y>(static_cast<int32_t>(std::clamp(steps, low, high)) + zero_point);
}

absl::StatusOr<Kernel> MakeQuantizeLinear(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const Channels c, ChannelsOf(context));
  constexpr Types<float, int32_t> kSources;
  constexpr Types<uint8_t, int8_t, uint16_t, int16_t> kTargets;
  return KernelFor(kSources, context.inputs[0].dtype(), context.node, [&]<typename X>() {
    return KernelFor(kTargets, context.outputs[0].dtype, context.node, [&]<typename Y>() -> Kernel {
      return [c](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
        const X* x = inputs[0].as<X>();
        const Y* zeros = inputs.size() > 2 ? inputs[2].as<Y>() : nullptr;
        const bool integer_scale = inputs[1].dtype() == DType::kI32;
        Y* y = outputs[0].as<Y>();
        ForEachRun(inputs[0].elements(), c, [&](int64_t begin, int64_t end, int64_t channel) {
          const float scale = integer_scale ? static_cast<float>(inputs[1].as<int32_t>()[channel])
                                            : inputs[1].as<float>()[channel];
          const int32_t zero = zeros != nullptr ? zeros[channel] : 0;
          for (int64_t i = begin; i < end; ++i)
            y[i] = QuantizeTo<Y>(static_cast<float>(x[i]), scale, zero);
        });
        return absl::OkStatus();
      };
    });
  });
}

absl::Status InferDequantizeLinear(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kQuantized | DTypeSet{DType::kI32}));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kSmallFloats));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 2));
  OCTET_RETURN_IF_ERROR(ExpectScales(context));
  return context.SetOutput(0, context.dtype(1), context.shape(0));
}

/// Rows whose elements have scales of their own, as embeddings have. `zeros` may be null.
template <typename X>
void DequantizeRows(const X* x, const float* scales, const X* zeros, float* y, int64_t rows,
                    int64_t length) {
  ParallelFor(rows, 1 + kGrain / length, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const X* const from = x + row * length;
      float* const to = y + row * length;
      if (zeros == nullptr) {
        for (int64_t i = 0; i < length; ++i) to[i] = scales[i] * static_cast<float>(from[i]);
      } else {
        for (int64_t i = 0; i < length; ++i)
          to[i] = scales[i] * static_cast<float>(int64_t{from[i]} - zeros[i]);
      }
    }
  });
}

/// y = scale * (x - zero_point).
absl::StatusOr<Kernel> MakeDequantizeLinear(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const Channels c, ChannelsOf(context));
  constexpr Types<uint8_t, int8_t, uint16_t, int16_t, int32_t> kSources;
  return KernelFor(kSources, context.inputs[0].dtype(), context.node, [&]<typename X>() -> Kernel {
    return [c](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
      const X* x = inputs[0].as<X>();
      const X* zeros = inputs.size() > 2 ? inputs[2].as<X>() : nullptr;
      float* y = outputs[0].as<float>();
      const int64_t elements = inputs[0].elements();
      if (c.inner == 1 && c.extent > 1 && !c.blocked) {
        DequantizeRows(x, inputs[1].as<float>(), zeros, y, elements / c.extent, c.extent);
        return absl::OkStatus();
      }
      ForEachRun(elements, c, [&](int64_t begin, int64_t end, int64_t channel) {
        const float scale = inputs[1].as<float>()[channel];
        const int64_t zero = zeros != nullptr ? zeros[channel] : 0;
        for (int64_t i = begin; i < end; ++i) y[i] = scale * static_cast<float>(x[i] - zero);
      });
      return absl::OkStatus();
    };
  });
}

absl::Status InferDynamicQuantizeLinear(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kSmallFloats));
  OCTET_RETURN_IF_ERROR(context.SetOutput(0, DType::kU8, context.shape(0)));
  OCTET_RETURN_IF_ERROR(context.SetOutput(1, DType::kF32, Shape{}));
  return context.SetOutput(2, DType::kU8, Shape{});
}

absl::StatusOr<Kernel> MakeDynamicQuantizeLinear(const KernelContext& context) {
  if (context.outputs.size() != 3) {
    return InvalidArgument("{}: has {} outputs, expected 3", Describe(context.node),
                           context.outputs.size());
  }
  return [](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    const QuantParams params = DynamicQuantParams(FindMinMax(inputs[0]));
    QuantizeTensor(inputs[0], params, outputs[0]);
    if (outputs[1].data != nullptr) *outputs[1].as<float>() = params.scales[0];
    if (outputs[2].data != nullptr)
      *outputs[2].as<uint8_t>() = static_cast<uint8_t>(params.zero_points[0]);
    return absl::OkStatus();
  };
}

}  // namespace

std::span<const OpDef> QuantizeLinearOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "QuantizeLinear", 10, INT_MAX, InferQuantizeLinear, MakeQuantizeLinear},
      {kOnnxDomain, "DequantizeLinear", 10, INT_MAX, InferDequantizeLinear, MakeDequantizeLinear,
       LowerElementwiseKernel},
      {kOnnxDomain, "DynamicQuantizeLinear", 11, INT_MAX, InferDynamicQuantizeLinear,
       MakeDynamicQuantizeLinear},
      // Models quantized before opset 21 carry 16-bit types in this domain.
      {kMicrosoftDomain, "QuantizeLinear", 1, INT_MAX, InferQuantizeLinear, MakeQuantizeLinear},
      {kMicrosoftDomain, "DequantizeLinear", 1, INT_MAX, InferDequantizeLinear,
       MakeDequantizeLinear},
  };
  return kOps;
}

}  // namespace octet
