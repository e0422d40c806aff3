// Normalisation by statistics that are given (batch) or taken from the input (layer, instance).
#include <algorithm>
#include <cmath>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"

namespace octet {
namespace {

absl::Status InferBatchNorm(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 5, 5));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_ASSIGN_OR_RETURN(const int64_t training, context.attributes().Int("training_mode", 0));
  if (training != 0) return context.Error("training_mode = 1 is for training, not for serving");
  return context.SetOutput(0, context.dtype(0), context.shape(0));
}

/// y = (x - mean[c]) / sqrt(var[c] + epsilon) * scale[c] + bias[c], c the index on axis 1.
absl::StatusOr<Kernel> MakeBatchNorm(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const float epsilon, context.node.attributes.Float("epsilon", 1e-5f));
  const Shape& shape = context.inputs[0].shape();
  const int64_t channels = shape.rank() > 1 ? shape[1] : 1;
  const int64_t inner = shape.rank() > 2 ? shape.elements(2, shape.rank()) : 1;
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          const T* x = inputs[0].as<T>();
          T* y = outputs[0].as<T>();
          for (int64_t plane = 0; plane * inner < outputs[0].elements(); ++plane) {
            const int64_t c = plane % channels;
            const T factor =
                inputs[1].as<T>()[c] / std::sqrt(inputs[4].as<T>()[c] + static_cast<T>(epsilon));
            const T mean = inputs[3].as<T>()[c];
            const T bias = inputs[2].as<T>()[c];
            for (int64_t i = plane * inner; i < (plane + 1) * inner; ++i)
              y[i] = (x[i] - mean) * factor + bias;
          }
          return absl::OkStatus();
        };
      });
}

absl::Status InferLayerNorm(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(context.SetOutput(0, context.dtype(0), context.shape(0)));
  if (!context.shape(0)) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(const int axis,
                         AxisAttribute(context, "axis", -1, context.shape(0)->rank()));
  Shape statistics = *context.shape(0);
  for (int i = axis; i < statistics.rank(); ++i) statistics[i] = 1;
  for (size_t i = 1; i < context.output_count(); ++i) {
    if (context.node().output(i) == kNone) continue;
    OCTET_RETURN_IF_ERROR(context.SetOutput(i, DType::kF32, statistics));
  }
  return absl::OkStatus();
}

struct Moments {
  double mean = 0;
  double inverse_deviation = 0;
};

// Two passes: the variance of large means would cancel in one.
template <typename T>
Moments MomentsOf(const T* x, int64_t count, double epsilon) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]);
  const double mean = sum / static_cast<double>(count);
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double d = static_cast<double>(x[i]) - mean;
    squares += d * d;
  }
  return {mean, 1 / std::sqrt(squares / static_cast<double>(count) + epsilon)};
}

/// y = (x - mean) / sqrt(variance + epsilon) * scale + bias, over the axes from `axis` on; scale and bias have their
/// shape. Outputs 1 and 2: mean and 1 / sqrt(variance + epsilon).
absl::StatusOr<Kernel> MakeLayerNorm(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const float epsilon, context.node.attributes.Float("epsilon", 1e-5f));
  OCTET_ASSIGN_OR_RETURN(const int64_t raw, context.node.attributes.Int("axis", -1));
  const Shape& shape = context.inputs[0].shape();
  const int axis = *NormalizeAxis(raw, shape.rank());
  const int64_t rows = shape.elements(0, axis);
  const int64_t width = shape.elements(axis, shape.rank());
  if (context.inputs[1].elements() != width) {
    return Unimplemented("{}: a scale of {} elements for {} normalised ones",
                         Describe(context.node), context.inputs[1].elements(), width);
  }
  const bool has_bias = context.inputs.size() > 2 && context.inputs[2].dtype() != DType::kUndefined;
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          const T* scale = inputs[1].as<T>();
          const T* bias = has_bias ? inputs[2].as<T>() : nullptr;
          ParallelFor(
              rows, 1 + 16384 / std::max<int64_t>(width, 1), [&](int64_t begin, int64_t end) {
                for (int64_t row = begin; row < end; ++row) {
                  const T* x = inputs[0].as<T>() + row * width;
                  T* y = outputs[0].as<T>() + row * width;
                  const Moments m = MomentsOf(x, width, epsilon);
                  for (int64_t i = 0; i < width; ++i) {
                    const T centred =
                        static_cast<T>((static_cast<double>(x[i]) - m.mean) * m.inverse_deviation);
                    y[i] = centred * scale[i] + (bias != nullptr ? bias[i] : T{0});
                  }
                  if (outputs.size() > 1 && outputs[1].data != nullptr)
                    outputs[1].as<float>()[row] = static_cast<float>(m.mean);
                  if (outputs.size() > 2 && outputs[2].data != nullptr) {
                    outputs[2].as<float>()[row] = static_cast<float>(m.inverse_deviation);
                  }
                }
              });
          return absl::OkStatus();
        };
      });
}

