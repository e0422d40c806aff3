#include "engine/ops/gemv_step.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/ops/post_ops.h"
#include "engine/ops/quantize_reals.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Weights that a thread reads at least.
constexpr int64_t kGemvGrain = int64_t{1} << 16;

std::span<const float> FloatsOf(const Tensor& tensor) {
  return tensor.empty_handle() ? std::span<const float>() : tensor.span<float>();
}

class GemvStep : public Step {
 public:
  GemvStep(const PanelLayout& layout, std::shared_ptr<const std::byte[]> weights)
      : layout_(layout), weights_(std::move(weights)) {}

  absl::Status Run(const StepArgs& args) const override {
    ParallelFor(layout_.panel_count(), 1 + kGemvGrain / layout_.pitch,
                [&](int64_t first, int64_t last) { RunPanels(args, first, last); });
    return absl::OkStatus();
  }

  bool reads_input(int i) const override { return i == 0; }
  bool is_primitive() const override { return true; }

 protected:
  virtual void RunPanels(const StepArgs& args, int64_t first, int64_t last) const = 0;

  void ApplyToPanels(std::span<const PostOp> post_ops, float* y, int64_t first,
                     int64_t last) const {
    const int64_t begin = first * layout_.width;
    const int64_t end = std::min(last * layout_.width, layout_.n);
    for (const PostOp& op : post_ops) ApplyUnaryPostOp(op, y + begin, end - begin);
  }

  const PanelLayout layout_;
  const std::shared_ptr<const std::byte[]> weights_;
};

class GemvFloatStep final : public GemvStep {
 public:
  GemvFloatStep(const LowerContext& context, const PanelLayout& layout,
                std::shared_ptr<const std::byte[]> weights, Tensor bias)
      : GemvStep(layout, std::move(weights)),
        post_ops_(context.node.post_ops),
        bias_(std::move(bias)) {}

 private:
  void RunPanels(const StepArgs& args, int64_t first, int64_t last) const override {
    auto* y = static_cast<float*>(args.outputs[0]);
    Gemv(layout_, reinterpret_cast<const float*>(weights_.get()),
         static_cast<const float*>(args.inputs[0]), FloatsOf(bias_).data(), y, first, last);
    ApplyToPanels(post_ops_, y, first, last);
  }

  const std::vector<PostOp> post_ops_;
  const Tensor bias_;
};

class GemvBFloat16Step final : public GemvStep {
 public:
  GemvBFloat16Step(const LowerContext& context, const PanelLayout& layout,
                   std::shared_ptr<const std::byte[]> weights, Tensor bias)
      : GemvStep(layout, std::move(weights)),
        post_ops_(context.node.post_ops),
        bias_(std::move(bias)),
        narrow_(context.output().dtype == DType::kBF16) {}

  size_t scratch_bytes() const override {
    return narrow_ ? static_cast<size_t>(layout_.n) * sizeof(float) : 0;
  }

 private:
  void RunPanels(const StepArgs& args, int64_t first, int64_t last) const override {
    auto* reals =
        narrow_ ? reinterpret_cast<float*>(args.scratch) : static_cast<float*>(args.outputs[0]);
    GemvBFloat16(layout_, reinterpret_cast<const BFloat16*>(weights_.get()),
                 static_cast<const BFloat16*>(args.inputs[0]), FloatsOf(bias_).data(), reals, first,
                 last);
    ApplyToPanels(post_ops_, reals, first, last);
    if (!narrow_) return;
    auto* y = static_cast<BFloat16*>(args.outputs[0]);
    const int64_t end = std::min(last * layout_.width, layout_.n);
    for (int64_t i = first * layout_.width; i < end; ++i) y[i] = ToBFloat16(reals[i]);
  }

  const std::vector<PostOp> post_ops_;
  const Tensor bias_;
  const bool narrow_;
};

class GemvInt8Step : public GemvStep {
 public:
  GemvInt8Step(const PanelLayout& layout, std::shared_ptr<const std::byte[]> weights,
               const Int8Numbers& numbers, std::span<const int32_t> column_sums,
               std::span<const float> bias, std::span<const float> factor)
      : GemvStep(layout, std::move(weights)),
        numbers_(numbers),
        bias_(bias.begin(), bias.end()),
        factor_(factor.begin(), factor.end()) {
    const auto columns = static_cast<size_t>(layout.panel_count() * layout.width);
    const int32_t x_zero = numbers.x_zero + (numbers.x_signed ? 128 : 0);
    for (const int32_t sum : column_sums) compensation_.push_back(-x_zero * sum);
    compensation_.resize(columns);
    bias_.resize(columns);
    factor_.resize(columns);
  }

 protected:
  void RunPanels(const StepArgs& args, int64_t first, int64_t last) const override {
    GemvInt8(layout_, panels(), numbers_, columns(), static_cast<const uint8_t*>(args.inputs[0]),
             static_cast<uint8_t*>(args.outputs[0]), first, last);
  }

  const int8_t* panels() const { return reinterpret_cast<const int8_t*>(weights_.get()); }
  GemvColumns columns() const { return {compensation_.data(), bias_.data(), factor_.data()}; }

  const Int8Numbers numbers_;

 private:
  std::vector<int32_t> compensation_;
  std::vector<float> bias_;
  std::vector<float> factor_;
};

