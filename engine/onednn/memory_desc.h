// Tensor shapes as oneDNN memory descriptors.
#pragma once

#include <cstdint>
#include <span>

#include "oneapi/dnnl/dnnl.hpp"

#include "engine/tensor/tensor.h"

namespace octet::onednn {

/// oneDNN's element type; undef for the types that it does not know.
dnnl::memory::data_type ToDnnl(DType dtype);

/// A dense row-major descriptor. A scalar becomes {1}. Requires: static extents.
dnnl::memory::desc DenseDesc(DType dtype, std::span<const int64_t> dims);
inline dnnl::memory::desc DenseDesc(const TensorSpec& spec) {
  return DenseDesc(spec.dtype, spec.shape.dims());
}

/// A dense row-major buffer seen with its axes permuted: logical axis i is the buffer's axis order[i]. With
/// order {0, 3, 1, 2} a [N,H,W,C] buffer is described as N,C,H,W with channels innermost.
dnnl::memory::desc PermutedDesc(DType dtype, std::span<const int64_t> dims,
                                std::span<const int> order);

/// Extents with layout left to the primitive.
dnnl::memory::desc AnyDesc(DType dtype, std::span<const int64_t> dims);

/// {count} elements in a row.
dnnl::memory::desc VectorDesc(DType dtype, int64_t count);

}  // namespace octet::onednn
