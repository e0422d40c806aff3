// Convolutions and products in bf16. Both operands of the forward pass are integers there, which 8 bits of mantissa hold exactly:
//   x = sx k, w[c] = sw[c] u   =>   y[c] = sx sw[c] sum k u + b[c]
// and sums are f32, so that nothing is rounded that f32 would not round. Of the backward pass the gradient of y is rounded once:
//   g[c] = bf16(sw[c] dL/dy[c]),   dL/dx = sum g u,   dL/dw[c] = sx / sw[c] sum k g,   dL/db[c] = sum dL/dy[c]
#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>

#include "engine/onednn/memory_desc.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/status.h"
#include "engine/train/layer.h"
#include "engine/train/primitive.h"
#include "engine/train/weighted_problem.h"

namespace octet::train {
namespace {

using dnnl::memory;
using dnnl::prop_kind;
using Type = memory::data_type;

constexpr int64_t kRowGrain = 64;

inline uint16_t RoundedToBf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

OCTET_CPU_CLONES void RoundScaled(const float* x, float factor, uint16_t* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = RoundedToBf16(x[i] * factor);
}

// Elements lie as [rows, channels, inner].
struct Planes {
  int64_t channels;
  int64_t inner;
};

OCTET_CPU_CLONES void RoundPlanes(const float* x, const float* factors, uint16_t* to, int64_t rows,
                                  Planes planes) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t first = row * planes.channels * planes.inner;
    if (planes.inner == 1) {
      for (int64_t c = 0; c < planes.channels; ++c)
        to[first + c] = RoundedToBf16(x[first + c] * factors[c]);
      continue;
    }
    for (int64_t c = 0; c < planes.channels; ++c) {
      for (int64_t i = first + c * planes.inner; i < first + (c + 1) * planes.inner; ++i)
        to[i] = RoundedToBf16(x[i] * factors[c]);
    }
  }
}

// y = y factor[c] + addend[c].
OCTET_CPU_CLONES void ScalePlanes(float* y, const float* factors, const float* addends,
                                  int64_t rows, Planes planes) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t first = row * planes.channels * planes.inner;
    if (planes.inner == 1) {
      for (int64_t c = 0; c < planes.channels; ++c)
        y[first + c] = y[first + c] * factors[c] + addends[c];
      continue;
    }
    for (int64_t c = 0; c < planes.channels; ++c) {
      for (int64_t i = first + c * planes.inner; i < first + (c + 1) * planes.inner; ++i)
        y[i] = y[i] * factors[c] + addends[c];
    }
  }
}

OCTET_CPU_CLONES void SumPlanes(const float* x, float* sums, int64_t rows, Planes planes) {
  std::fill_n(sums, planes.channels, 0.0F);
  for (int64_t row = 0; row < rows; ++row) {
    const float* const from = x + row * planes.channels * planes.inner;
    for (int64_t c = 0; c < planes.channels; ++c) {
      for (int64_t i = 0; i < planes.inner; ++i) sums[c] += from[c * planes.inner + i];
    }
  }
}

memory::desc WithType(const memory::desc& like, Type type) {
  return {like.get_dims(), type, like.get_strides()};
}

class Bf16Layer : public Layer {
 public:
  Bf16Layer(const LayerContext& context, LatentWeights& weights, LatentBias* bias,
            const ActivationScale& scale)
      : x_(*context.inputs[0]),
        y_(context.output),
        weights_(weights),
        bias_(bias),
        scale_(scale),
        steps_(DType::kF32, weights.shape()),
        scaled_gradient_(DType::kF32, weights.shape()) {}

