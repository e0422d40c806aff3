// Convolutions, and int8 products with constant matrices (as 1x1 convolutions), on oneDNN.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/onednn/isa.h"
#include "engine/onednn/memory_desc.h"
#include "engine/onednn/runtime.h"
#include "engine/onednn/weight_cache.h"
#include "engine/ops/dynamic_quant_step.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/primitive_attributes.h"
#include "engine/ops/reference_step.h"
#include "engine/ops/saturation.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using onednn::BoundPrimitive;
using onednn::ExecArg;
using Dims = dnnl::memory::dims;
using PrimitiveDesc = dnnl::convolution_forward::primitive_desc;

/// A convolution in oneDNN's terms, whatever node it came from.
struct Problem {
  Shape src;  ///< The buffer's extents: [N, spatial..., C].
  Shape dst;
  Tensor weights;  ///< [OC, IC / groups, spatial...].
  Dims strides, dilations, pads_begin, pads_end;
  int64_t groups = 1;
};

std::vector<int> ChannelsLastOrder(int rank) {
  std::vector<int> order = {0, rank - 1};
  for (int i = 1; i < rank - 1; ++i) order.push_back(i);
  return order;
}

dnnl::memory::desc ActivationDesc(DType dtype, const Shape& shape) {
  return onednn::PermutedDesc(dtype, shape.dims(), ChannelsLastOrder(shape.rank()));
}

Shape WeightShape(const Problem& problem) {
  if (problem.groups == 1) return problem.weights.shape();
  const Shape& w = problem.weights.shape();
  Shape grouped{problem.groups, w[0] / problem.groups};
  for (int i = 1; i < w.rank(); ++i) grouped.push_back(w[i]);
  return grouped;
}

class ConvLowering {
 public:
  ConvLowering(const LowerContext& context, Problem problem)
      : context_(context), problem_(std::move(problem)) {}

  absl::StatusOr<std::unique_ptr<Step>> Run() {
    const Value& x = context_.input(0);
    dynamic_ = context_.node.attributes.IntOr("dynamic_quant", 0) != 0;
    quantized_ = dynamic_ || x.quant.has_value();
    OCTET_RETURN_IF_ERROR(CheckTypes());
    if (context_.has_input(2)) bias_ = context_.input(2).constant;
    TryWhole();
    if (dynamic_) {
      auto step = std::make_unique<DynamicQuantStep>(problem_.src.elements());
      dynamic_step_ = step.get();
      step_ = std::move(step);
    } else {
      step_ = std::make_unique<PrimitiveStep>();
    }
    if (quantized_ && !context_.target.int8_exact && MaySaturate(problem_.weights)) {
      OCTET_RETURN_IF_ERROR(AddSplit());
    } else {
      OCTET_RETURN_IF_ERROR(
          AddPass({problem_.weights, /*dst=*/context_.output().dtype, /*last=*/true}));
    }
    LayerRecord& layer = context_.layer;
    layer.runs = quantized_ ? "int8" : x.dtype == DType::kBF16 ? "bf16" : "f32";
    layer.macs = MultiplyAdds(context_.graph, context_.node);
    layer.isa = onednn::IsaOf(layer.impl);
    return std::move(step_);
  }

 private:
  struct Pass {
    Tensor weights;
    DType dst;
    bool last = true;  ///< Bias, post-ops and requantization belong to the last pass.
    std::optional<size_t> partial = {};  ///< Scratch offset of the reals that an earlier pass left.
    std::string_view note = "";
  };

  absl::Status CheckTypes() const {
    const Value& x = context_.input(0);
    const Value& w = context_.input(1);
    const Value& y = context_.output();
    if (!quantized_) {
      const bool f32 = x.dtype == DType::kF32 && y.dtype == DType::kF32;
      const bool bf16 =
          x.dtype == DType::kBF16 && (y.dtype == DType::kF32 || y.dtype == DType::kBF16);
      if (w.dtype != x.dtype || w.quant || y.quant || !(f32 || bf16)) {
        return Unimplemented("types {} x {} -> {}", DTypeName(x.dtype), DTypeName(w.dtype),
                             DTypeName(y.dtype));
      }
      return absl::OkStatus();
    }
    if (!w.quant || w.dtype != DType::kI8 || !w.quant->symmetric())
      return Unimplemented("weights are not symmetric INT8");
    if (!y.quant && y.dtype != DType::kF32 && y.dtype != DType::kBF16)
      return Unimplemented("result is {}", DTypeName(y.dtype));
    if (y.quant && (!y.quant->per_tensor() || !IsInt8(y.dtype)))
      return Unimplemented("result is quantized per channel, or not to 8 bits");
    if (dynamic_) {
      return x.dtype == DType::kF32 && !x.quant
                 ? absl::OkStatus()
                 : Unimplemented("activation is {}", DTypeName(x.dtype));
    }
    if (!x.quant->per_tensor() || !IsInt8(x.dtype))
      return Unimplemented("activation is quantized per channel, or not to 8 bits");
    // Without VNNI oneDNN halves the weights of signed sources, which is inexact.
    if (x.dtype != DType::kU8 && !context_.target.int8_exact)
      return Unimplemented("signed source without VNNI");
    return absl::OkStatus();
  }

