#include "engine/ops/channel_affine.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/graph/stored_value.h"
#include "engine/ops/bf16_rows.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/int8_numbers.h"
#include "engine/ops/post_ops.h"
#include "engine/ops/real_bounds.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/rounding.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Results that stay in the cache while one part after the other is written into them.
constexpr int64_t kResidentResults = int64_t{1} << 14;
/// Elements of one value that a loop gets: of few channels several rows.
constexpr int64_t kRun = 256;
/// Channels whose constants stay in registers for many rows.
constexpr int64_t kLanes = 32;

/// Bounds without the zero point.
struct Bounds {
  int32_t zero = 0;
  float low = 0;
  float high = 0;
};

/// `rows` rows of n elements, `step` apart.
template <typename X>
struct Rows {
  const X* x;
  int64_t x_step;
  const float* factor;
  const float* addend;
  int64_t y_step;
  int64_t rows;
  int64_t n;
};

[[gnu::always_inline]] inline int32_t Step8(float x, float factor, float addend,
                                            const Bounds& bounds) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  const float product = x * factor;
  // The comparison keeps product and sum from becoming one fused operation.
  const float kept = product < -kLargest ? -kLargest : product;
  return RoundClamped(kept + addend, bounds.low, bounds.high) + bounds.zero;
}

[[gnu::always_inline]] inline float Real(float x, float factor, float addend,
                                         const Bounds& bounds) {
  const float sum = x * factor + addend;
  const float least = sum < bounds.low ? bounds.low : sum;  // A NaN stays one.
  return least > bounds.high ? bounds.high : least;
}

template <typename Y>
[[gnu::always_inline]] inline Y Result(float x, float factor, float addend, const Bounds& bounds) {
  if constexpr (std::is_same_v<Y, float>) {
    return Real(x, factor, addend, bounds);
  } else {
    return static_cast<Y>(Step8(x, factor, addend, bounds));
  }
}

// `ivdep` holds because element i is read before it is written, so y may be x.
template <typename Y>
[[gnu::always_inline]] inline void Affine(const Rows<float>& rows, const Bounds& given, Y* y) {
  // Copies: a byte that is written may lie anywhere.
  const Bounds bounds = given;
  const auto [first, x_step, factors, addends, y_step, count, n] = rows;
  int64_t done = 0;
  for (; done + kLanes <= n; done += kLanes) {
    float factor[kLanes];
    float addend[kLanes];
    std::copy_n(factors + done, kLanes, factor);
    std::copy_n(addends + done, kLanes, addend);
    for (int64_t row = 0; row < count; ++row) {
      const float* x = first + row * x_step + done;
      Y* to = y + row * y_step + done;
#pragma GCC ivdep
      for (int64_t i = 0; i < kLanes; ++i) to[i] = Result<Y>(x[i], factor[i], addend[i], bounds);
    }
  }
  if (done == n) return;
  for (int64_t row = 0; row < count; ++row) {
    const float* x = first + row * x_step;
    Y* to = y + row * y_step;
#pragma GCC ivdep
    for (int64_t i = done; i < n; ++i) to[i] = Result<Y>(x[i], factors[i], addends[i], bounds);
  }
}

OCTET_CPU_CLONES void AffineRows(const Rows<float>& rows, const Bounds& bounds, uint8_t* y) {
  Affine(rows, bounds, y);
}
OCTET_CPU_CLONES void AffineRows(const Rows<float>& rows, const Bounds& bounds, int8_t* y) {
  Affine(rows, bounds, y);
}
OCTET_CPU_CLONES void AffineRows(const Rows<float>& rows, const Bounds& bounds, float* y) {
  Affine(rows, bounds, y);
}
void AffineRows(const Rows<BFloat16>& rows, const Bounds& bounds, BFloat16* y) {
  AffineBf16({.x = rows.x,
              .x_step = rows.x_step,
              .factor = rows.factor,
              .addend = rows.addend,
              .y = y,
              .y_step = rows.y_step,
              .rows = rows.rows,
              .n = rows.n},
             bounds.low, bounds.high);
}

/// Channels [first, first + channels) of the result are those of an input.
struct Part {
  size_t slot = 0;
  int64_t first = 0;
  int64_t channels = 0;
};

/// In steps of the result, before it is rounded.
struct Constants {
  std::vector<float> factor;
  std::vector<float> addend;
  Bounds bounds;
};

