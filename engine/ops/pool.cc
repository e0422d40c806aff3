// Pooling: MaxPool, AveragePool, LpPool and their Global forms. channels_last = 1 makes x and y
// [N, spatial..., C].
#include <cmath>
#include <limits>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/op_list.h"
#include "engine/ops/pool_loops.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr DTypeSet kMaxPoolTypes = kFloats | DTypeSet{DType::kU8, DType::kI8};

absl::Status InferMaxPool(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kMaxPoolTypes));
  OCTET_ASSIGN_OR_RETURN(const auto out, InferPoolOutput(context));
  OCTET_RETURN_IF_ERROR(context.SetOutput(0, context.dtype(0), out));
  return context.SetOutput(1, DType::kI64, out);
}

absl::Status InferPool(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_ASSIGN_OR_RETURN(const auto out, InferPoolOutput(context));
  return context.SetOutput(0, context.dtype(0), out);
}

absl::Status InferGlobalPool(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_ASSIGN_OR_RETURN(const auto out, InferGlobalPoolOutput(context));
  return context.SetOutput(0, context.dtype(0), out);
}

// What MaxPool compares: 16-bit floats by the floats that they stand for.
template <typename T>
T Comparable(T value) {
  return value;
}
float Comparable(Half value) { return ToFloat(value); }
float Comparable(BFloat16 value) { return ToFloat(value); }

/// The largest element of every window, and where it lies in x. The first of equal ones wins; NaN wins over all.
absl::StatusOr<Kernel> MakeMaxPool(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const PoolGeometry g,
                         WindowGeometry(context.node, context.inputs[0].shape()));
  OCTET_ASSIGN_OR_RETURN(const int64_t column_major,
                         context.node.attributes.Int("storage_order", 0));
  const bool indices = context.outputs.size() > 1 && context.node.output(1) != kNone;
  constexpr Types<float, double, uint8_t, int8_t, Half, BFloat16> kTypes;
  return KernelFor(kTypes, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
    return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
      struct Largest {
        explicit Largest(int64_t p) : plane(p) {}
        int64_t plane;
        bool found = false;
        T value{};
        int64_t position = 0;
      };
      const auto& [depth, height, width] = g.axes;
      T* y = outputs[0].as<T>();
      int64_t* where = indices ? outputs[1].as<int64_t>() : nullptr;
      ForEachWindow<Largest>(
          g, inputs[0].as<T>(),
          [&](Largest& largest, T value, int64_t d, int64_t h, int64_t w) {
            const auto key = Comparable(value);
            if (largest.found && !(key > Comparable(largest.value)) && key == key) return;
            largest.found = true;
            largest.value = value;
            largest.position = column_major != 0 ? d + depth.in * (h + height.in * w)
                                                 : (d * height.in + h) * width.in + w;
          },
          [&](const Largest& largest, int64_t out, const std::array<int64_t, 3>&) {
            y[out] = largest.value;
            if (where != nullptr) where[out] = largest.plane * g.in_plane() + largest.position;
          });
      return absl::OkStatus();
    };
  });
}

struct Sum {
  explicit Sum(int64_t) {}
  double total = 0;
  int64_t taps = 0;
};

/// The mean of every window. Its divisor: the taps inside the input, or with count_include_pad those inside the
/// padded input (before opset 19: the whole kernel).
absl::StatusOr<Kernel> MakeAverage(const KernelContext& context, const PoolGeometry& g,
                                   bool include_pad) {
  const bool whole_kernel = context.node.version < 19;
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          T* y = outputs[0].as<T>();
          ForEachWindow<Sum>(
              g, inputs[0].as<T>(),
              [](Sum& sum, T value, int64_t, int64_t, int64_t) {
                sum.total += static_cast<double>(value);
                ++sum.taps;
              },
              [&](const Sum& sum, int64_t out, const std::array<int64_t, 3>& at) {
                const int64_t count = !include_pad   ? sum.taps
                                      : whole_kernel ? g.kernel()
                                                     : g.PaddedTaps(at);
                y[out] = static_cast<T>(count == 0 ? 0.0 : sum.total / static_cast<double>(count));
              });
          return absl::OkStatus();
        };
      });
}

