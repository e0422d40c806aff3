// Convolutions, and int8 products with constant matrices (as 1x1 convolutions), on oneDNN.
//
// Exactness of u8 x s8 without VNNI: such kernels add two products in 16 bits, which saturate. Weights that could do
// that are split in two parts of at most 64 in magnitude (255 * 64 * 2 < 2^15) and convolved one after the other; the
// second pass adds the first one's reals before post-ops and requantization.
#include <algorithm>
#include <array>
#include <cstring>
#include <format>
#include <functional>
#include <numeric>

#include "engine/onednn/memory_desc.h"
#include "engine/onednn/runtime.h"
#include "engine/onednn/weight_cache.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/primitive_step.h"
#include "engine/ops/reference_step.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using onednn::BoundPrimitive;
using onednn::ExecArg;
using Dims = dnnl::memory::dims;

constexpr int kSafeWeight = 64;

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

std::optional<dnnl::algorithm> Eltwise(PostOp::Kind kind) {
  using A = dnnl::algorithm;
  switch (kind) {
    case PostOp::Kind::kRelu:
    case PostOp::Kind::kLeakyRelu:
      return A::eltwise_relu;
    case PostOp::Kind::kClip:
      return A::eltwise_clip;
    case PostOp::Kind::kSigmoid:
      return A::eltwise_logistic;
    case PostOp::Kind::kHardSigmoid:
      return A::eltwise_hardsigmoid;
    case PostOp::Kind::kSwish:
      return A::eltwise_swish;
    case PostOp::Kind::kTanh:
      return A::eltwise_tanh;
    case PostOp::Kind::kElu:
      return A::eltwise_elu;
    case PostOp::Kind::kGeluErf:
      return A::eltwise_gelu_erf;
    case PostOp::Kind::kGeluTanh:
      return A::eltwise_gelu_tanh;
    default:
      return std::nullopt;
  }
}

class ConvLowering {
 public:
  ConvLowering(const LowerContext& context, Problem problem)
      : context_(context), problem_(std::move(problem)), step_(std::make_unique<PrimitiveStep>()) {}

  absl::StatusOr<std::unique_ptr<Step>> Run() {
    const Value& x = context_.input(0);
    quantized_ = x.quant.has_value();
    OCTET_RETURN_IF_ERROR(CheckTypes());
    if (quantized_ && !context_.target.int8_exact && MaySaturate()) {
      OCTET_RETURN_IF_ERROR(AddSplit());
    } else {
      OCTET_RETURN_IF_ERROR(
          AddPass({problem_.weights, /*dst=*/context_.output().dtype, /*last=*/true}));
    }
    LayerRecord& layer = context_.layer;
    layer.runs = quantized_ ? "int8" : "f32";
    layer.macs = MultiplyAdds(context_.graph, context_.node);
    layer.isa = context_.target.isa;
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
    if (context_.node.attributes.IntOr("dynamic_quant", 0) != 0)
      return Unimplemented("ranges are taken at run time");
    if (!quantized_) {
      if (x.dtype != DType::kF32 || w.dtype != DType::kF32 || y.dtype != DType::kF32) {
        return Unimplemented("types {} x {} -> {}", DTypeName(x.dtype), DTypeName(w.dtype),
                             DTypeName(y.dtype));
      }
      return absl::OkStatus();
    }
    if (!w.quant || w.dtype != DType::kI8 || !w.quant->symmetric())
      return Unimplemented("weights are not symmetric INT8");
    if (!y.quant && y.dtype != DType::kF32)
      return Unimplemented("result is {}", DTypeName(y.dtype));
    if (!x.quant->per_tensor() || (y.quant && !y.quant->per_tensor()))
      return Unimplemented("activations per channel");
    // Without VNNI oneDNN halves the weights of signed sources, which is inexact.
    if (x.dtype != DType::kU8 && !context_.target.int8_exact)
      return Unimplemented("signed source without VNNI");
    return absl::OkStatus();
  }

