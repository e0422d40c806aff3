// The steps of training: one per node of the QDQ graph, each with a forward and a backward half.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/train/activation.h"
#include "engine/train/parameter.h"

namespace octet::train {

/// A step that reads and writes activations which outlive it. Not thread-safe; each uses the calling thread's OpenMP team.
class Layer {
 public:
  virtual ~Layer() = default;
  /// Computes the output's values from the inputs'.
  virtual absl::Status Forward() = 0;
  /// Adds the loss's gradient by the inputs and by what is learned, from the output's. Requires: Forward() of this batch.
  virtual absl::Status Backward() = 0;
};

/// What a layer is made from.
struct LayerContext {
  const Graph& graph;  ///< With static shapes.
  const Node& node;
  /// One per input of the node; null for constants and absent ones.
  std::span<Activation* const> inputs;
  Activation& output;

  /// The elements of a constant input, or null.
  const Tensor* constant(size_t slot) const;
};

using MadeLayer = absl::StatusOr<std::unique_ptr<Layer>>;

/// y = s (clamp(round(x / s) + z) - z): a QuantizeLinear and its DequantizeLinear, x being what the first reads.
///   dL/dx = dL/dy where round(x / s) + z is in the range, else 0
///   dL/ds = sum dL/dy * (round(x / s) - x / s inside, the range's end - z outside)
/// Source: Esser et al., Learned Step Size Quantization (2020).
std::unique_ptr<Layer> MakeFakeQuantize(Activation& x, Activation& y, ActivationScale& scale);

/// y = conv(x, w) + b, on oneDNN; any strides, pads, dilations and groups of one to three axes. `bias` may be null.
MadeLayer MakeConv(const LayerContext& context, LatentWeights& weights, LatentBias* bias);
/// y = x w + b for Gemm and MatMul, x of rank 1 to 3, on oneDNN.
MadeLayer MakeProduct(const LayerContext& context, LatentWeights& weights, LatentBias* bias);

/// Either of them in bf16, x being integers times `scale` and weights integers times one scale or one per output channel: the
/// forward pass has f32's exactness, the gradient of y is rounded to bf16 in the backward pass. Requires: learned weights, a
/// differentiable output. Errors: as MakeConv and MakeProduct.
MadeLayer MakeBf16Layer(const LayerContext& context, LatentWeights& weights, LatentBias* bias,
                        const ActivationScale& scale);

/// MaxPool, AveragePool, GlobalMaxPool, GlobalAveragePool, ReduceMean over all spatial axes.
MadeLayer MakePool(const LayerContext& context);
/// Relu, LeakyRelu, Clip, Sigmoid, HardSigmoid, HardSwish, Tanh.
MadeLayer MakeUnary(const LayerContext& context);
/// Add, Sub, Mul, with broadcasting and constant operands.
MadeLayer MakeBinary(const LayerContext& context);
/// BatchNormalization, frozen: y = x a[c] + b[c] by its constants.
MadeLayer MakeBatchNorm(const LayerContext& context);
/// Every operator that moves elements to places that the data do not decide: Flatten, Reshape, Transpose, Concat, Slice, Pad, ...
MadeLayer MakeMovement(const LayerContext& context);

/// The factory for the node's operator, for all but weighted nodes and fake quantization. UNIMPLEMENTED naming the node for an
/// operator that training does not know.
MadeLayer MakeLayer(const LayerContext& context);

}  // namespace octet::train