  // Throws what oneDNN throws.
  void PrepareConv(const ConvProblem& p) {
    SetPlanes(weights_.shape()[0], PhysicalStrides(y_.shape())[1]);
    const dnnl::engine& engine = onednn::CpuEngine();
    constexpr auto kDirect = dnnl::algorithm::convolution_direct;
    Allocate(p.x, p.y);
    const memory::desc weights(p.weights.get_dims(), Type::bf16, memory::format_tag::any);
    const dnnl::convolution_forward::primitive_desc forward(engine, prop_kind::forward_training,
                                                            kDirect, x16_.get_desc(), weights, p.y,
                                                            p.strides, p.dilations, p.begin, p.end);
    const memory dense = At(p.dense_weights, steps());
    const memory packed = Allocated(forward.weights_desc());
    packs_.emplace_back(dense, packed);
    forward_ = {
        dnnl::convolution_forward(forward),
        {{DNNL_ARG_SRC, x16_}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, At(p.y, y_.values())}}};
    const dnnl::convolution_backward_weights::primitive_desc by_weights(
        engine, kDirect, x16_.get_desc(),
        memory::desc(p.weights.get_dims(), Type::f32, memory::format_tag::any), dy16_.get_desc(),
        p.strides, p.dilations, p.begin, p.end, forward);
    const memory gradient = Allocated(by_weights.diff_weights_desc());
    unpack_.emplace(gradient, At(p.dense_weights, scaled_gradient()));
    by_weights_ = {
        dnnl::convolution_backward_weights(by_weights),
        {{DNNL_ARG_SRC, x16_}, {DNNL_ARG_DIFF_DST, dy16_}, {DNNL_ARG_DIFF_WEIGHTS, gradient}}};
    if (!x_.differentiable()) return;
    const dnnl::convolution_backward_data::primitive_desc by_data(
        engine, kDirect, p.x, weights, dy16_.get_desc(), p.strides, p.dilations, p.begin, p.end,
        forward);
    const memory transposed = Allocated(by_data.weights_desc());
    packs_.emplace_back(dense, transposed);
    SetByData(dnnl::convolution_backward_data(by_data), DNNL_ARG_DIFF_SRC,
              {{DNNL_ARG_DIFF_DST, dy16_},
               {DNNL_ARG_WEIGHTS, transposed},
               {DNNL_ARG_DIFF_SRC, At(p.x, x_.gradient())}});
  }

  // Throws what oneDNN throws.
  void PrepareProduct(const ProductProblem& p) {
    SetPlanes(p.n, 1);
    const memory::desc x = MatrixDesc(p.m, p.k, false);
    const memory::desc y = MatrixDesc(p.m, p.n, false);
    const memory::desc w = MatrixDesc(p.k, p.n, p.transposed);
    Allocate(x, y);
    const memory w16 = Allocated(WithType(w, Type::bf16));
    packs_.emplace_back(At(w, steps()), w16);
    forward_ = {
        Make(x16_.get_desc(), w16.get_desc(), y),
        {{DNNL_ARG_SRC, x16_}, {DNNL_ARG_WEIGHTS, w16}, {DNNL_ARG_DST, At(y, y_.values())}}};
    const memory::desc x_transposed = WithType(MatrixDesc(p.k, p.m, true), Type::bf16);
    by_weights_ = {
        Make(x_transposed, dy16_.get_desc(), w),
        {{DNNL_ARG_SRC, memory(x_transposed, onednn::CpuEngine(), x16_.get_data_handle())},
         {DNNL_ARG_WEIGHTS, dy16_},
         {DNNL_ARG_DST, At(w, scaled_gradient())}}};
    if (!x_.differentiable()) return;
    const memory::desc w_transposed = WithType(MatrixDesc(p.n, p.k, !p.transposed), Type::bf16);
    SetByData(Make(dy16_.get_desc(), w_transposed, x), DNNL_ARG_DST,
              {{DNNL_ARG_SRC, dy16_},
               {DNNL_ARG_WEIGHTS, memory(w_transposed, onednn::CpuEngine(), w16.get_data_handle())},
               {DNNL_ARG_DST, At(x, x_.gradient())}});
  }

  absl::Status Forward() override {
    SetFactors();
    const float* const x = x_.values();
    auto* const x16 = static_cast<uint16_t*>(x16_.get_data_handle());
    const float inverse = 1 / scale_.scale();
    ParallelFor(x_.size(), kRowGrain * 512, [&](int64_t begin, int64_t end) {
      RoundScaled(x + begin, inverse, x16 + begin, end - begin);
    });
    for (Relayout& pack : packs_) OCTET_RETURN_IF_ERROR(pack.Run());
    OCTET_RETURN_IF_ERROR(forward_.Run());
    ForRows([&](int64_t first, int64_t rows) {
      ScalePlanes(y_.values() + first * planes_.channels * planes_.inner, factors_.data(),
                  addends_.data(), rows, planes_);
    });
    return absl::OkStatus();
  }

  absl::Status Backward() override {
    const float* const dy = y_.gradient();
    auto* const dy16 = static_cast<uint16_t*>(dy16_.get_data_handle());
    ForRows([&](int64_t first, int64_t rows) {
      const int64_t at = first * planes_.channels * planes_.inner;
      RoundPlanes(dy + at, weight_scales_.data(), dy16 + at, rows, planes_);
    });
    OCTET_RETURN_IF_ERROR(by_weights_.Run());
    if (unpack_) OCTET_RETURN_IF_ERROR(unpack_->Run());
    const std::vector<float>& units = weights_.parameter().units;
    for (size_t i = 0; i < units.size(); ++i)
      weights_.gradient()[i] = scaled_gradient()[i] * scale_.scale() / units[i];
    if (bias_ != nullptr) SumPlanes(dy, bias_->gradient(), Rows(), planes_);
    absl::Status status;
    x_.AddGradient([&](float* to) { status = by_data_.RunTo(by_data_result_, to); });
    return status;
  }

 private:
  static dnnl::matmul Make(const memory::desc& a, const memory::desc& b, const memory::desc& c) {
    return dnnl::matmul(dnnl::matmul::primitive_desc(onednn::CpuEngine(), a, b, c));
  }

  void SetByData(dnnl::primitive primitive, int result, Primitive::Args args) {
    by_data_ = {std::move(primitive), std::move(args)};
    by_data_result_ = result;
  }

  void SetPlanes(int64_t channels, int64_t inner) {
    planes_ = {channels, inner};
    const std::vector<float>& scales = weights_.params().scales;
    for (size_t c = 0; c < static_cast<size_t>(channels); ++c)
      weight_scales_.push_back(scales[c % scales.size()]);
    factors_.resize(weight_scales_.size());
    addends_.resize(weight_scales_.size());
  }

  void Allocate(const memory::desc& x, const memory::desc& y) {
    x16_ = Allocated(WithType(x, Type::bf16));
    dy16_ = Allocated(WithType(y, Type::bf16));
  }

  void SetFactors() {
    for (size_t c = 0; c < factors_.size(); ++c) {
      factors_[c] = weight_scales_[c] * scale_.scale();
      addends_[c] = bias_ != nullptr ? bias_->reals()[c] : 0;
    }
    const std::vector<float>& units = weights_.parameter().units;
    for (size_t i = 0; i < units.size(); ++i)
      steps()[i] = std::nearbyint(weights_.reals()[i] / units[i]);
  }

  int64_t Rows() const { return y_.size() / (planes_.channels * planes_.inner); }
  template <typename Fn>
  void ForRows(const Fn& fn) const {
    ParallelFor(Rows(), kRowGrain, [&](int64_t begin, int64_t end) { fn(begin, end - begin); });
  }

  float* steps() { return steps_.mutable_span<float>().data(); }
  float* scaled_gradient() { return scaled_gradient_.mutable_span<float>().data(); }

  Activation& x_;
  Activation& y_;
  LatentWeights& weights_;
  LatentBias* bias_;
  const ActivationScale& scale_;
  Planes planes_{1, 1};
  std::vector<float> weight_scales_;  ///< sw, per channel.
  std::vector<float> factors_;        ///< sx sw.
  std::vector<float> addends_;
  Tensor steps_;            ///< u.
  Tensor scaled_gradient_;  ///< sum k g.
  memory x16_, dy16_;       ///< k and g.
  std::vector<Relayout> packs_;
  std::optional<Relayout> unpack_;
  Primitive forward_, by_data_, by_weights_;
  int by_data_result_ = 0;
};

template <typename Prepare>
MadeLayer Made(const LayerContext& context, LatentWeights& weights, LatentBias* bias,
               const ActivationScale& scale, const Prepare& prepare) {
  auto layer = std::make_unique<Bf16Layer>(context, weights, bias, scale);
  const auto made = onednn::Catch([&] {
    prepare(*layer);
    return true;
  });
  if (!made.ok()) return Annotate(made.status(), Describe(context.node));
  return layer;
}

}  // namespace

MadeLayer MakeBf16Layer(const LayerContext& context, LatentWeights& weights, LatentBias* bias,
                        const ActivationScale& scale) {
  if (context.node.is("Conv")) {
    OCTET_ASSIGN_OR_RETURN(const ConvProblem problem, MakeConvProblem(context, weights, false));
    return Made(context, weights, bias, scale,
                [&](Bf16Layer& layer) { layer.PrepareConv(problem); });
  }
  OCTET_ASSIGN_OR_RETURN(const ProductProblem problem, MakeProductProblem(context, weights));
  return Made(context, weights, bias, scale,
              [&](Bf16Layer& layer) { layer.PrepareProduct(problem); });
}

}  // namespace octet::train