  // Adjacent input channels meet in one 16-bit sum.
  bool MaySaturate() const {
    const Shape& w = problem_.weights.shape();
    const auto values = problem_.weights.span<int8_t>();
    const int64_t inner = w.elements(2, w.rank());
    for (int64_t o = 0; o < w[0]; ++o) {
      for (int64_t k = 0; k < inner; ++k) {
        for (int64_t i = 0; i + 1 < w[1]; i += 2) {
          const int a = values[(o * w[1] + i) * inner + k];
          const int b = values[(o * w[1] + i + 1) * inner + k];
          if (std::max(a, 0) + std::max(b, 0) > 2 * kSafeWeight) return true;
          if (std::min(a, 0) + std::min(b, 0) < -2 * kSafeWeight) return true;
        }
      }
    }
    return false;
  }

  absl::Status AddSplit() {
    const auto whole = problem_.weights.span<int8_t>();
    Tensor rest(DType::kI8, problem_.weights.shape());
    Tensor safe(DType::kI8, problem_.weights.shape());
    for (size_t i = 0; i < whole.size(); ++i) {
      const int clipped = std::clamp<int>(whole[i], -kSafeWeight, kSafeWeight);
      safe.mutable_span<int8_t>()[i] = static_cast<int8_t>(clipped);
      rest.mutable_span<int8_t>()[i] = static_cast<int8_t>(whole[i] - clipped);
    }
    const size_t partial =
        step_->ReserveScratch(static_cast<size_t>(problem_.dst.elements()) * sizeof(float));
    OCTET_RETURN_IF_ERROR(AddPass({std::move(rest), DType::kF32, false, partial}));
    return AddPass(
        {std::move(safe), context_.output().dtype, true, partial, " x2 (split weights)"});
  }

  // A constant argument of floats (scales) or integers (zero points).
  template <typename T>
  ExecArg Parameters(int arg, std::span<const T> values) const {
    const auto count = static_cast<int64_t>(values.size());
    auto buffer = AllocateAligned(values.size_bytes());
    std::memcpy(buffer.get(), values.data(), values.size_bytes());
    return ExecArg::Constant(arg, onednn::VectorDesc(DTypeOf<T>, count), std::move(buffer));
  }

  void AddQuantization(const Pass& pass, dnnl::primitive_attr& attr,
                       std::vector<ExecArg>& args) const {
    const QuantParams& x = *context_.input(0).quant;
    const QuantParams& w = *context_.input(1).quant;
    attr.set_scales_mask(DNNL_ARG_SRC, 0);
    args.push_back(Parameters<float>(DNNL_ARG_ATTR_SCALES | DNNL_ARG_SRC, x.scales));
    attr.set_scales_mask(DNNL_ARG_WEIGHTS, w.per_tensor() ? 0 : problem_.groups > 1 ? 3 : 1);
    args.push_back(Parameters<float>(DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS, w.scales));
    if (!x.symmetric()) {
      attr.set_zero_points_mask(DNNL_ARG_SRC, 0);
      args.push_back(Parameters<int32_t>(DNNL_ARG_ATTR_ZERO_POINTS | DNNL_ARG_SRC, x.zero_points));
    }
    const auto& y = context_.output().quant;
    if (!pass.last || !y) return;
    attr.set_scales_mask(DNNL_ARG_DST, 0);
    args.push_back(Parameters<float>(DNNL_ARG_ATTR_SCALES | DNNL_ARG_DST, y->scales));
    if (!y->symmetric()) {
      attr.set_zero_points_mask(DNNL_ARG_DST, 0);
      args.push_back(Parameters<int32_t>(DNNL_ARG_ATTR_ZERO_POINTS | DNNL_ARG_DST, y->zero_points));
    }
  }

  absl::Status AddBinary(const PostOp& op, dnnl::post_ops& post_ops,
                         std::vector<ExecArg>& args) const {
    const Value& operand = context_.input(static_cast<size_t>(op.operand));
    if (operand.quant || operand.dtype != DType::kF32 || operand.shape->elements() == 0) {
      return Unimplemented("a post-op reads {}",
                           operand.quant ? "quantized values" : DTypeName(operand.dtype));
    }
    Shape shape = *operand.shape;
    while (shape.rank() < problem_.dst.rank()) shape = Prepended(shape);
    if (shape.rank() != problem_.dst.rank())
      return Unimplemented("a post-op's operand has more axes than the result");
    const auto desc = ActivationDesc(DType::kF32, shape);
    const auto algorithm =
        op.kind == PostOp::Kind::kAdd ? dnnl::algorithm::binary_add : dnnl::algorithm::binary_mul;
    const int arg = DNNL_ARG_ATTR_MULTIPLE_POST_OP(post_ops.len()) | DNNL_ARG_SRC_1;
    post_ops.append_binary(algorithm, desc);
    args.push_back(ExecArg::Input(arg, desc, static_cast<size_t>(op.operand)));
    return absl::OkStatus();
  }

