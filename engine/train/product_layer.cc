// Products with constant matrices, and their two gradients, on oneDNN.
#include "engine/onednn/memory_desc.h"
#include "engine/tensor/status.h"
#include "engine/train/layer.h"
#include "engine/train/primitive.h"
#include "engine/train/weighted_problem.h"

namespace octet::train {
namespace {

using dnnl::memory;

// Products of dense matrices: y [M, N] = x [M, K] w [K, N]; `transposed` weights lie as [N, K].
class Product : public Layer {
 public:
  Product(const LayerContext& context, LatentWeights& weights, LatentBias* bias,
          const ProductProblem& problem)
      : x_(*context.inputs[0]),
        y_(context.output),
        weights_(weights),
        bias_(bias),
        transposed_(problem.transposed),
        n_(problem.n),
        k_(problem.k),
        m_(problem.m) {}

  // Throws what oneDNN throws.
  void Prepare() {
    const memory w = At(MatrixDesc(k_, n_, transposed_), weights_.reals());
    const memory::desc x = MatrixDesc(m_, k_, false);
    const memory::desc y = MatrixDesc(m_, n_, false);
    Primitive::Args args = {{DNNL_ARG_SRC, At(x, x_.values())},
                            {DNNL_ARG_WEIGHTS, w},
                            {DNNL_ARG_DST, At(y, y_.values())}};
    memory::desc bias;
    if (bias_ != nullptr) {
      bias = onednn::DenseDesc(DType::kF32, std::array<int64_t, 2>{1, n_});
      args[DNNL_ARG_BIAS] = At(bias, bias_->reals());
    }
    forward_ = {Make(x, w.get_desc(), bias, y), args};
    if (!y_.differentiable()) return;
    // dw [K, N] = x^T [K, M] dy [M, N], in the layout of w.
    const memory::desc x_transposed = MatrixDesc(k_, m_, true);
    by_weights_ = {Make(x_transposed, y, {}, w.get_desc()),
                   {{DNNL_ARG_SRC, At(x_transposed, x_.values())},
                    {DNNL_ARG_WEIGHTS, At(y, y_.gradient())},
                    {DNNL_ARG_DST, At(w.get_desc(), weights_.gradient())}}};
    if (!x_.differentiable()) return;
    // dx [M, K] = dy [M, N] w^T [N, K].
    const memory::desc w_transposed = MatrixDesc(n_, k_, !transposed_);
    by_data_ = {Make(y, w_transposed, {}, x),
                {{DNNL_ARG_SRC, At(y, y_.gradient())},
                 {DNNL_ARG_WEIGHTS, At(w_transposed, weights_.reals())},
                 {DNNL_ARG_DST, At(x, x_.gradient())}}};
  }

  absl::Status Forward() override { return forward_.Run(); }

  absl::Status Backward() override {
    if (weights_.learned()) {
      OCTET_RETURN_IF_ERROR(by_weights_.Run());
      if (bias_ != nullptr) SumRows();
    }
    absl::Status status;
    x_.AddGradient([&](float* to) { status = by_data_.RunTo(DNNL_ARG_DST, to); });
    return status;
  }

 private:
  static dnnl::matmul Make(const memory::desc& a, const memory::desc& b, const memory::desc& bias,
                           const memory::desc& c) {
    return dnnl::matmul(bias.get_ndims() == 0
                            ? dnnl::matmul::primitive_desc(onednn::CpuEngine(), a, b, c)
                            : dnnl::matmul::primitive_desc(onednn::CpuEngine(), a, b, bias, c));
  }

  void SumRows() {
    float* const sums = bias_->gradient();
    std::fill_n(sums, n_, 0.0F);
    for (int64_t row = 0; row < m_; ++row) {
      const float* const dy = y_.gradient() + row * n_;
      for (int64_t column = 0; column < n_; ++column) sums[column] += dy[column];
    }
  }

  Activation& x_;
  Activation& y_;
  LatentWeights& weights_;
  LatentBias* bias_;
  bool transposed_;
  int64_t n_, k_, m_;
  Primitive forward_, by_data_, by_weights_;
};

}  // namespace

dnnl::memory::desc MatrixDesc(int64_t rows, int64_t columns, bool transposed) {
  return {{rows, columns},
          dnnl::memory::data_type::f32,
          transposed ? dnnl::memory::dims{1, rows} : dnnl::memory::dims{columns, 1}};
}

absl::StatusOr<ProductProblem> MakeProductProblem(const LayerContext& context,
                                                  const LatentWeights& weights) {
  const Node& node = context.node;
  const bool transposed = node.is("Gemm") && node.attributes.IntOr("transB", 0) != 0;
  const auto alpha = node.attributes.Float("alpha", 1);
  const auto beta = node.attributes.Float("beta", 1);
  const bool plain = alpha.ok() && *alpha == 1 && beta.ok() && *beta == 1 &&
                     node.attributes.IntOr("transA", 0) == 0;
  if (!plain || weights.shape().rank() != 2 || context.inputs[0]->shape().rank() > 3) {
    return Unimplemented(
        "{}: training knows products of up to three axes with plain matrices, alpha = beta = 1",
        Describe(node));
  }
  const int64_t k = weights.shape()[transposed ? 1 : 0];
  return ProductProblem{context.inputs[0]->size() / k, k, weights.shape()[transposed ? 0 : 1],
                        transposed};
}

MadeLayer MakeProduct(const LayerContext& context, LatentWeights& weights, LatentBias* bias) {
  const Node& node = context.node;
  OCTET_ASSIGN_OR_RETURN(const ProductProblem problem, MakeProductProblem(context, weights));
  auto layer = std::make_unique<Product>(context, weights, bias, problem);
  const auto made = onednn::Catch([&] {
    layer->Prepare();
    return true;
  });
  if (!made.ok()) return Annotate(made.status(), Describe(node));
  return layer;
}

}  // namespace octet::train
