#include "engine/ops/integer_average.h"

#include <algorithm>
#include <array>
#include <optional>

#include "engine/ops/row_sums.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Channels that are summed at once: they stay in the cache.
constexpr int64_t kChannelBlock = 512;
/// 255 * this fits 31 bits.
constexpr int64_t kMaxTaps = int64_t{1} << 22;
constexpr int64_t kGrainBytes = int64_t{64} * 1024;

OCTET_CPU_CLONES void Add(const uint8_t* x, int64_t taps, int64_t pitch, int32_t* sum, int64_t n) {
  row_sums::Add(x, taps, pitch, sum, n);
}
OCTET_CPU_CLONES void Add(const int8_t* x, int64_t taps, int64_t pitch, int32_t* sum, int64_t n) {
  row_sums::Add(x, taps, pitch, sum, n);
}

OCTET_CPU_CLONES void Divide(const int32_t* sum, int32_t offset, double factor, float* y,
                             int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>((sum[i] - offset) * factor);
}

/// First and one past the last tap of an axis whose position lies in [low, high).
std::array<int64_t, 2> TapsAlong(const AxisWindow& axis, int64_t out, int64_t low, int64_t high) {
  int64_t begin = 0;
  int64_t end = axis.kernel;
  while (begin < end && axis.Position(out, begin) < low) ++begin;
  while (end > begin && axis.Position(out, end - 1) >= high) --end;
  return {begin, end};
}

class IntegerAverageStep final : public Step {
 public:
  IntegerAverageStep(const LowerContext& context, const PoolGeometry& g, AverageCount count)
      : g_(g),
        count_(count),
        is_signed_(context.input(0).dtype == DType::kI8),
        scale_(context.input(0).quant->scales[0]),
        zero_point_(context.input(0).quant->zero_points[0]),
        output_(context.output().dtype),
        quant_(context.output().quant) {}

  absl::Status Run(const StepArgs& args) const override {
    const auto* x = static_cast<const uint8_t*>(args.inputs[0]);
    auto* y = static_cast<std::byte*>(args.outputs[0]);
    const int64_t blocks = (g_.channels + kChannelBlock - 1) / kChannelBlock;
    const int64_t windows = g_.batch * g_.out_plane();
    const int64_t grain = 1 + kGrainBytes / (g_.kernel() * std::min(g_.channels, kChannelBlock));
    ParallelFor(windows * blocks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) RunBlock(x, y, i / blocks, i % blocks * kChannelBlock);
    });
    return absl::OkStatus();
  }

 private:
  /// Channels [channel, channel + kChannelBlock) of one window, counted over batch and output positions.
  void RunBlock(const uint8_t* x, std::byte* y, int64_t window, int64_t channel) const {
    const auto& [depth, height, width] = g_.axes;
    const int64_t n = std::min(kChannelBlock, g_.channels - channel);
    const int64_t out = window % g_.out_plane();
    const std::array<int64_t, 3> at = {out / width.out / height.out, out / width.out % height.out,
                                       out % width.out};
    const auto [d_begin, d_end] = TapsAlong(depth, at[0], 0, depth.in);
    const auto [h_begin, h_end] = TapsAlong(height, at[1], 0, height.in);
    const auto [w_begin, w_end] = TapsAlong(width, at[2], 0, width.in);
    alignas(kTensorAlignment) std::array<int32_t, kChannelBlock> sum;
    std::fill_n(sum.begin(), n, 0);
    const uint8_t* image = x + window / g_.out_plane() * g_.in_plane() * g_.channels + channel;
    for (int64_t d = d_begin; d < d_end; ++d) {
      for (int64_t h = h_begin; h < h_end; ++h) {
        const int64_t row =
            (depth.Position(at[0], d) * height.in + height.Position(at[1], h)) * width.in;
        AddRow(image + (row + width.Position(at[2], w_begin)) * g_.channels, w_end - w_begin,
               sum.data(), n);
      }
    }
    const int64_t inside = (d_end - d_begin) * (h_end - h_begin) * (w_end - w_begin);
    Store(sum.data(), inside, Count(inside, at), y, window * g_.channels + channel, n);
  }

  /// Taps side by side along the width.
  void AddRow(const uint8_t* x, int64_t taps, int32_t* sum, int64_t n) const {
    const AxisWindow& width = g_.axes[2];
    const int64_t pitch = (width.Position(0, 1) - width.Position(0, 0)) * g_.channels;
    if (is_signed_) {
      Add(reinterpret_cast<const int8_t*>(x), taps, pitch, sum, n);
    } else {
      Add(x, taps, pitch, sum, n);
    }
  }

  int64_t Count(int64_t inside, const std::array<int64_t, 3>& at) const {
    switch (count_) {
      case AverageCount::kInside:
        return inside;
      case AverageCount::kPadded:
        return g_.PaddedTaps(at);
      case AverageCount::kKernel:
        return g_.kernel();
    }
    return inside;
  }

  void Store(const int32_t* sum, int64_t taps, int64_t count, std::byte* y, int64_t first,
             int64_t n) const {
    const double factor =
        static_cast<double>(scale_) / static_cast<double>(std::max<int64_t>(count, 1));
    const auto offset = static_cast<int32_t>(taps * zero_point_);
    if (!quant_) return Divide(sum, offset, factor, reinterpret_cast<float*>(y) + first, n);
    alignas(kTensorAlignment) std::array<float, kChannelBlock> reals;
    Divide(sum, offset, factor, reals.data(), n);
    QuantizeTensor({reals.data(), {DType::kF32, Shape{n}}}, *quant_,
                   {y + first, {output_, Shape{n}}});
  }

  PoolGeometry g_;
  AverageCount count_;
  bool is_signed_;
  float scale_;
  int32_t zero_point_;
  DType output_;
  std::optional<QuantParams> quant_;
};

}  // namespace

AverageCount AverageCountOf(const Node& node) {
  if (node.attributes.IntOr("count_include_pad", 0) == 0) return AverageCount::kInside;
  return node.version < 19 ? AverageCount::kKernel : AverageCount::kPadded;
}

absl::StatusOr<std::unique_ptr<Step>> LowerIntegerAverage(const LowerContext& context,
                                                          const PoolGeometry& geometry,
                                                          AverageCount count) {
  const Value& x = context.input(0);
  const Value& y = context.output();
  if (!x.quant || !x.quant->per_tensor() || !IsInt8(x.dtype))
    return Unimplemented("input is not int8 with one scale");
  const bool typed = y.quant && y.quant->per_tensor() && IsInt8(y.dtype);
  if (!typed && (y.quant || y.dtype != DType::kF32))
    return Unimplemented("result is neither F32 nor int8 with one scale");
  if (geometry.kernel() > kMaxTaps) return Unimplemented("a window of {} taps", geometry.kernel());
  context.layer.runs = "int8";
  context.layer.impl = "octet:average_int8";
  context.layer.isa = context.target.isa;
  return std::make_unique<IntegerAverageStep>(context, geometry, count);
}

}  // namespace octet
