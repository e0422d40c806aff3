#include "engine/ops/channel_scale.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "engine/graph/stored_value.h"
#include "engine/ops/bf16_rows.h"
#include "engine/ops/elementwise.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/rounding.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Factors that are in the cache at once: of a part of the channels, or of all of them several times over.
constexpr int64_t kBlock = 1024;

/// Of 8-bit results: bounds without the zero point.
struct ByteNumbers {
  int32_t x_zero = 0;
  int32_t y_zero = 0;
  float low = 0;
  float high = 0;
};

// `ivdep` holds because element i is read before it is written, so y may be x.

template <typename X, typename Y>
[[gnu::always_inline]] inline void ScaleBytes(const X* x, const float* factor,
                                              const ByteNumbers& numbers, Y* y, int64_t n) {
  const auto [x_zero, y_zero, low, high] = numbers;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const float v = static_cast<float>(x[i] - x_zero) * factor[i];
    y[i] = static_cast<Y>(RoundClamped(v, low, high) + y_zero);
  }
}

OCTET_CPU_CLONES void Scale(const uint8_t* x, const float* factor, const ByteNumbers& numbers,
                            uint8_t* y, int64_t n) {
  ScaleBytes(x, factor, numbers, y, n);
}
OCTET_CPU_CLONES void Scale(const int8_t* x, const float* factor, const ByteNumbers& numbers,
                            int8_t* y, int64_t n) {
  ScaleBytes(x, factor, numbers, y, n);
}
OCTET_CPU_CLONES void Scale(const uint8_t* x, const float* factor, const ByteNumbers& numbers,
                            int8_t* y, int64_t n) {
  ScaleBytes(x, factor, numbers, y, n);
}
OCTET_CPU_CLONES void Scale(const int8_t* x, const float* factor, const ByteNumbers& numbers,
                            uint8_t* y, int64_t n) {
  ScaleBytes(x, factor, numbers, y, n);
}
inline void Scale(const BFloat16* x, const float* factor, const ByteNumbers&, BFloat16* y,
                  int64_t n) {
  ScaleBf16(x, factor, y, n);
}

/// Which operand is scaled, by which one, over how many positions.
struct Roles {
  size_t x = 0;
  size_t factor = 1;
  int64_t plane = 0;     ///< Positions that share a factor.
  int64_t channels = 0;  ///< Extent of the last axis.
};

/// The other operand's shape is y's with a run of axes before the last one that are 1, or that it does not have.
std::optional<Roles> FindRoles(const LowerContext& context) {
  const Shape& y = *context.output().shape;
  const int rank = y.rank();
  if (rank < 2 || y.elements() == 0) return std::nullopt;
  for (const auto& [x, factor] : {std::pair<size_t, size_t>(0, 1), {1, 0}}) {
    const Shape& shape = *context.input(factor).shape;
    if (context.input(x).shape != context.output().shape) continue;
    const auto extent = [&](int axis) {
      const int own = axis - (rank - shape.rank());
      return own < 0 ? int64_t{1} : shape[own];
    };
    if (extent(rank - 1) != y[rank - 1]) continue;
    int first = rank - 1;
    while (first > 0 && extent(first - 1) == 1) --first;
    bool leading = true;
    for (int axis = 0; axis < first; ++axis) leading = leading && extent(axis) == y[axis];
    const int64_t plane = y.elements(first, rank - 1);
    if (leading && plane > 1) return Roles{x, factor, plane, y[rank - 1]};
  }
  return std::nullopt;
}

template <typename X, typename Y>
class ChannelScaleStep final : public Step {
 public:
  ChannelScaleStep(const LowerContext& context, const Roles& roles)
      : roles_(roles),
        rows_(context.output().shape->elements() / roles.channels),
        factor_(RealFormatOf(context.input(roles.factor))) {
    const Value& x = context.input(roles.x);
    const Value& y = context.output();
    if (context.MayOverwrite(roles.x) && SizeOf(x.dtype) == SizeOf(y.dtype))
      overwrites_ = static_cast<int>(roles.x);
    if (!y.quant) return;
    scale_ = x.quant->scales[0] / y.quant->scales[0];
    const int32_t y_zero = y.quant->zero_points[0];
    const IntRange range = RangeOf(y.dtype);
    numbers_ = {x.quant->zero_points[0], y_zero, static_cast<float>(range.min - y_zero),
                static_cast<float>(range.max - y_zero)};
  }

