// Convolutions on oneDNN, transposed ones too.
#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/onednn/isa.h"
#include "engine/onednn/memory_desc.h"
#include "engine/onednn/runtime.h"
#include "engine/onednn/weight_cache.h"
#include "engine/ops/depthwise_lowering.h"
#include "engine/ops/dynamic_quant_step.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/never_negative.h"
#include "engine/ops/primitive_attributes.h"
#include "engine/ops/reference_step.h"
#include "engine/ops/saturation.h"
#include "engine/ops/unsigned_source.h"
#include "engine/ops/weight_layout.h"
#include "engine/ops/whole_sums.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using onednn::ExecArg;
using Dims = dnnl::memory::dims;

/// A convolution in oneDNN's terms.
struct Problem {
  Shape src;  ///< The buffer's extents: [N, spatial..., C].
  Shape dst;
  Shape weights;  ///< [OC, IC / groups, spatial...].
  Dims strides, dilations, pads_begin, pads_end;
  int64_t groups = 1;
  bool transposed = false;
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
  const Shape& w = problem.weights;
  if (problem.groups == 1) return w;
  Shape grouped{problem.groups, w[0] / problem.groups};
  for (int i = 1; i < w.rank(); ++i) grouped.push_back(w[i]);
  return grouped;
}

// oneDNN 3.7's brgemm kernels compute wrong sums where a group has one input channel: of signed sources with other pads
// behind than ahead, and of one column with a stride.
bool IsMiscomputedByBrgemm(const Problem& problem) { return problem.weights[1] == 1; }

template <typename Primitive>
constexpr dnnl::algorithm kDirect = dnnl::algorithm::convolution_direct;
template <>
constexpr dnnl::algorithm kDirect<dnnl::deconvolution_forward> =
    dnnl::algorithm::deconvolution_direct;

class ConvLowering {
 public:
  ConvLowering(const LowerContext& context, Problem problem)
      : context_(context), problem_(std::move(problem)) {}

  absl::StatusOr<std::unique_ptr<Step>> Run() {
    const Value& x = context_.input(0);
    dynamic_ = context_.node.attributes.IntOr("dynamic_quant", 0) != 0;
    quantized_ = dynamic_ || x.quant.has_value();
    OCTET_RETURN_IF_ERROR(CheckTypes());
    // A transposed one rounds its reals: no other runtime has an int8 form of it to agree with.
    if (quantized_ && !dynamic_ && !problem_.transposed)
      whole_ = WholeSums::Of(context_, problem_.dst.back());
    if (const auto depthwise = Depthwise(); whole_ && depthwise) {
      auto step = LowerDepthwiseInt8(context_, *whole_, *depthwise);
      if (step.ok() || step.status().code() != absl::StatusCode::kUnimplemented) return step;
    } else if (depthwise && !quantized_ && !problem_.transposed) {
      auto step = LowerDepthwiseBf16(context_, *depthwise);
      if (step.ok() || step.status().code() != absl::StatusCode::kUnimplemented) return step;
    }
    if (context_.has_input(2) && context_.input(2).is_constant())
      bias_ = whole_ ? whole_->bias() : context_.input(2).constant;
    if (dynamic_) {
      auto step = std::make_unique<DynamicQuantStep>(
          problem_.src.elements(), IsNeverNegative(context_.graph, context_.node.inputs[0]));
      dynamic_step_ = step.get();
      step_ = std::move(step);
    } else {
      step_ = std::make_unique<PrimitiveStep>();
    }
    if (x.dtype == DType::kI8 && !context_.target.int8_exact) {
      OCTET_ASSIGN_OR_RETURN(unsigned_x_, AddUnsignedSource(context_, *step_));
    }
    if (quantized_ && !context_.target.int8_exact && SumsMaySaturate()) {
      OCTET_RETURN_IF_ERROR(AddSplit());
    } else {
      OCTET_RETURN_IF_ERROR(AddPass({weights(), /*dst=*/context_.output().dtype, /*last=*/true}));
    }
    LayerRecord& layer = context_.layer;
    layer.runs = quantized_ ? "int8" : x.dtype == DType::kBF16 ? "bf16" : "f32";
    layer.macs = MultiplyAdds(context_.graph, context_.node);
    layer.isa = onednn::IsaOf(layer.impl);
    return std::move(step_);
  }

 private:
  struct Pass {
    Tensor weights;  ///< None where they are computed.
    DType dst;
    bool last = true;  ///< Bias, post-ops and requantization belong to the last pass.
    std::optional<size_t> partial = {};  ///< Scratch offset of the reals that an earlier pass left.
    std::string_view note = "";
  };

  /// None where they are computed.
  const Tensor& weights() const { return context_.input(1).constant; }

