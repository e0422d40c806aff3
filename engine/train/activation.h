// A value of the network that is trained: its elements for one batch, and the loss's gradient by them.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "engine/onednn/memory_desc.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/tensor.h"

namespace octet::train {

/// Strides of each axis of a value in elements: dense, row-major up to rank 3, else with axis 1 (the channels) innermost, as
/// convolutions on CPUs like it best.
std::vector<int64_t> PhysicalStrides(const Shape& shape);
/// The same as oneDNN says it.
dnnl::memory::desc PhysicalDesc(const Shape& shape);

/// Copies row-major elements of `shape` to where PhysicalStrides puts them, and back.
void CopyToPhysical(const float* row_major, const Shape& shape, float* physical);
void CopyToRowMajor(const float* physical, const Shape& shape, float* row_major);

/// Elements are F32, at PhysicalStrides(shape). Not thread-safe.
class Activation {
 public:
  explicit Activation(const Shape& shape, bool differentiable);

  const Shape& shape() const { return values_.shape(); }
  int64_t size() const { return values_.elements(); }
  float* values() { return values_.mutable_span<float>().data(); }
  const float* values() const { return values_.span<float>().data(); }
  /// False for what follows from the model's inputs alone: nobody asks for its gradient, and it has none.
  bool differentiable() const { return differentiable_; }
  /// Requires: differentiable().
  float* gradient() { return gradient_.mutable_span<float>().data(); }

  /// True once a reader has given its part.
  bool has_gradient() const { return has_gradient_; }
  /// Forgets the gradient of the batch before.
  void ClearGradient() { has_gradient_ = false; }
  /// Calls fill(float* to), which writes every element, and adds what it writes to what other readers of the value gave.
  /// Does nothing for a value without gradient.
  template <typename Fn>
  void AddGradient(const Fn& fill) {
    if (!differentiable_) return;
    if (!has_gradient_) {
      fill(gradient());
      has_gradient_ = true;
      return;
    }
    if (addend_.empty_handle()) addend_ = Tensor(DType::kF32, shape());
    float* const more = addend_.mutable_span<float>().data();
    fill(more);
    float* const sum = gradient();
    ParallelFor(size(), int64_t{1} << 15, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sum[i] += more[i];
    });
  }

 private:
  Tensor values_;
  Tensor gradient_;
  Tensor addend_;
  bool differentiable_;
  bool has_gradient_ = false;
};

}  // namespace octet::train