  absl::Status Run(const StepArgs& args) const override {
    ParallelFor(rows_, 1 + kElementwiseGrain / roles_.channels, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t image = begin / roles_.plane;
        const int64_t last = std::min(end, (image + 1) * roles_.plane);
        for (int64_t c = 0; c < roles_.channels; c += kBlock)
          ScaleRows(args, image, begin, last, c);
        begin = last;
      }
    });
    return absl::OkStatus();
  }

  int overwrites_input() const override { return overwrites_; }

 private:
  /// Channels [channel, channel + kBlock) of rows [begin, end), which are of one image.
  void ScaleRows(const StepArgs& args, int64_t image, int64_t begin, int64_t end,
                 int64_t channel) const {
    const int64_t channels = roles_.channels;
    const int64_t n = std::min(kBlock, channels - channel);
    alignas(kTensorAlignment) std::array<float, kBlock> read;
    alignas(kTensorAlignment) std::array<float, kBlock> factors;
    const float* reals =
        factor_.Read(args.inputs[roles_.factor], image * channels + channel, n, read.data());
    for (int64_t i = 0; i < n; ++i) factors[i] = reals[i] * scale_;
    // Whole rows lie one behind the other: several at once, so that few channels make long loops, too.
    const int64_t together = n == channels ? std::min(end - begin, kBlock / n) : 1;
    for (int64_t row = 1; row < together; ++row)
      std::copy_n(factors.begin(), n, factors.begin() + row * n);
    const auto* x = static_cast<const X*>(args.inputs[roles_.x]) + channel;
    auto* y = static_cast<Y*>(args.outputs[0]) + channel;
    for (int64_t row = begin; row < end; row += together) {
      Scale(x + row * channels, factors.data(), numbers_, y + row * channels,
            n * std::min(together, end - row));
    }
  }

  Roles roles_;
  int64_t rows_;  ///< Positions of all images.
  RealFormat factor_;
  float scale_ = 1;
  ByteNumbers numbers_;
  int overwrites_ = kNone;
};

template <typename X>
std::unique_ptr<Step> MakeByteStep(const LowerContext& context, const Roles& roles) {
  if (context.output().dtype == DType::kU8)
    return std::make_unique<ChannelScaleStep<X, uint8_t>>(context, roles);
  return std::make_unique<ChannelScaleStep<X, int8_t>>(context, roles);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerChannelScale(const LowerContext& context) {
  const auto roles =
      context.node.op == "Mul" && context.node.post_ops.empty() ? FindRoles(context) : std::nullopt;
  if (!roles || !HasRealFormat(context.input(roles->factor)))
    return Unimplemented("no factors per channel");
  const Value& x = context.input(roles->x);
  const Value& y = context.output();
  const bool bytes = IsTypedInt8(x) && IsTypedInt8(y);
  const bool bf16 = x.dtype == DType::kBF16 && y.dtype == DType::kBF16;
  if (!bytes && !bf16) return Unimplemented("neither int8 with one scale nor BF16");
  context.layer.runs = bytes && IsTypedInt8(context.input(roles->factor)) ? "int8" : "f32";
  context.layer.impl = "octet:channel_scale";
  context.layer.isa = context.target.isa;
  if (bf16) return std::make_unique<ChannelScaleStep<BFloat16, BFloat16>>(context, *roles);
  if (x.dtype == DType::kU8) return MakeByteStep<uint8_t>(context, *roles);
  return MakeByteStep<int8_t>(context, *roles);
}

}  // namespace octet