absl::StatusOr<Kernel> MakeAveragePool(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const PoolGeometry g,
                         WindowGeometry(context.node, context.inputs[0].shape()));
  OCTET_ASSIGN_OR_RETURN(const int64_t include_pad,
                         context.node.attributes.Int("count_include_pad", 0));
  return MakeAverage(context, g, include_pad != 0);
}

/// y = (sum |x|^p)^(1/p) over every window.
absl::StatusOr<Kernel> MakeLp(const KernelContext& context, const PoolGeometry& g) {
  OCTET_ASSIGN_OR_RETURN(const int64_t p, context.node.attributes.Int("p", 2));
  if (p < 1)
    return InvalidArgument("{}: 'p' must be at least 1, got {}", Describe(context.node), p);
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [g, power = static_cast<double>(p)](std::span<const ConstTensorView> inputs,
                                                   std::span<const TensorView> outputs) {
          T* y = outputs[0].as<T>();
          ForEachWindow<Sum>(
              g, inputs[0].as<T>(),
              [&](Sum& sum, T value, int64_t, int64_t, int64_t) {
                sum.total += std::pow(std::abs(static_cast<double>(value)), power);
              },
              [&](const Sum& sum, int64_t out, const std::array<int64_t, 3>&) {
                y[out] = static_cast<T>(std::pow(sum.total, 1.0 / power));
              });
          return absl::OkStatus();
        };
      });
}

absl::StatusOr<Kernel> MakeLpPool(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const PoolGeometry g,
                         WindowGeometry(context.node, context.inputs[0].shape()));
  return MakeLp(context, g);
}

absl::StatusOr<Kernel> MakeGlobalLpPool(const KernelContext& context) {
  return MakeLp(context, GlobalGeometry(context.node, context.inputs[0].shape()));
}

absl::StatusOr<Kernel> MakeGlobalAverage(const KernelContext& context) {
  return MakeAverage(context, GlobalGeometry(context.node, context.inputs[0].shape()), false);
}

absl::StatusOr<Kernel> MakeGlobalMax(const KernelContext& context) {
  const PoolGeometry g = GlobalGeometry(context.node, context.inputs[0].shape());
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [g](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          struct Largest {
            explicit Largest(int64_t) {}
            T value = -std::numeric_limits<T>::infinity();
          };
          T* y = outputs[0].as<T>();
          ForEachWindow<Largest>(
              g, inputs[0].as<T>(),
              [](Largest& largest, T value, int64_t, int64_t, int64_t) {
                if (!(value <= largest.value)) largest.value = value;
              },
              [&](const Largest& largest, int64_t out, const std::array<int64_t, 3>&) {
                y[out] = largest.value;
              });
          return absl::OkStatus();
        };
      });
}

}  // namespace

std::span<const OpDef> PoolOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain,
       "MaxPool",
       1,
       INT_MAX,
       InferMaxPool,
       MakeMaxPool,
       LowerPool,
       {.data_movement = true}},
      {kOnnxDomain, "AveragePool", 1, INT_MAX, InferPool, MakeAveragePool, LowerPool},
      {kOnnxDomain, "LpPool", 2, INT_MAX, InferPool, MakeLpPool, LowerPool},
      {kOnnxDomain, "GlobalAveragePool", 1, INT_MAX, InferGlobalPool, MakeGlobalAverage, LowerPool},
      {kOnnxDomain, "GlobalMaxPool", 1, INT_MAX, InferGlobalPool, MakeGlobalMax, LowerPool},
      {kOnnxDomain, "GlobalLpPool", 2, INT_MAX, InferGlobalPool, MakeGlobalLpPool, LowerPool},
  };
  return kOps;
}

}  // namespace octet