  absl::Status AddSplit() {
    SplitWeights parts = Split(problem_.weights);
    const size_t partial =
        step_->ReserveScratch(static_cast<size_t>(problem_.dst.elements()) * sizeof(float));
    OCTET_RETURN_IF_ERROR(AddPass({std::move(parts.rest), DType::kF32, false, partial}));
    return AddPass(
        {std::move(parts.safe), context_.output().dtype, true, partial, " x2 (split weights)"});
  }

  // Scales and zero points; then what happens to the sum of products before it is stored.
  absl::Status AddAttributes(const Pass& pass, PrimitiveAttributes& attributes) const {
    if (whole_) return AddWholeAttributes(pass, attributes);
    if (quantized_) {
      const QuantParams& w = *context_.input(1).quant;
      if (dynamic_) {
        attributes.AddScratchQuant(DNNL_ARG_SRC, dynamic_step_->scale(),
                                   dynamic_step_->zero_point());
      } else {
        AddQuant(DNNL_ARG_SRC, *context_.input(0).quant, attributes);
      }
      attributes.AddScales(DNNL_ARG_WEIGHTS,
                           w.per_tensor()        ? 0
                           : problem_.groups > 1 ? 3
                                                 : 1,
                           w.scales);
    }
    if (!pass.last) return absl::OkStatus();
    if (context_.output().quant) AddQuant(DNNL_ARG_DST, *context_.output().quant, attributes);
    if (pass.partial)
      attributes.AddScratchSum(ActivationDesc(DType::kF32, problem_.dst), *pass.partial);
    return attributes.AddPostOps(
        [this](DType dtype, const Shape& shape) { return OperandDesc(dtype, shape); });
  }

  // The primitive's result is in integers up to the factor (x scale * w scale / y scale, one per channel), which turns
  // it into steps of y: one rounding of the product before the last one, as ONNX Runtime does it.
  absl::Status AddWholeAttributes(const Pass& pass, PrimitiveAttributes& attributes) const {
    attributes.AddZeroPoint(DNNL_ARG_SRC, context_.input(0).quant->zero_points);
    if (!pass.last) return absl::OkStatus();
    if (pass.partial)
      attributes.AddScratchSum(ActivationDesc(DType::kF32, problem_.dst), *pass.partial);
    const QuantParams& y = *context_.output().quant;
    std::vector<float> factors;
    for (int64_t c = 0; c < problem_.dst.back(); ++c) factors.push_back(SumScale(c) / y.scales[0]);
    Shape channels;
    while (channels.rank() + 1 < problem_.dst.rank()) channels.push_back(1);
    channels.push_back(problem_.dst.back());
    attributes.AddFactors(ActivationDesc(DType::kF32, channels), factors);
    OCTET_RETURN_IF_ERROR(attributes.AddPostOps(
        [this](DType dtype, const Shape& shape) { return OperandDesc(dtype, shape); },
        y.scales[0]));
    // ONNX adds the zero point to what is rounded already.
    if (y.zero_points[0] != 0) attributes.AddRound();
    attributes.AddZeroPoint(DNNL_ARG_DST, y.zero_points);
    return absl::OkStatus();
  }

  // What the integer sums of a channel count.
  float SumScale(int64_t channel) const {
    const QuantParams& w = *context_.input(1).quant;
    return context_.input(0).quant->scales[0] * w.scales[w.per_tensor() ? 0 : channel];
  }

  // The bias in multiples of SumScale: integers again where the model's file has integers. Empty when it is too large.
  std::optional<Tensor> WholeBias() const {
    constexpr double kLargest = 1e9;
    constexpr double kExact =
        1 << 22;  // Below it the float between the two integers lost less than a half.
    Tensor whole(DType::kF32, Shape{problem_.dst.back()});
    const auto reals = context_.input(2).constant.span<float>();
    for (size_t c = 0; c < reals.size(); ++c) {
      double count = static_cast<double>(reals[c]) / SumScale(static_cast<int64_t>(c));
      if (!(std::abs(count) < kLargest)) return std::nullopt;
      const double nearest = std::nearbyint(count);
      const bool integer = std::abs(count - nearest) <= 1e-3 + std::abs(count) * 0x1p-23;
      if (integer && std::abs(count) < kExact) count = nearest;
      whole.mutable_span<float>()[c] = static_cast<float>(count);
    }
    return whole;
  }

