// What a convolution or a product with constant weights is to oneDNN, in whatever type it is computed.
#pragma once

#include "absl/status/statusor.h"

#include "engine/train/layer.h"

namespace octet::train {

/// A convolution's descriptors; its activations lie where the network has them, its weights as oneDNN likes. All F32.
struct ConvProblem {
  dnnl::memory::desc x, y, weights, bias;
  dnnl::memory::desc
      dense_weights;  ///< As the parameters lie: row-major, the groups an axis of their own.
  dnnl::memory::dims strides, dilations, begin, end;
};
/// Errors: as ReadWindow.
absl::StatusOr<ConvProblem> MakeConvProblem(const LayerContext& context,
                                            const LatentWeights& weights, bool has_bias);

/// y [m, n] = x [m, k] w [k, n]; `transposed` weights lie as [n, k].
struct ProductProblem {
  int64_t m, k, n;
  bool transposed;
};
/// UNIMPLEMENTED naming the node for factors, a transposed x, and more axes than training knows.
absl::StatusOr<ProductProblem> MakeProductProblem(const LayerContext& context,
                                                  const LatentWeights& weights);

/// A dense F32 matrix; a transposed one lies column by column.
dnnl::memory::desc MatrixDesc(int64_t rows, int64_t columns, bool transposed);

}  // namespace octet::train
