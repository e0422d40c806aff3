// Normalisation by statistics that are given (batch) or taken from the input (layer, mean and variance).
#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <vector>

#include "engine/ops/broadcast.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/op_list.h"
#include "engine/ops/row_math.h"
#include "engine/ops/row_step.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Inputs of the type of x, one element for each of its channels (axis 1).
absl::Status ExpectPerChannelVectors(const InferContext& context,
                                     std::initializer_list<size_t> inputs) {
  const auto& x = context.shape(0);
  const int64_t channels = !x ? kUnknownDim : x->rank() > 1 ? (*x)[1] : 1;
  for (const size_t i : inputs) {
    OCTET_RETURN_IF_ERROR(ExpectDType(context, i, kFloats));
    OCTET_RETURN_IF_ERROR(ExpectVector(context, i, channels));
  }
  return absl::OkStatus();
}

/// Before opset 14, four more outputs are the running and the saved statistics; since, with training_mode, two are the
/// running ones.
absl::Status InferBatchNorm(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 5, 5));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectPerChannelVectors(context, {1, 2, 3, 4}));
  const int version = context.node().version;
  OCTET_ASSIGN_OR_RETURN(const int64_t training, context.attributes().Int("training_mode", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t spatial, context.attributes().Int("spatial", 1));
  if (spatial == 0)
    return Unimplemented("{}: unsupported attribute 'spatial' = 0", Describe(context.node()));
  OCTET_RETURN_IF_ERROR(context.SetOutput(0, context.dtype(0), context.shape(0)));
  const size_t statistics = version < 14 ? 4 : training != 0 ? 2 : 0;
  for (size_t i = 1; i <= statistics; ++i) {
    const size_t like = i % 2 == 1 ? 3 : 4;
    OCTET_RETURN_IF_ERROR(context.SetOutput(i, context.dtype(like), context.shape(like)));
  }
  return absl::OkStatus();
}

/// Element i of an F32 or F64 view: from opset 14 on parameters may differ in type from x.
double RealAt(const ConstTensorView& view, int64_t i) {
  return view.dtype() == DType::kF64 ? view.as<double>()[i] : view.as<float>()[i];
}

/// Mean and variance of every channel: given, or in training those of x itself.
struct ChannelStatistics {
  std::vector<double> mean;
  std::vector<double> variance;
};

template <typename T>
ChannelStatistics StatisticsOf(const T* x, int64_t batch, int64_t channels, int64_t inner) {
  ChannelStatistics s{std::vector<double>(static_cast<size_t>(channels)),
                      std::vector<double>(static_cast<size_t>(channels))};
  const auto count = static_cast<double>(batch * inner);
  const auto each = [&](const auto& fn) {
    for (int64_t i = 0; i < batch * channels * inner; ++i)
      fn(static_cast<size_t>(i / inner % channels), static_cast<double>(x[i]));
  };
  each([&](size_t c, double v) { s.mean[c] += v / count; });
  each([&](size_t c, double v) { s.variance[c] += (v - s.mean[c]) * (v - s.mean[c]) / count; });
  return s;
}

ChannelStatistics GivenStatistics(std::span<const ConstTensorView> inputs, int64_t channels) {
  ChannelStatistics s;
  for (int64_t c = 0; c < channels; ++c) {
    s.mean.push_back(RealAt(inputs[3], c));
    s.variance.push_back(RealAt(inputs[4], c));
  }
  return s;
}

/// The statistics that a node passes on: given * momentum + seen * (1 - momentum).
void WriteStatistics(std::span<const ConstTensorView> inputs, const ChannelStatistics& seen,
                     double momentum, std::span<const TensorView> outputs) {
  for (size_t i = 1; i < outputs.size(); ++i) {
    if (outputs[i].data == nullptr) continue;
    const std::vector<double>& own = i % 2 == 1 ? seen.mean : seen.variance;
    for (size_t c = 0; c < own.size(); ++c) {
      const double given = RealAt(inputs[i % 2 == 1 ? 3 : 4], static_cast<int64_t>(c));
      const double value = given * momentum + own[c] * (1 - momentum);
      if (outputs[i].dtype() == DType::kF64) {
        outputs[i].as<double>()[c] = value;
      } else {
        outputs[i].as<float>()[c] = static_cast<float>(value);
      }
    }
  }
}