template <typename X, typename Y>
class ChannelAffineStep final : public Step {
 public:
  /// `rows` of all parts' channels, which are as many as there are constants. `overwrites`: the slot that the result may take the place of.
  ChannelAffineStep(std::vector<Part> parts, int64_t rows, Constants constants, int overwrites)
      : parts_(std::move(parts)),
        channels_(std::ssize(constants.factor)),
        rows_(rows),
        constants_(std::move(constants)),
        overwrites_(overwrites) {
    if (parts_.size() == 1) together_ = std::max<int64_t>(1, kRun / channels_);
    for (std::vector<float>* values : {&constants_.factor, &constants_.addend}) {
      values->resize(static_cast<size_t>(channels_ * together_));
      for (int64_t row = 1; row < together_; ++row)
        std::copy_n(values->begin(), channels_, values->begin() + row * channels_);
    }
  }

  absl::Status Run(const StepArgs& args) const override {
    const int64_t block = std::max(together_, kResidentResults / channels_ / together_ * together_);
    ParallelFor(rows_, 1 + kElementwiseGrain / channels_, [&](int64_t begin, int64_t end) {
      for (; begin < end; begin += block) {
        for (const Part& part : parts_) RunPart(args, part, begin, std::min(block, end - begin));
      }
    });
    return absl::OkStatus();
  }

  bool reads_input(int i) const override {
    return std::ranges::any_of(
        parts_, [i](const Part& part) { return part.slot == static_cast<size_t>(i); });
  }
  int overwrites_input() const override { return overwrites_; }

 private:
  /// `n` rows from `row` on. Rows that are taken together have one part, so that they lie one behind the other.
  void RunPart(const StepArgs& args, const Part& part, int64_t row, int64_t n) const {
    const auto* x = static_cast<const X*>(args.inputs[part.slot]) + row * part.channels;
    Y* y = static_cast<Y*>(args.outputs[0]) + row * channels_ + part.first;
    Rows<X> rows{.x = x,
                 .x_step = together_ * part.channels,
                 .factor = constants_.factor.data() + part.first,
                 .addend = constants_.addend.data() + part.first,
                 .y_step = together_ * channels_,
                 .rows = n / together_,
                 .n = together_ * part.channels};
    AffineRows(rows, constants_.bounds, y);
    const int64_t done = rows.rows * together_;
    if (done == n) return;
    rows.x += done * part.channels;
    rows.rows = 1;
    rows.n = (n - done) * part.channels;
    AffineRows(rows, constants_.bounds, y + done * channels_);
  }

  std::vector<Part> parts_;
  int64_t channels_;
  int64_t rows_;
  int64_t together_ = 1;  ///< Rows that one loop goes through.
  Constants constants_;   ///< Repeated for each of these.
  int overwrites_ = kNone;
};

/// Whether results of y's type are made of such values: 8 bits of FP32, reals of their own type.
bool IsReadAs(const Value& x, const Value& y) {
  return !x.quant && x.dtype == (IsTypedInt8(y) ? DType::kF32 : y.dtype);
}

absl::StatusOr<std::vector<Part>> JoinedParts(const LowerContext& context) {
  const Shape& y = *context.output().shape;
  OCTET_ASSIGN_OR_RETURN(const int64_t axis, context.node.attributes.Int("axis", 0));
  if (axis != y.rank() - 1 && axis != -1) return Unimplemented("parts of other axes than the last");
  std::vector<Part> parts;
  int64_t first = 0;
  for (size_t i = 0; i < OwnInputCount(context.node); ++i) {
    if (!IsReadAs(context.input(i), context.output()))
      return Unimplemented("parts of other types than results of '{}' are made of",
                           context.output().name);
    const int64_t channels = context.input(i).shape->back();
    if (channels > 0) parts.push_back({i, first, channels});
    first += channels;
  }
  return parts;
}

/// Of a Mul by constants; the other operand is `factor`.
absl::StatusOr<std::vector<Part>> MultipliedPart(const LowerContext& context, size_t& factor) {
  const Value& y = context.output();
  for (const size_t x : {size_t{0}, size_t{1}}) {
    factor = 1 - x;
    if (context.input(x).is_constant() || !context.input(factor).is_constant()) continue;
    if (IsReadAs(context.input(x), y) && context.input(x).shape == y.shape)
      return std::vector<Part>{{x, 0, y.shape->back()}};
  }
  return Unimplemented("no value by constants");
}

/// The factors and addends that a node applies one after the other, as one of each per channel.
class AffineReader {
 public:
  AffineReader(const LowerContext& context, int64_t channels)
      : context_(context),
        factor_(static_cast<size_t>(channels), 1.0),
        addend_(static_cast<size_t>(channels), 0.0) {}

  absl::Status Apply(PostOp::Kind kind, size_t slot) {
    const Value& value = context_.input(slot);
    const auto channels = std::ssize(factor_);
    if (!value.is_constant() || value.dtype != DType::kF32 || value.quant)
      return Unimplemented("operands of a request");
    const int64_t count = value.shape->elements();
    if (count != 1 && (count != channels || value.shape->back() != channels))
      return Unimplemented("operands that are not per channel");
    const auto reals = value.constant.span<float>();
    for (size_t c = 0; c < factor_.size(); ++c) {
      const double real = reals[count == 1 ? 0 : c];
      if (kind == PostOp::Kind::kMul) factor_[c] *= real;
      if (kind == PostOp::Kind::kMul) addend_[c] *= real;
      if (kind == PostOp::Kind::kAdd) addend_[c] += real;
    }
    return absl::OkStatus();
  }