class GemvRealsStep final : public GemvInt8Step {
 public:
  template <typename... Args>
  explicit GemvRealsStep(std::vector<PostOp> post_ops, Args&&... args)
      : GemvInt8Step(std::forward<Args>(args)...), post_ops_(std::move(post_ops)) {}

 private:
  void RunPanels(const StepArgs& args, int64_t first, int64_t last) const override {
    auto* y = static_cast<float*>(args.outputs[0]);
    GemvInt8ToReals(layout_, panels(), numbers_, columns(),
                    static_cast<const uint8_t*>(args.inputs[0]), y, first, last);
    ApplyToPanels(post_ops_, y, first, last);
  }

  const std::vector<PostOp> post_ops_;
};

/// A row of reals that is quantized when it runs: what turns the sums into reals is made then, too.
class GemvDynamicStep final : public GemvStep {
 public:
  GemvDynamicStep(const PanelLayout& layout, std::shared_ptr<const std::byte[]> weights,
                  std::vector<PostOp> post_ops, std::span<const int32_t> column_sums,
                  std::span<const float> bias, std::span<const float> weight_scales)
      : GemvStep(layout, std::move(weights)),
        post_ops_(std::move(post_ops)),
        sums_(column_sums.begin(), column_sums.end()),
        bias_(bias.begin(), bias.end()),
        weight_scales_(weight_scales.begin(), weight_scales.end()),
        compensation_(AlignUp(static_cast<size_t>(layout.k))),
        factor_(compensation_ + AlignUp(column_count() * sizeof(int32_t))) {
    sums_.resize(column_count());
    bias_.resize(column_count());
    weight_scales_.resize(column_count());
  }

  absl::Status Run(const StepArgs& args) const override {
    const DynamicScale grid =
        QuantizeToOwnRange(static_cast<const float*>(args.inputs[0]), layout_.k,
                           reinterpret_cast<uint8_t*>(args.scratch));
    auto* compensation = reinterpret_cast<int32_t*>(args.scratch + compensation_);
    auto* factor = reinterpret_cast<float*>(args.scratch + factor_);
    for (size_t column = 0; column < column_count(); ++column) {
      compensation[column] = -grid.zero_point * sums_[column];
      factor[column] = grid.scale * weight_scales_[column];
    }
    return RunPrimitives(args);
  }

  absl::Status RunPrimitives(const StepArgs& args) const override { return GemvStep::Run(args); }
  size_t scratch_bytes() const override { return factor_ + column_count() * sizeof(float); }

 private:
  /// Those of all panels, padding included.
  size_t column_count() const { return static_cast<size_t>(layout_.panel_count() * layout_.width); }

  void RunPanels(const StepArgs& args, int64_t first, int64_t last) const override {
    auto* y = static_cast<float*>(args.outputs[0]);
    const GemvColumns columns{reinterpret_cast<const int32_t*>(args.scratch + compensation_),
                              bias_.data(), reinterpret_cast<const float*>(args.scratch + factor_)};
    // The zero point is in the compensation.
    GemvInt8ToReals(layout_, reinterpret_cast<const int8_t*>(weights_.get()), Int8Numbers(),
                    columns, reinterpret_cast<const uint8_t*>(args.scratch), y, first, last);
    ApplyToPanels(post_ops_, y, first, last);
  }

  const std::vector<PostOp> post_ops_;
  std::vector<int32_t> sums_;  ///< Of the weights of a column.
  std::vector<float> bias_;
  std::vector<float> weight_scales_;
  // Scratch offsets; the row's bytes are ahead.
  size_t compensation_;
  size_t factor_;
};

std::vector<float> ScalesOfColumns(const QuantParams& weights, size_t columns) {
  return weights.per_tensor() ? std::vector<float>(columns, weights.scales[0]) : weights.scales;
}

}  // namespace

std::unique_ptr<Step> MakeGemvStep(const LowerContext& context, const PanelLayout& layout,
                                   std::shared_ptr<const std::byte[]> weights, Tensor bias) {
  if (layout.group == 2) {
    return std::make_unique<GemvBFloat16Step>(context, layout, std::move(weights), std::move(bias));
  }
  return std::make_unique<GemvFloatStep>(context, layout, std::move(weights), std::move(bias));
}

std::unique_ptr<Step> MakeGemvInt8Step(const PanelLayout& layout,
                                       std::shared_ptr<const std::byte[]> weights,
                                       const Int8Numbers& numbers, const WholeSums& whole,
                                       std::span<const int32_t> column_sums) {
  return std::make_unique<GemvInt8Step>(layout, std::move(weights), numbers, column_sums,
                                        FloatsOf(whole.bias()), whole.factors());
}

std::unique_ptr<Step> MakeGemvRealsStep(const LowerContext& context, const PanelLayout& layout,
                                        std::shared_ptr<const std::byte[]> weights,
                                        const Tensor& bias, std::span<const int32_t> column_sums) {
  const QuantParams& b = *context.input(1).quant;
  std::vector<float> factor = ScalesOfColumns(b, column_sums.size());
  if (!context.input(0).quant) {
    return std::make_unique<GemvDynamicStep>(layout, std::move(weights), context.node.post_ops,
                                             column_sums, FloatsOf(bias), factor);
  }
  for (float& f : factor) f *= context.input(0).quant->scales[0];
  return std::make_unique<GemvRealsStep>(context.node.post_ops, layout, std::move(weights),
                                         SourceNumbersOf(context), column_sums, FloatsOf(bias),
                                         factor);
}

}  // namespace octet