  absl::Status CheckTypes() const {
    const Value& x = context_.input(0);
    const Value& w = context_.input(1);
    const Value& y = context_.output();
    if (context_.has_input(2) && context_.input(2).dtype != DType::kF32)
      return Unimplemented("bias is {}", DTypeName(context_.input(2).dtype));
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
    if (!w.is_constant() || (context_.has_input(2) && !context_.input(2).is_constant()))
      return Unimplemented("8-bit weights, or the bias beside them, are computed");
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
    return absl::OkStatus();
  }

  /// The problem where it is two-dimensional, square, not dilated, and each channel a group.
  std::optional<DepthwiseShape> Depthwise() const {
    const Shape& w = problem_.weights;
    if (w.rank() != 4 || w[1] != 1 || w[0] != problem_.groups || w[2] != w[3]) return std::nullopt;
    if (problem_.strides[0] != problem_.strides[1]) return std::nullopt;
    if (problem_.dilations != Dims{0, 0}) return std::nullopt;
    return DepthwiseShape{problem_.src[1],     problem_.src[2],        problem_.groups,
                          problem_.dst[1],     problem_.dst[2],        w[2],
                          problem_.strides[0], problem_.pads_begin[0], problem_.pads_begin[1]};
  }

  // Depthwise kernels add no neighbours; what has an odd number of channels per group may be unrolled into patches.
  bool SumsMaySaturate() const {
    const Shape& w = problem_.weights;
    const bool depthwise = problem_.groups == w[0] && w[1] == 1 && w.rank() <= 4;
    return MaySaturate(weights(), 1) || (w[1] % 2 != 0 && !depthwise && TapsMaySaturate(weights()));
  }

