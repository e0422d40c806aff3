// Kernels of elementwise operators from one scalar function: same-shape, scalar and broadcast inputs run as
// vectorised rows (ops/broadcast.h), big tensors on the worker's whole OpenMP team.
#pragma once

#include <type_traits>

#include "engine/ops/broadcast.h"
#include "engine/ops/dispatch.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/parallel.h"

namespace octet {

/// Elements that one thread of an elementwise loop gets at least.
inline constexpr int64_t kElementwiseGrain = int64_t{1} << 14;

namespace rows {

// The loops exist twice: cloned per CPU for float, plain for the other types. `ivdep` holds because element i
// is read before it is written, so a row may be computed in place.

template <typename T, typename R, typename Fn>
[[gnu::always_inline]] inline void Unary(const T* x, R* y, int64_t n, const Fn& fn) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<R>(fn(x[i]));
}

template <typename T, typename R, typename Fn>
[[gnu::always_inline]] inline void Binary(const T* a, int64_t a_stride, const T* b,
                                          int64_t b_stride, R* y, int64_t n, const Fn& fn) {
  if (a_stride == 1 && b_stride == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<R>(fn(a[i], b[i]));
  } else if (a_stride == 1) {
    const T v = *b;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<R>(fn(a[i], v));
  } else if (b_stride == 1) {
    const T v = *a;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<R>(fn(v, b[i]));
  } else {
    std::fill_n(y, n, static_cast<R>(fn(*a, *b)));
  }
}

template <typename Fn>
OCTET_CPU_CLONES [[gnu::flatten]] static void UnaryFloat(const float* x, float* y, int64_t n,
                                                         const Fn& fn) {
  Unary(x, y, n, fn);
}

template <typename Fn>
OCTET_CPU_CLONES [[gnu::flatten]] static void BinaryFloat(const float* a, int64_t a_stride,
                                                          const float* b, int64_t b_stride,
                                                          float* y, int64_t n, const Fn& fn) {
  Binary(a, a_stride, b, b_stride, y, n, fn);
}

}  // namespace rows

/// outputs[0][i] = fn(inputs[0][i]). Works for any element count, in place too.
template <typename T, typename R = T, typename Fn>
Kernel UnaryKernel(Fn fn) {
  return [fn](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    const T* x = inputs[0].as<T>();
    R* y = outputs[0].as<R>();
    ParallelFor(outputs[0].elements(), kElementwiseGrain, [&](int64_t begin, int64_t end) {
      if constexpr (std::is_same_v<T, float> && std::is_same_v<R, float>) {
        rows::UnaryFloat(x + begin, y + begin, end - begin, fn);
      } else {
        rows::Unary(x + begin, y + begin, end - begin, fn);
      }
    });
    return absl::OkStatus();
  };
}

/// UnaryKernel for float and double: `fn` is a generic lambda. Errors: as KernelFor.
template <typename Fn>
absl::StatusOr<Kernel> RealKernel(const KernelContext& context, Fn fn) {
  const auto make = [&]<typename T>() -> Kernel { return UnaryKernel<T>(fn); };
  return KernelFor(kRealKernels, context.inputs[0].dtype(), context.node, make);
}

/// outputs[0] = fn(inputs[0], inputs[1]) with broadcasting; made for the context's shapes.
template <typename T, typename R = T, typename Fn>
Kernel BinaryKernel(const KernelContext& context, Fn fn) {
  const Shape shapes[] = {context.inputs[0].shape(), context.inputs[1].shape()};
  return [plan = BroadcastPlan(context.outputs[0].shape, shapes), fn](
             std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    const T* a = inputs[0].as<T>();
    const T* b = inputs[1].as<T>();
    R* y = outputs[0].as<R>();
    const auto row = [&](int64_t out, std::span<const int64_t> in, int64_t n) {
      if constexpr (std::is_same_v<T, float> && std::is_same_v<R, float>) {
        rows::BinaryFloat(a + in[0], plan.stride(0), b + in[1], plan.stride(1), y + out, n, fn);
      } else {
        rows::Binary(a + in[0], plan.stride(0), b + in[1], plan.stride(1), y + out, n, fn);
      }
    };
    ParallelFor(plan.elements(), kElementwiseGrain,
                [&](int64_t begin, int64_t end) { plan.ForEachRow(begin, end, row); });
    return absl::OkStatus();
  };
}

}  // namespace octet
