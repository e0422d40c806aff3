#include "engine/train/activation.h"

#include <algorithm>

namespace octet::train {
namespace {

// Calls visit(row-major position, physical position) for every element.
template <typename Fn>
void ForEachPosition(const Shape& shape, const Fn& visit) {
  if (shape.rank() < 4) {
    for (int64_t i = 0; i < shape.elements(); ++i) visit(i, i);
    return;
  }
  const int64_t channels = shape[1];
  const int64_t plane = shape.elements(2, shape.rank());
  for (int64_t n = 0; n < shape[0]; ++n) {
    const int64_t first = n * channels * plane;
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t s = 0; s < plane; ++s) visit(first + c * plane + s, first + s * channels + c);
    }
  }
}

}  // namespace

std::vector<int64_t> PhysicalStrides(const Shape& shape) {
  const auto row_major = shape.strides();
  std::vector<int64_t> strides(row_major.begin(), row_major.end());
  if (shape.rank() < 4) return strides;
  int64_t stride = shape[1];
  for (int axis = shape.rank() - 1; axis > 1; --axis) {
    strides[static_cast<size_t>(axis)] = stride;
    stride *= shape[axis];
  }
  strides[1] = 1;
  strides[0] = stride;
  return strides;
}

dnnl::memory::desc PhysicalDesc(const Shape& shape) {
  return {dnnl::memory::dims(shape.begin(), shape.end()), dnnl::memory::data_type::f32,
          PhysicalStrides(shape)};
}

void CopyToPhysical(const float* row_major, const Shape& shape, float* physical) {
  ForEachPosition(shape, [&](int64_t from, int64_t to) { physical[to] = row_major[from]; });
}

void CopyToRowMajor(const float* physical, const Shape& shape, float* row_major) {
  ForEachPosition(shape, [&](int64_t to, int64_t from) { row_major[to] = physical[from]; });
}

Activation::Activation(const Shape& shape, bool differentiable)
    : values_(DType::kF32, shape), differentiable_(differentiable) {
  if (differentiable) gradient_ = Tensor(DType::kF32, shape);
}

}  // namespace octet::train
