// Convolutions and their two gradients on oneDNN.
#include "engine/onednn/memory_desc.h"
#include "engine/ops/window.h"
#include "engine/tensor/status.h"
#include "engine/train/layer.h"
#include "engine/train/primitive.h"
#include "engine/train/weighted_problem.h"

namespace octet::train {
namespace {

using dnnl::memory;
using dnnl::prop_kind;

class Conv : public Layer {
 public:
  Conv(const LayerContext& context, LatentWeights& weights, LatentBias* bias)
      : x_(*context.inputs[0]), y_(context.output), weights_(weights), bias_(bias) {}

  // Throws what oneDNN throws.
  void Prepare(const ConvProblem& p) {
    const dnnl::engine& engine = onednn::CpuEngine();
    constexpr auto kDirect = dnnl::algorithm::convolution_direct;
    const dnnl::convolution_forward::primitive_desc forward(engine, prop_kind::forward_training,
                                                            kDirect, p.x, p.weights, p.bias, p.y,
                                                            p.strides, p.dilations, p.begin, p.end);
    const memory dense = At(p.dense_weights, weights_.reals());
    const memory packed = Allocated(forward.weights_desc());
    pack_ = Relayout(dense, packed);
    Primitive::Args args = {{DNNL_ARG_SRC, At(p.x, x_.values())},
                            {DNNL_ARG_WEIGHTS, packed},
                            {DNNL_ARG_DST, At(p.y, y_.values())}};
    if (bias_ != nullptr) args[DNNL_ARG_BIAS] = At(p.bias, bias_->reals());
    forward_ = {dnnl::convolution_forward(forward), args};
    if (!y_.differentiable()) return;
    if (weights_.learned()) PrepareWeights(p, forward);
    if (x_.differentiable()) PrepareData(p, forward, dense);
  }

  absl::Status Forward() override {
    OCTET_RETURN_IF_ERROR(pack_.Run());
    return forward_.Run();
  }

  absl::Status Backward() override {
    if (weights_.learned()) {
      OCTET_RETURN_IF_ERROR(by_weights_.Run());
      OCTET_RETURN_IF_ERROR(unpack_.Run());
    }
    if (!x_.differentiable()) return absl::OkStatus();
    OCTET_RETURN_IF_ERROR(pack_transposed_.Run());
    absl::Status status;
    x_.AddGradient([&](float* to) { status = by_data_.RunTo(DNNL_ARG_DIFF_SRC, to); });
    return status;
  }

 private:
  void PrepareWeights(const ConvProblem& p, const dnnl::convolution_forward::primitive_desc& hint) {
    const dnnl::convolution_backward_weights::primitive_desc backward(
        onednn::CpuEngine(), dnnl::algorithm::convolution_direct, p.x, p.weights, p.bias, p.y,
        p.strides, p.dilations, p.begin, p.end, hint);
    const memory packed = Allocated(backward.diff_weights_desc());
    unpack_ = Relayout(packed, At(p.dense_weights, weights_.gradient()));
    Primitive::Args args = {{DNNL_ARG_SRC, At(p.x, x_.values())},
                            {DNNL_ARG_DIFF_DST, At(p.y, y_.gradient())},
                            {DNNL_ARG_DIFF_WEIGHTS, packed}};
    if (bias_ != nullptr) args[DNNL_ARG_DIFF_BIAS] = At(p.bias, bias_->gradient());
    by_weights_ = {dnnl::convolution_backward_weights(backward), args};
  }

  void PrepareData(const ConvProblem& p, const dnnl::convolution_forward::primitive_desc& hint,
                   const memory& dense) {
    const dnnl::convolution_backward_data::primitive_desc backward(
        onednn::CpuEngine(), dnnl::algorithm::convolution_direct, p.x, p.weights, p.y, p.strides,
        p.dilations, p.begin, p.end, hint);
    const memory packed = Allocated(backward.weights_desc());
    pack_transposed_ = Relayout(dense, packed);
    by_data_ = {dnnl::convolution_backward_data(backward),
                {{DNNL_ARG_DIFF_DST, At(p.y, y_.gradient())},
                 {DNNL_ARG_WEIGHTS, packed},
                 {DNNL_ARG_DIFF_SRC, At(p.x, x_.gradient())}}};
  }

  Activation& x_;
  Activation& y_;
  LatentWeights& weights_;
  LatentBias* bias_;
  Relayout pack_, pack_transposed_, unpack_;
  Primitive forward_, by_data_, by_weights_;
};

}  // namespace

absl::StatusOr<ConvProblem> MakeConvProblem(const LayerContext& context,
                                            const LatentWeights& weights, bool has_bias) {
  const Shape& x = context.inputs[0]->shape();
  const Shape& w = weights.shape();
  const auto kernel = w.dims().subspan(2);
  OCTET_ASSIGN_OR_RETURN(const WindowAttributes window,
                         ReadWindow(context.node, x.rank() - 2, kernel));
  ConvProblem problem;
  for (int axis = 0; axis < window.rank(); ++axis) {
    OCTET_ASSIGN_OR_RETURN(const AxisWindow resolved,
                           ResolveAxis(context.node, window, axis, x[axis + 2]));
    problem.strides.push_back(resolved.stride);
    problem.dilations.push_back(resolved.dilation - 1);
    problem.begin.push_back(resolved.pad_begin);
    problem.end.push_back(resolved.pad_end);
  }
  memory::dims dims(w.begin(), w.end());
  const int64_t groups = context.node.attributes.IntOr("group", 1);
  if (groups > 1) {
    dims.insert(dims.begin(), groups);
    dims[1] /= groups;
  }
  problem.x = PhysicalDesc(x);
  problem.y = PhysicalDesc(context.output.shape());
  problem.weights = onednn::AnyDesc(DType::kF32, dims);
  problem.dense_weights = onednn::DenseDesc(DType::kF32, dims);
  if (has_bias) problem.bias = onednn::VectorDesc(DType::kF32, w[0]);
  return problem;
}

MadeLayer MakeConv(const LayerContext& context, LatentWeights& weights, LatentBias* bias) {
  OCTET_ASSIGN_OR_RETURN(const ConvProblem problem,
                         MakeConvProblem(context, weights, bias != nullptr));
  auto layer = std::make_unique<Conv>(context, weights, bias);
  const auto made = onednn::Catch([&] {
    layer->Prepare(problem);
    return true;
  });
  if (!made.ok()) return Annotate(made.status(), Describe(context.node));
  return layer;
}

}  // namespace octet::train