  // Decides for whole numbers up to the last rounding: 8-bit results whose post-ops do not mind the unit.
  void TryWhole() {
    const Node& node = context_.node;
    if (!quantized_ || dynamic_ || !context_.output().quant) return;
    if (!std::ranges::all_of(node.post_ops, ScalesWithItsInput)) return;
    whole_ = true;
    if (!context_.has_input(2)) return;
    if (const std::optional<Tensor> bias = WholeBias()) {
      bias_ = *bias;
    } else {
      whole_ = false;
    }
  }

  static void AddQuant(int arg, const QuantParams& quant, PrimitiveAttributes& attributes) {
    attributes.AddScales(arg, 0, quant.scales);
    attributes.AddZeroPoint(arg, quant.zero_points);
  }

  absl::StatusOr<dnnl::memory::desc> OperandDesc(DType dtype, const Shape& shape) const {
    const int rank = problem_.dst.rank();
    if (shape.rank() > rank)
      return Unimplemented("a post-op's operand has more axes than the result");
    Shape seen;
    for (int i = shape.rank(); i < rank; ++i) seen.push_back(1);
    for (const int64_t extent : shape) seen.push_back(extent);
    return ActivationDesc(dtype, seen);
  }

  // What stays the same whatever layout the weights get.
  struct Descs {
    dnnl::memory::desc src, dst, bias;
    dnnl::primitive_attr attr;
  };

  absl::StatusOr<PrimitiveDesc> Describe(const Descs& descs,
                                         const dnnl::memory::desc& weights) const {
    return onednn::Catch([&] {
      return PrimitiveDesc(onednn::CpuEngine(), dnnl::prop_kind::forward_inference,
                           dnnl::algorithm::convolution_direct, descs.src, weights, descs.bias,
                           descs.dst, problem_.strides, problem_.dilations, problem_.pads_begin,
                           problem_.pads_end, descs.attr);
    });
  }

  // The fastest kernel; where a plan for another batch packed the weights otherwise and the same kernel takes them so,
  // as they are.
  absl::StatusOr<PrimitiveDesc> Choose(const Descs& descs, const Tensor& weights) const {
    OCTET_ASSIGN_OR_RETURN(
        auto best, Describe(descs, onednn::AnyDesc(weights.dtype(), weights.shape().dims())));
    const std::string_view impl = best.impl_info_str();
    if (impl.starts_with("ref"))
      return Unimplemented("oneDNN has only {} for this convolution", impl);
    const std::vector<dnnl::memory::desc> held = context_.weights.LayoutsOf(weights);
    if (std::ranges::find(held, best.weights_desc()) != held.end()) return best;
    for (const dnnl::memory::desc& layout : held) {
      auto same = Describe(descs, layout);
      if (same.ok() && same->impl_info_str() == impl) return same;
    }
    return best;
  }

  absl::Status AddPass(const Pass& pass) {
    PrimitiveAttributes attributes(context_);
    OCTET_RETURN_IF_ERROR(AddAttributes(pass, attributes));
    std::vector<ExecArg> args = attributes.TakeArgs();
    const auto src = ActivationDesc(dynamic_ ? DType::kU8 : context_.input(0).dtype, problem_.src);
    const auto dst = ActivationDesc(pass.dst, problem_.dst);
    const bool has_bias = pass.last && context_.has_input(2);
    const auto bias =
        has_bias ? onednn::VectorDesc(DType::kF32, problem_.dst.back()) : dnnl::memory::desc();
    const Tensor logical = pass.weights.Reshaped(WeightShape(problem_));
    OCTET_ASSIGN_OR_RETURN(const PrimitiveDesc pd,
                           Choose({src, dst, bias, attributes.TakeAttributes()}, logical));
    OCTET_ASSIGN_OR_RETURN(
        auto packed,
        context_.weights.Reordered(logical, onednn::DenseDesc(logical.spec()), pd.weights_desc()));
    args.push_back(dynamic_ ? ExecArg::Scratch(DNNL_ARG_SRC, src, dynamic_step_->source())
                            : ExecArg::Input(DNNL_ARG_SRC, src, 0));
    args.push_back(ExecArg::Constant(DNNL_ARG_WEIGHTS, pd.weights_desc(), std::move(packed)));
    if (has_bias) {
      const auto interned = std::make_shared<Tensor>(context_.weights.Intern(bias_));
      args.push_back(ExecArg::Constant(DNNL_ARG_BIAS, bias,
                                       std::shared_ptr<const void>(interned, interned->data())));
    }
    args.push_back(pass.last ? ExecArg::Output(DNNL_ARG_DST, dst, 0)
                             : ExecArg::Scratch(DNNL_ARG_DST, dst, *pass.partial));
    if (const size_t bytes = pd.scratchpad_desc().get_size(); bytes > 0) {
      args.push_back(ExecArg::Scratch(DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc(),
                                      step_->ReserveScratch(bytes)));
    }
    OCTET_ASSIGN_OR_RETURN(auto primitive,
                           onednn::Catch([&] { return dnnl::convolution_forward(pd); }));
    step_->Add(BoundPrimitive(std::move(primitive), std::move(args)));
    context_.layer.impl = pd.impl_info_str() + std::string(pass.note);
    return absl::OkStatus();
  }