  /// Behind the last Apply. UNIMPLEMENTED where floats do not hold them.
  absl::StatusOr<Constants> Finish(const Bounds& bounds) const {
    const Value& y = context_.output();
    const double scale = y.quant ? y.quant->scales[0] : 1;
    Constants constants;
    constants.bounds = bounds;
    for (size_t c = 0; c < factor_.size(); ++c) {
      constants.factor.push_back(static_cast<float>(factor_[c] / scale));
      constants.addend.push_back(static_cast<float>(addend_[c] / scale));
      const float factor = constants.factor.back();
      if (!std::isfinite(constants.addend.back()) || !(std::isnormal(factor) || factor_[c] == 0))
        return Unimplemented("constants that are no floats in steps of the result");
    }
    return constants;
  }

 private:
  const LowerContext& context_;
  std::vector<double> factor_;
  std::vector<double> addend_;
};

/// Of the activations behind the last factor and addend.
absl::StatusOr<Bounds> BoundsOf(const Value& y, std::span<const PostOp> activations) {
  if (!y.quant) {
    OCTET_ASSIGN_OR_RETURN(const RealBounds reals, RealBoundsOf(activations));
    return Bounds{.low = reals.low, .high = reals.high};
  }
  OCTET_ASSIGN_OR_RETURN(const Int8Numbers numbers, ResultNumbersOf(y, activations));
  return Bounds{numbers.y_zero, static_cast<float>(numbers.low - numbers.y_zero),
                static_cast<float>(numbers.high - numbers.y_zero)};
}

absl::StatusOr<Constants> ReadConstants(const LowerContext& context, int64_t channels,
                                        std::span<const size_t> factors) {
  AffineReader reader(context, channels);
  for (const size_t slot : factors) OCTET_RETURN_IF_ERROR(reader.Apply(PostOp::Kind::kMul, slot));
  std::span<const PostOp> rest = context.node.post_ops;
  for (; !rest.empty() && HasOperand(rest.front().kind); rest = rest.subspan(1))
    OCTET_RETURN_IF_ERROR(reader.Apply(rest[0].kind, static_cast<size_t>(rest[0].operand)));
  OCTET_ASSIGN_OR_RETURN(const Bounds bounds, BoundsOf(context.output(), rest));
  return reader.Finish(bounds);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerChannelAffine(const LowerContext& context) {
  const Node& node = context.node;
  const Value& y = context.output();
  const bool real = !y.quant && (y.dtype == DType::kF32 || y.dtype == DType::kBF16);
  if (!(real || IsTypedInt8(y)) || y.shape->rank() < 1)
    return Unimplemented("the result is neither int8 with one scale nor FP32 nor BF16");
  std::vector<size_t> factors;
  std::vector<Part> parts;
  const int64_t channels = y.shape->back();
  const int64_t rows = y.shape->elements(0, y.shape->rank() - 1);
  if (node.is("Concat")) {
    OCTET_ASSIGN_OR_RETURN(parts, JoinedParts(context));
  } else if (node.is("Mul") && OwnInputCount(node) == 2 && rows > 1) {
    OCTET_ASSIGN_OR_RETURN(parts, MultipliedPart(context, factors.emplace_back()));
    // One factor for all needs no row of its own.
    if (real && context.input(factors[0]).shape->elements() == 1)
      return Unimplemented("one factor for all channels");
  } else {
    return Unimplemented("no product per channel");
  }
  OCTET_ASSIGN_OR_RETURN(Constants constants, ReadConstants(context, channels, factors));
  context.layer.runs = "f32";
  context.layer.impl = "octet:channel_affine";
  context.layer.isa = context.target.isa;
  const bool overwrites = real && node.is("Mul") && context.MayOverwrite(parts[0].slot);
  const int overwritten = overwrites ? static_cast<int>(parts[0].slot) : kNone;
  const auto make = [&]<typename X, typename Y>(X, Y) -> std::unique_ptr<Step> {
    return std::make_unique<ChannelAffineStep<X, Y>>(std::move(parts), rows, std::move(constants),
                                                     overwritten);
  };
  if (y.dtype == DType::kU8) return make(float(), uint8_t());
  if (y.dtype == DType::kI8) return make(float(), int8_t());
  if (y.dtype == DType::kBF16) return make(BFloat16(), BFloat16());
  return make(float(), float());
}

}  // namespace octet