/// y = (x - mean[c]) / sqrt(var[c] + epsilon) * scale[c] + bias[c], c the index on axis 1.
absl::StatusOr<Kernel> MakeBatchNorm(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const float epsilon, context.node.attributes.Float("epsilon", 1e-5f));
  OCTET_ASSIGN_OR_RETURN(const float momentum, context.node.attributes.Float("momentum", 0.9f));
  OCTET_ASSIGN_OR_RETURN(const int64_t mode, context.node.attributes.Int("training_mode", 0));
  const bool training = mode != 0 && context.node.version >= 14;
  const Shape& shape = context.inputs[0].shape();
  const int64_t channels = shape.rank() > 1 ? shape[1] : 1;
  const int64_t inner = shape.rank() > 2 ? shape.elements(2, shape.rank()) : 1;
  const int64_t batch = shape.rank() > 0 ? shape[0] : 1;
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          const T* x = inputs[0].as<T>();
          T* y = outputs[0].as<T>();
          const ChannelStatistics s = training ? StatisticsOf(x, batch, channels, inner)
                                               : GivenStatistics(inputs, channels);
          for (int64_t plane = 0; plane < batch * channels; ++plane) {
            const int64_t c = plane % channels;
            const auto at = static_cast<size_t>(c);
            const T factor =
                static_cast<T>(RealAt(inputs[1], c) / std::sqrt(s.variance[at] + double{epsilon}));
            const T mean = static_cast<T>(s.mean[at]);
            const T bias = static_cast<T>(RealAt(inputs[2], c));
            for (int64_t i = plane * inner; i < (plane + 1) * inner; ++i)
              y[i] = (x[i] - mean) * factor + bias;
          }
          WriteStatistics(inputs, s, training ? double{momentum} : 1.0, outputs);
          return absl::OkStatus();
        };
      });
}

absl::Status InferLayerNorm(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(context.SetOutput(0, context.dtype(0), context.shape(0)));
  std::optional<Shape> statistics = context.shape(0);
  if (statistics) {
    OCTET_ASSIGN_OR_RETURN(const int axis, AxisAttribute(context, "axis", -1, statistics->rank()));
    for (int i = axis; i < statistics->rank(); ++i) (*statistics)[i] = 1;
  }
  for (const size_t i : {1, 2}) {
    OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, i));
    OCTET_RETURN_IF_ERROR(context.SetOutput(i, DType::kF32, statistics));
    if (!context.shape(0) || !context.has_input(i) || !context.shape(i)) continue;
    const Shape& x = *context.shape(0);
    const Shape& parameter = *context.shape(i);
    const bool known = x.is_static() && parameter.is_static();
    const auto broadcast = Broadcast(x, parameter);
    if (!broadcast || broadcast->rank() != x.rank() || (known && *broadcast != x)) {
      return context.Error(Format("input {} of shape {} does not broadcast to {}", i,
                                  parameter.ToString(), x.ToString()));
    }
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

/// True when a parameter has one element for each normalised one, in their order: extents of 1 before them do not count.
bool RunsAlong(const Shape& parameter, const Shape& x, int axis) {
  int i = parameter.rank();
  for (int d = x.rank(); d-- > axis;) {
    if (--i < 0 ? x[d] != 1 : parameter[i] != x[d]) return false;
  }
  return i <= 0 || parameter.elements(0, i) == 1;
}

/// What LayerNormalization does to the elements of a row once they are centred: scale and bias with one element each.
struct LayerNormForm {
  int64_t rows = 1;
  int64_t width = 1;
  double epsilon = 0;
  bool scale_in_row = true;  ///< Else y is only centred, and BroadcastScaleAndBias follows.
};