  const LowerContext& context_;
  Problem problem_;
  std::unique_ptr<PrimitiveStep> step_;
  DynamicQuantStep* dynamic_step_ = nullptr;  ///< step_, when the source is quantized at run time.
  Tensor bias_;
  bool quantized_ = false;
  bool whole_ = false;  ///< Sums stay integers until they become steps of the result.
  bool dynamic_ = false;
};

absl::StatusOr<Dims> IntsAttribute(const LowerContext& context, std::string_view name, size_t count,
                                   int64_t fallback) {
  return context.node.attributes.Ints(name, std::vector<int64_t>(count, fallback));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerConv(const LowerContext& context) {
  const Node& node = context.node;
  if (node.op != "Conv" || node.attributes.IntOr("channels_last", 0) == 0)
    return Unimplemented("channels first");
  if (!context.input(1).is_constant()) return Unimplemented("weights are computed");
  Problem problem{*context.input(0).shape,
                  *context.output().shape,
                  context.input(1).constant,
                  {},
                  {},
                  {},
                  {},
                  1};
  const auto spatial = static_cast<size_t>(problem.src.rank() - 2);
  if (problem.src.elements() == 0) return Unimplemented("empty input");
  problem.groups = node.attributes.IntOr("group", 1);
  OCTET_ASSIGN_OR_RETURN(problem.strides, IntsAttribute(context, "strides", spatial, 1));
  OCTET_ASSIGN_OR_RETURN(problem.dilations, IntsAttribute(context, "dilations", spatial, 1));
  for (int64_t& d : problem.dilations) --d;  // oneDNN counts the gaps.
  OCTET_ASSIGN_OR_RETURN(const Dims pads, IntsAttribute(context, "pads", 2 * spatial, 0));
  problem.pads_begin.assign(pads.begin(), pads.begin() + static_cast<int64_t>(spatial));
  problem.pads_end.assign(pads.begin() + static_cast<int64_t>(spatial), pads.end());
  return ConvLowering(context, std::move(problem)).Run();
}

absl::StatusOr<std::unique_ptr<Step>> LowerMatMul(const LowerContext& context) {
  const Value& b = context.input(1);
  if (!b.is_constant() || b.constant.shape().rank() != 2)
    return Unimplemented("right-hand side is computed");
  const Shape& a = *context.input(0).shape;
  if (a.rank() < 2 || a.elements() == 0) return Unimplemented("left-hand side {}", a.ToString());
  const bool trans_b = context.node.attributes.IntOr("trans_b", 0) != 0;
  const Shape& w = b.constant.shape();
  const int64_t n = trans_b ? w[0] : w[1];
  const int64_t k = trans_b ? w[1] : w[0];
  const int64_t rows = a.elements() / k;
  for (const PostOp& op : context.node.post_ops) {
    // Rows are one spatial axis here; an operand that varies over a's leading axes would have to be one, too.
    if (op.operand == kNone) continue;
    const Shape& operand = *context.input(static_cast<size_t>(op.operand)).shape;
    if (operand.elements() != operand.back() && operand.rank() != 2)
      return Unimplemented("a post-op over stacked rows");
  }
  Tensor weights(b.constant.dtype(), Shape{n, k, 1});
  const size_t size = SizeOf(weights.dtype());
  const auto* from = static_cast<const std::byte*>(b.constant.data());
  auto* to = static_cast<std::byte*>(weights.mutable_data());
  for (int64_t i = 0; i < n * k; ++i) {
    const int64_t at = trans_b ? i : i % k * n + i / k;
    std::memcpy(to + static_cast<size_t>(i) * size, from + static_cast<size_t>(at) * size, size);
  }
  return ConvLowering(context,
                      {Shape{1, rows, k}, Shape{1, rows, n}, weights, {1}, {0}, {0}, {0}, 1})
      .Run();
}

}  // namespace octet