  static Shape Prepended(const Shape& shape) {
    Shape longer{1};
    for (const int64_t extent : shape) longer.push_back(extent);
    return longer;
  }

  absl::Status AddPostOps(const Pass& pass, dnnl::post_ops& post_ops,
                          std::vector<ExecArg>& args) const {
    if (!pass.last) return absl::OkStatus();
    if (pass.partial) {
      const auto desc = ActivationDesc(DType::kF32, problem_.dst);
      args.push_back(ExecArg::Scratch(
          DNNL_ARG_ATTR_MULTIPLE_POST_OP(post_ops.len()) | DNNL_ARG_SRC_1, desc, *pass.partial));
      post_ops.append_binary(dnnl::algorithm::binary_add, desc);
    }
    for (const PostOp& op : context_.node.post_ops) {
      if (op.kind == PostOp::Kind::kAdd || op.kind == PostOp::Kind::kMul) {
        OCTET_RETURN_IF_ERROR(AddBinary(op, post_ops, args));
        continue;
      }
      if (op.kind == PostOp::Kind::kHardSwish) {
        post_ops.append_eltwise(dnnl::algorithm::eltwise_hardswish, 1.0f / 6, 0.5f);
        continue;
      }
      const auto algorithm = Eltwise(op.kind);
      if (!algorithm) return Unimplemented("post-op {}", PostOpName(op.kind));
      post_ops.append_eltwise(*algorithm, op.kind == PostOp::Kind::kRelu ? 0.0f : op.alpha,
                              op.beta);
    }
    return absl::OkStatus();
  }

  absl::Status AddPass(const Pass& pass) {
    std::vector<ExecArg> args;
    dnnl::primitive_attr attr = onednn::UserScratchpad();
    dnnl::post_ops post_ops;
    if (quantized_) AddQuantization(pass, attr, args);
    OCTET_RETURN_IF_ERROR(AddPostOps(pass, post_ops, args));
    attr.set_post_ops(post_ops);
    const auto src = ActivationDesc(context_.input(0).dtype, problem_.src);
    const auto dst = ActivationDesc(pass.dst, problem_.dst);
    const Shape weight_shape = WeightShape(problem_);
    const auto any_weights = onednn::AnyDesc(pass.weights.dtype(), weight_shape.dims());
    const bool has_bias = pass.last && context_.has_input(2);
    const auto bias =
        has_bias ? onednn::VectorDesc(DType::kF32, problem_.dst.back()) : dnnl::memory::desc();
    OCTET_ASSIGN_OR_RETURN(const auto pd, onednn::Catch([&] {
                             return dnnl::convolution_forward::primitive_desc(
                                 onednn::CpuEngine(), dnnl::prop_kind::forward_inference,
                                 dnnl::algorithm::convolution_direct, src, any_weights, bias, dst,
                                 problem_.strides, problem_.dilations, problem_.pads_begin,
                                 problem_.pads_end, attr);
                           }));
    const std::string impl = pd.impl_info_str();
    if (impl.starts_with("ref"))
      return Unimplemented("oneDNN has only {} for this convolution", impl);
    const Tensor logical = pass.weights.Reshaped(weight_shape);
    OCTET_ASSIGN_OR_RETURN(
        auto packed,
        context_.weights.Reordered(logical, onednn::DenseDesc(logical.spec()), pd.weights_desc()));
    args.push_back(ExecArg::Input(DNNL_ARG_SRC, src, 0));
    args.push_back(ExecArg::Constant(DNNL_ARG_WEIGHTS, pd.weights_desc(), std::move(packed)));
    if (has_bias) {
      const Tensor interned = context_.weights.Intern(context_.input(2).constant);
      args.push_back(ExecArg::Constant(DNNL_ARG_BIAS, bias, std::make_shared<Tensor>(interned)));
      args.back().constant = std::shared_ptr<const void>(args.back().constant, interned.data());
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
    context_.layer.impl = impl + std::string(pass.note);
    return absl::OkStatus();
  }

  const LowerContext& context_;
  Problem problem_;
  std::unique_ptr<PrimitiveStep> step_;
  bool quantized_ = false;
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