  absl::Status AddSplit() {
    SplitWeights parts = Split(weights());
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
        dynamic_step_->Describe(DNNL_ARG_SRC, attributes);
      } else {
        attributes.AddScales(DNNL_ARG_SRC, 0, context_.input(0).quant->scales);
        AddSourceZeroPoint(attributes);
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

  // Sums up to the last pass, which turns them into steps of the result.
  absl::Status AddWholeAttributes(const Pass& pass, PrimitiveAttributes& attributes) const {
    AddSourceZeroPoint(attributes);
    if (!pass.last) return absl::OkStatus();
    if (pass.partial)
      attributes.AddScratchSum(ActivationDesc(DType::kF32, problem_.dst), *pass.partial);
    return whole_->AddResult(
        attributes, ActivationDesc(DType::kF32, ChannelsShape()),
        [this](DType dtype, const Shape& shape) { return OperandDesc(dtype, shape); });
  }

  void AddSourceZeroPoint(PrimitiveAttributes& attributes) const {
    const int32_t zero_point =
        context_.input(0).quant->zero_points[0] + (unsigned_x_ ? kUnsignedZero : 0);
    attributes.AddZeroPoint(DNNL_ARG_SRC, {&zero_point, 1});
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

  absl::Status AddPass(const Pass& pass) {
    return problem_.transposed ? AddPassOf<dnnl::deconvolution_forward>(pass)
                               : AddPassOf<dnnl::convolution_forward>(pass);
  }

  template <typename Primitive>
  absl::Status AddPassOf(const Pass& pass) {
    using PrimitiveDesc = Primitive::primitive_desc;
    PrimitiveAttributes attributes(context_);
    OCTET_RETURN_IF_ERROR(AddAttributes(pass, attributes));
    std::vector<ExecArg> args = attributes.TakeArgs();
    const auto src = ActivationDesc(dynamic_ || unsigned_x_ ? DType::kU8 : context_.input(0).dtype,
                                    problem_.src);
    const auto dst = ActivationDesc(pass.dst, problem_.dst);
    const bool has_bias = pass.last && context_.has_input(2);
    const auto bias =
        has_bias ? onednn::VectorDesc(DType::kF32, problem_.dst.back()) : dnnl::memory::desc();
    const dnnl::primitive_attr attr = attributes.TakeAttributes();
    const auto describe = [&](const dnnl::memory::desc& layout) {
      return onednn::Catch([&] {
        PrimitiveDesc pd(onednn::CpuEngine(), dnnl::prop_kind::forward_inference,
                         kDirect<Primitive>, src, layout, bias, dst, problem_.strides,
                         problem_.dilations, problem_.pads_begin, problem_.pads_end, attr);
        while (IsMiscomputedByBrgemm(problem_) &&
               std::string_view(pd.impl_info_str()).starts_with("brg")) {
          if (!pd.next_impl()) throw dnnl::error(dnnl_unimplemented, "no kernel but brgemm's");
        }
        return pd;
      });
    };
    OCTET_ASSIGN_OR_RETURN(const PrimitiveDesc pd, context_.input(1).is_constant()
                                                       ? PackConstant(pass, describe, args)
                                                       : PackWhenRun(describe, args));
    if (pass.last && IsFinishedOneByOne(pd.impl_info_str(), pass.dst)) {
      absl::Status split = AddInTwoSteps<Primitive>(pass);
      if (split.code() != absl::StatusCode::kUnimplemented) return split;
    }
    args.push_back(dynamic_      ? ExecArg::Scratch(DNNL_ARG_SRC, src, dynamic_step_->source())
                   : unsigned_x_ ? ExecArg::Scratch(DNNL_ARG_SRC, src, *unsigned_x_)
                                 : ExecArg::Input(DNNL_ARG_SRC, src, 0));
    if (has_bias && !context_.input(2).is_constant()) {
      args.push_back(ExecArg::Input(DNNL_ARG_BIAS, bias, 2));
    } else if (has_bias) {
      const auto interned = std::make_shared<Tensor>(context_.weights.Intern(bias_));
      args.push_back(ExecArg::Constant(DNNL_ARG_BIAS, bias,
                                       std::shared_ptr<const void>(interned, interned->data())));
    }
    args.push_back(pass.last ? ExecArg::Output(DNNL_ARG_DST, dst, 0)
                             : ExecArg::Scratch(DNNL_ARG_DST, dst, *pass.partial));
    context_.layer.impl = pd.impl_info_str() + std::string(pass.note);
    return step_->Add(pd, std::move(args));
  }

  // oneDNN's transposed convolutions by way of another one apply post-ops, and round, without vectors: to relu the result
  // took 40 times as long as a depthwise one itself.
  bool IsFinishedOneByOne(std::string_view impl, DType dst) const {
    return !quantized_ && impl.starts_with("conv:") &&
           (dst != DType::kF32 || !context_.node.post_ops.empty());
  }

  // F32 sums in scratch, then bias, post-ops and rounding. UNIMPLEMENTED, and nothing added, where oneDNN has no kernel for
  // the latter.
  template <typename Primitive>
  absl::Status AddInTwoSteps(const Pass& pass) {
    PrimitiveAttributes attributes(context_);
    OCTET_RETURN_IF_ERROR(attributes.AddPostOps(
        [this](DType dtype, const Shape& shape) { return OperandDesc(dtype, shape); }));
    std::vector<ExecArg> args = attributes.TakeArgs();
    const dnnl::primitive_attr attr = attributes.TakeAttributes();
    const auto from = ActivationDesc(DType::kF32, problem_.dst);
    const auto bias = ActivationDesc(DType::kF32, ChannelsShape());
    const auto dst = ActivationDesc(pass.dst, problem_.dst);
    OCTET_ASSIGN_OR_RETURN(const auto pd, Fast(onednn::Catch([&] {
                             return dnnl::binary::primitive_desc(onednn::CpuEngine(),
                                                                 dnnl::algorithm::binary_add, from,
                                                                 bias, dst, attr);
                           })));
    const size_t sums =
        step_->ReserveScratch(static_cast<size_t>(problem_.dst.elements()) * sizeof(float));
    OCTET_RETURN_IF_ERROR(
        AddPassOf<Primitive>({pass.weights, DType::kF32, /*last=*/false, sums, " + binary"}));
    args.push_back(ExecArg::Scratch(DNNL_ARG_SRC_0, from, sums));
    if (context_.has_input(2) && !context_.input(2).is_constant()) {
      args.push_back(ExecArg::Input(DNNL_ARG_SRC_1, bias, 2));
    } else {
      Tensor addend = bias_;
      if (!context_.has_input(2)) {
        addend = Tensor(DType::kF32, Shape{problem_.dst.back()});
        std::ranges::fill(addend.mutable_span<float>(), 0.0F);
      }
      const auto interned = std::make_shared<Tensor>(context_.weights.Intern(addend));
      args.push_back(ExecArg::Constant(DNNL_ARG_SRC_1, bias,
                                       std::shared_ptr<const void>(interned, interned->data())));
    }
    args.push_back(ExecArg::Output(DNNL_ARG_DST, dst, 0));
    return step_->Add(pd, std::move(args));
  }

  // [1, ..., 1, C].
  Shape ChannelsShape() const {
    Shape channels;
    while (channels.rank() + 1 < problem_.dst.rank()) channels.push_back(1);
    channels.push_back(problem_.dst.back());
    return channels;
  }

  // The weights in the layout that the primitive wants, one copy for all plans.
  template <typename DescribeFn>
  auto PackConstant(const Pass& pass, const DescribeFn& describe, std::vector<ExecArg>& args)
      -> decltype(describe(dnnl::memory::desc())) {
    const Tensor logical = pass.weights.Reshaped(WeightShape(problem_));
    OCTET_ASSIGN_OR_RETURN(
        auto pd, DescribeSharing(context_.weights, logical, logical.shape().dims(), describe));
    OCTET_ASSIGN_OR_RETURN(
        auto packed,
        context_.weights.Reordered(logical, onednn::DenseDesc(logical.spec()), pd.weights_desc()));
    args.push_back(ExecArg::Constant(DNNL_ARG_WEIGHTS, pd.weights_desc(), std::move(packed)));
    return pd;
  }

  // Weights that another node computes: reordered in each run.
  template <typename DescribeFn>
  auto PackWhenRun(const DescribeFn& describe, std::vector<ExecArg>& args)
      -> decltype(describe(dnnl::memory::desc())) {
    const TensorSpec given{context_.input(1).dtype, WeightShape(problem_)};
    OCTET_ASSIGN_OR_RETURN(auto pd,
                           Fast(describe(onednn::AnyDesc(given.dtype, given.shape.dims()))));
    const dnnl::memory::desc from = onednn::DenseDesc(given);
    const dnnl::memory::desc to = pd.weights_desc();
    if (from == to) {
      args.push_back(ExecArg::Input(DNNL_ARG_WEIGHTS, to, 1));
      return pd;
    }
    OCTET_ASSIGN_OR_RETURN(const auto reorder, onednn::Catch([&] {
                             return dnnl::reorder::primitive_desc(onednn::CpuEngine(), from,
                                                                  onednn::CpuEngine(), to,
                                                                  onednn::UserScratchpad());
                           }));
    const size_t packed = step_->ReserveScratch(to.get_size());
    OCTET_RETURN_IF_ERROR(step_->Add(reorder, {ExecArg::Input(DNNL_ARG_FROM, from, 1),
                                               ExecArg::Scratch(DNNL_ARG_TO, to, packed)}));
    args.push_back(ExecArg::Scratch(DNNL_ARG_WEIGHTS, to, packed));
    return pd;
  }

  const LowerContext& context_;
  Problem problem_;
  std::unique_ptr<PrimitiveStep> step_;
  DynamicQuantStep* dynamic_step_ = nullptr;  ///< step_, when the source is quantized at run time.
  std::optional<size_t> unsigned_x_;  ///< Scratch offset of x + 128, where that is computed with.
  std::optional<WholeSums>
      whole_;  ///< When sums stay integers until they become steps of the result.
  Tensor bias_;
  bool quantized_ = false;
  bool dynamic_ = false;
};

absl::StatusOr<Dims> IntsAttribute(const LowerContext& context, std::string_view name, size_t count,
                                   int64_t fallback) {
  return context.node.attributes.Ints(name, std::vector<int64_t>(count, fallback));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerConv(const LowerContext& context) {
  const Node& node = context.node;
  if (node.attributes.IntOr("channels_last", 0) == 0) return Unimplemented("channels first");
  if (context.has_input(2) && context.input(2).dtype != DType::kF32)
    return Unimplemented("bias is {}", DTypeName(context.input(2).dtype));
  Problem problem{
      *context.input(0).shape, *context.output().shape, *context.input(1).shape, {}, {}, {}, {}};
  const auto spatial = static_cast<size_t>(problem.src.rank() - 2);
  if (problem.src.elements() == 0) return Unimplemented("empty input");
  problem.groups = node.attributes.IntOr("group", 1);
  problem.transposed = node.op == "ConvTranspose";
  OCTET_ASSIGN_OR_RETURN(problem.strides, IntsAttribute(context, "strides", spatial, 1));
  OCTET_ASSIGN_OR_RETURN(problem.dilations, IntsAttribute(context, "dilations", spatial, 1));
  for (int64_t& d : problem.dilations) --d;  // oneDNN counts the gaps.
  OCTET_ASSIGN_OR_RETURN(const Dims pads, IntsAttribute(context, "pads", 2 * spatial, 0));
  problem.pads_begin.assign(pads.begin(), pads.begin() + static_cast<int64_t>(spatial));
  problem.pads_end.assign(pads.begin() + static_cast<int64_t>(spatial), pads.end());
  OCTET_ASSIGN_OR_RETURN(const Dims more, IntsAttribute(context, "output_padding", spatial, 0));
  for (size_t i = 0; i < spatial; ++i) {
    problem.pads_end[i] -= more[i];
    if (problem.pads_end[i] <= -problem.strides[i])
      return Unimplemented("output_padding is {}, the stride {}", more[i], problem.strides[i]);
  }
  return ConvLowering(context, std::move(problem)).Run();
}

}  // namespace octet