template <typename T>
void NormaliseRows(const LayerNormForm& form, std::span<const ConstTensorView> inputs,
                   std::span<const TensorView> outputs, int64_t begin, int64_t end) {
  const T* scale = form.scale_in_row ? inputs[1].as<T>() : nullptr;
  const T* bias = form.scale_in_row && inputs.size() > 2 ? inputs[2].as<T>() : nullptr;
  for (int64_t row = begin; row < end; ++row) {
    const T* x = inputs[0].as<T>() + row * form.width;
    T* y = outputs[0].as<T>() + row * form.width;
    const Moments m = MomentsOf(x, form.width, form.epsilon);
    for (int64_t i = 0; i < form.width; ++i) {
      const T centred = static_cast<T>((static_cast<double>(x[i]) - m.mean) * m.inverse_deviation);
      y[i] = (scale != nullptr ? centred * scale[i] : centred) + (bias != nullptr ? bias[i] : T{0});
    }
    if (outputs.size() > 1 && outputs[1].data != nullptr)
      outputs[1].as<float>()[row] = static_cast<float>(m.mean);
    if (outputs.size() > 2 && outputs[2].data != nullptr)
      outputs[2].as<float>()[row] = static_cast<float>(m.inverse_deviation);
  }
}

/// y = y * scale + bias, both broadcast to y.
template <typename T>
void BroadcastScaleAndBias(std::span<const ConstTensorView> inputs, TensorView y) {
  const bool has_bias = inputs.size() > 2 && inputs[2].data != nullptr;
  const Shape shapes[] = {inputs[1].shape(), has_bias ? inputs[2].shape() : Shape{}};
  const BroadcastPlan plan(y.shape(), shapes);
  plan.ForEachRow(0, plan.elements(), [&](int64_t out, std::span<const int64_t> in, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      T& element = y.as<T>()[out + i];
      element *= inputs[1].as<T>()[in[0] + i * plan.stride(0)];
      if (has_bias) element += inputs[2].as<T>()[in[1] + i * plan.stride(1)];
    }
  });
}

/// y = (x - mean) / sqrt(variance + epsilon) * scale + bias, over the axes from `axis` on; scale and bias broadcast to x.
/// Outputs 1 and 2: mean and 1 / sqrt(variance + epsilon).
absl::StatusOr<Kernel> MakeLayerNorm(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const float epsilon, context.node.attributes.Float("epsilon", 1e-5f));
  OCTET_ASSIGN_OR_RETURN(const int64_t raw, context.node.attributes.Int("axis", -1));
  const Shape& shape = context.inputs[0].shape();
  const int axis = *NormalizeAxis(raw, shape.rank());
  LayerNormForm form{shape.elements(0, axis), shape.elements(axis, shape.rank()), epsilon};
  for (size_t i = 1; i < context.inputs.size(); ++i) {
    if (context.inputs[i].dtype() == DType::kUndefined) continue;
    form.scale_in_row = form.scale_in_row && RunsAlong(context.inputs[i].shape(), shape, axis);
  }
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return
            [form](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
              const int64_t grain = 1 + 16384 / std::max<int64_t>(form.width, 1);
              ParallelFor(form.rows, grain, [&](int64_t begin, int64_t end) {
                NormaliseRows<T>(form, inputs, outputs, begin, end);
              });
              if (!form.scale_in_row) BroadcastScaleAndBias<T>(inputs, outputs[0]);
              return absl::OkStatus();
            };
      });
}