absl::Status InferInstanceNorm(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 3, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 3, INT_MAX));
  return context.SetOutput(0, context.dtype(0), context.shape(0));
}

/// Every plane of every image is normalised by its own mean and variance.
absl::StatusOr<Kernel> MakeInstanceNorm(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const float epsilon, context.node.attributes.Float("epsilon", 1e-5f));
  const Shape& shape = context.inputs[0].shape();
  const int64_t channels = shape[1];
  const int64_t plane = shape.elements(2, shape.rank());
  const int64_t planes = shape[0] * channels;
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          for (int64_t p = 0; p < planes; ++p) {
            const T* x = inputs[0].as<T>() + p * plane;
            T* y = outputs[0].as<T>() + p * plane;
            const Moments m = MomentsOf(x, plane, epsilon);
            const double factor =
                m.inverse_deviation * static_cast<double>(inputs[1].as<T>()[p % channels]);
            const double bias = static_cast<double>(inputs[2].as<T>()[p % channels]);
            for (int64_t i = 0; i < plane; ++i) {
              y[i] = static_cast<T>((static_cast<double>(x[i]) - m.mean) * factor + bias);
            }
          }
          return absl::OkStatus();
        };
      });
}

absl::Status InferLrn(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, INT_MAX));
  OCTET_ASSIGN_OR_RETURN(const int64_t size, context.attributes().Int("size", 0));
  if (size < 1) return context.Error("attribute 'size' must be at least 1");
  return InferSameAsInput(context, kFloats);
}

/// y = x / (bias + alpha / size * sum of squares over `size` neighbouring channels) ^ beta.
absl::StatusOr<Kernel> MakeLrn(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const float alpha, context.node.attributes.Float("alpha", 1e-4f));
  OCTET_ASSIGN_OR_RETURN(const float beta, context.node.attributes.Float("beta", 0.75f));
  OCTET_ASSIGN_OR_RETURN(const float bias, context.node.attributes.Float("bias", 1.0f));
  OCTET_ASSIGN_OR_RETURN(const int64_t size, context.node.attributes.Int("size", 1));
  const Shape& shape = context.inputs[0].shape();
  const int64_t channels = shape[1];
  const int64_t inner = shape.elements(2, shape.rank());
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          for (int64_t i = 0; i < outputs[0].elements(); ++i) {
            const int64_t c = i / inner % channels;
            const int64_t from = std::max<int64_t>(0, c - (size - 1) / 2);
            const int64_t to = std::min(channels - 1, c + size / 2);
            double squares = 0;
            for (int64_t k = from; k <= to; ++k) {
              const auto v = static_cast<double>(inputs[0].as<T>()[i + (k - c) * inner]);
              squares += v * v;
            }
            const double divisor = std::pow(bias + alpha / static_cast<double>(size) * squares,
                                            static_cast<double>(beta));
            outputs[0].as<T>()[i] =
                static_cast<T>(static_cast<double>(inputs[0].as<T>()[i]) / divisor);
          }
          return absl::OkStatus();
        };
      });
}

}  // namespace

std::span<const OpDef> NormalizationOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "BatchNormalization", 7, INT_MAX, InferBatchNorm, MakeBatchNorm},
      // Exporters wrote LayerNormalization before ONNX defined it in opset 17.
      {kOnnxDomain, "LayerNormalization", 1, INT_MAX, InferLayerNorm, MakeLayerNorm},
      {kOnnxDomain, "InstanceNormalization", 1, INT_MAX, InferInstanceNorm, MakeInstanceNorm},
      {kOnnxDomain, "LRN", 1, INT_MAX, InferLrn, MakeLrn},
  };
  return kOps;
}

}  // namespace octet