absl::StatusOr<std::unique_ptr<Step>> LowerLayerNorm(const LowerContext& context) {
  const Node& node = context.node;
  const Value& x = context.input(0);
  const Value& y = context.output();
  if (node.output(1) != kNone || node.output(2) != kNone)
    return Unimplemented("the statistics are wanted, too");
  if (!node.post_ops.empty()) return Unimplemented("post-ops");
  if (!HasRealFormat(x) || !HasRealFormat(y))
    return Unimplemented("values are neither float nor int8 with one scale");
  OCTET_ASSIGN_OR_RETURN(const float epsilon, node.attributes.Float("epsilon", 1e-5f));
  OCTET_ASSIGN_OR_RETURN(const int64_t raw, node.attributes.Int("axis", -1));
  const int axis = *NormalizeAxis(raw, x.shape->rank());
  const int64_t rows = x.shape->elements(0, axis);
  const int64_t width = x.shape->elements(axis, x.shape->rank());
  if (rows * width == 0) return Unimplemented("empty input");
  const bool has_bias = context.has_input(2);
  for (const size_t slot : {1, 2}) {
    if (slot == 2 && !has_bias) continue;
    const Value& factor = context.input(slot);
    if (factor.quant || factor.dtype != DType::kF32 || !RunsAlong(*factor.shape, *x.shape, axis))
      return Unimplemented("scale or bias is not {} floats", width);
  }
  context.layer.runs = "f32";
  context.layer.impl = "octet:layer_norm";
  context.layer.isa = context.target.isa;
  return std::make_unique<RowStep>(
      context, rows, width,
      [epsilon, has_bias, width](const StepArgs& args, const float* from, float* to, float*) {
        const auto* scale = static_cast<const float*>(args.inputs[1]);
        const auto* bias = has_bias ? static_cast<const float*>(args.inputs[2]) : nullptr;
        LayerNormRow(from, to, width, epsilon, scale, bias);
      });
}

/// Which axes share a mean and a variance.
absl::StatusOr<std::vector<bool>> MomentAxes(const Node& node, int rank) {
  OCTET_ASSIGN_OR_RETURN(const auto axes, node.attributes.Ints("axes", {0, 2, 3}));
  OCTET_ASSIGN_OR_RETURN(const auto normal, NormalizeNodeAxes(node, axes, rank));
  std::vector<bool> shared(static_cast<size_t>(rank), false);
  for (const int axis : normal) shared[static_cast<size_t>(axis)] = true;
  return shared;
}

absl::Status InferMeanVariance(InferContext& context) {
  OCTET_RETURN_IF_ERROR(InferSameAsInput(context, kFloats));
  if (!context.shape(0)) return absl::OkStatus();
  return MomentAxes(context.node(), context.shape(0)->rank()).status();
}

/// y = (x - mean) / (sqrt(variance) + 1e-9) over `axes`. Source: ONNX MeanVarianceNormalization-13.
absl::StatusOr<Kernel> MakeMeanVariance(const KernelContext& context) {
  const Shape shape = context.inputs[0].shape();
  OCTET_ASSIGN_OR_RETURN(const auto shared, MomentAxes(context.node, shape.rank()));
  Shape kept = shape;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shared[static_cast<size_t>(i)]) kept[i] = 1;
  }
  const std::array<Shape, 1> statistics = {kept};
  const BroadcastPlan plan(shape, statistics);
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          const T* x = inputs[0].as<T>();
          std::vector<double> mean(static_cast<size_t>(kept.elements()));
          std::vector<double> square(mean.size());
          const auto each = [&](const auto& fn) {
            plan.ForEachRow(0, plan.elements(),
                            [&](int64_t at, std::span<const int64_t> group, int64_t n) {
                              for (int64_t i = 0; i < n; ++i)
                                fn(at + i, static_cast<size_t>(group[0] + i * plan.stride(0)));
                            });
          };
          const double count =
              static_cast<double>(shape.elements()) / static_cast<double>(mean.size());
          each([&](int64_t i, size_t g) { mean[g] += static_cast<double>(x[i]) / count; });
          each([&](int64_t i, size_t g) {
            const double d = static_cast<double>(x[i]) - mean[g];
            square[g] += d * d / count;
          });
          each([&](int64_t i, size_t g) {
            outputs[0].as<T>()[i] = static_cast<T>((static_cast<double>(x[i]) - mean[g]) /
                                                   (std::sqrt(square[g]) + 1e-9));
          });
          return absl::OkStatus();
        };
      });
}

}  // namespace

std::span<const OpDef> NormalizationOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "BatchNormalization", 7, INT_MAX, InferBatchNorm, MakeBatchNorm},
      // Exporters wrote LayerNormalization before ONNX defined it in opset 17.
      {kOnnxDomain, "LayerNormalization", 1, INT_MAX, InferLayerNorm, MakeLayerNorm,
       LowerLayerNorm},
      {kOnnxDomain, "MeanVarianceNormalization", 9, INT_MAX, InferMeanVariance, MakeMeanVariance},
  };
  return kOps;
}

}  // namespace octet
