// Convolution: Conv, ConvInteger.
#include <algorithm>
#include <vector>

#include "engine/ops/conv_loops.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {

namespace {

absl::Status InferConv(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 1));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 2));
  OCTET_RETURN_IF_ERROR(ExpectPerChannel(context, 2, 1, false));
  OCTET_ASSIGN_OR_RETURN(std::optional<Shape> out, InferConvOutput(context, 0, 1));
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

/// y = conv(x, w) + b, accumulated in double.
absl::StatusOr<Kernel> MakeConv(const KernelContext& context) {
  const bool last = context.node.attributes.IntOr("channels_last", 0) != 0;
  OCTET_ASSIGN_OR_RETURN(
      const ConvGeometry g,
      MakeConvGeometry(context.node, context.inputs[0].shape(), context.inputs[1].shape(), last));
  return KernelFor(
      kRealKernels, context.outputs[0].dtype, context.node, [&]<typename T>() -> Kernel {
        return [g, last](std::span<const ConstTensorView> inputs,
                         std::span<const TensorView> outputs) {
          const T* bias = inputs.size() > 2 ? inputs[2].as<T>() : nullptr;
          const T* x = inputs[0].as<T>();
          T* y = outputs[0].as<T>();
          std::vector<T> planar_x(last ? static_cast<size_t>(inputs[0].elements()) : 0);
          std::vector<T> planar_y(last ? static_cast<size_t>(outputs[0].elements()) : 0);
          if (last) {
            ToChannelsFirst(inputs[0], planar_x.data());
            x = planar_x.data();
            y = planar_y.data();
          }
          const int64_t channels = g.groups * g.out_channels;
          Convolve<double>(g, x, inputs[1].as<T>(), {},
                           [&](int64_t n, int64_t oc, int64_t first, std::span<const double> row) {
                             T* out = y + (n * channels + oc) * g.out_plane() + first;
                             const double offset = bias != nullptr ? bias[oc] : 0.0;
                             for (size_t i = 0; i < row.size(); ++i)
                               out[i] = static_cast<T>(row[i] + offset);
                           });
          if (last) ToChannelsLast(planar_y.data(), outputs[0]);
          return absl::OkStatus();
        };
      });
}

constexpr DTypeSet kBytes = {DType::kU8, DType::kI8};

absl::Status InferConvInteger(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 4));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kBytes));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kBytes));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 2));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 1, 3));
  OCTET_RETURN_IF_ERROR(ExpectScalar(context, 2));
  OCTET_RETURN_IF_ERROR(ExpectPerChannel(context, 3, 1, true));
  OCTET_ASSIGN_OR_RETURN(std::optional<Shape> out, InferConvOutput(context, 0, 1));
  return context.SetOutput(0, DType::kI32, std::move(out));
}

/// The elements of an optional 8-bit input as int32; empty when absent.
std::vector<int32_t> ZeroPoints(std::span<const ConstTensorView> inputs, size_t i) {
  if (i >= inputs.size() || inputs[i].data == nullptr) return {};
  std::vector<int32_t> zeros;
  for (int64_t k = 0; k < inputs[i].elements(); ++k) {
    zeros.push_back(inputs[i].dtype() == DType::kU8 ? int32_t{inputs[i].as<uint8_t>()[k]}
                                                    : inputs[i].as<int8_t>()[k]);
  }
  return zeros;
}

/// y = conv(x - x_zero, w - w_zero) in int32.
absl::StatusOr<Kernel> MakeConvInteger(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(
      const ConvGeometry g,
      MakeConvGeometry(context.node, context.inputs[0].shape(), context.inputs[1].shape(), false));
  return KernelFor(kByteKernels, context.inputs[0].dtype(), context.node, [&]<typename X>() {
    return KernelFor(
        kByteKernels, context.inputs[1].dtype(), context.node, [&]<typename W>() -> Kernel {
          return [g](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
            const std::vector<int32_t> x_zero = ZeroPoints(inputs, 2);
            const std::vector<int32_t> w_zero = ZeroPoints(inputs, 3);
            const int64_t channels = g.groups * g.out_channels;
            Convolve<int64_t>(
                g, inputs[0].as<X>(), inputs[1].as<W>(), {x_zero.empty() ? 0 : x_zero[0], w_zero},
                [&](int64_t n, int64_t oc, int64_t first, std::span<const int64_t> row) {
                  int32_t* out =
                      outputs[0].as<int32_t>() + (n * channels + oc) * g.out_plane() + first;
                  std::ranges::transform(row, out,
                                         [](int64_t sum) { return static_cast<int32_t>(sum); });
                });
            return absl::OkStatus();
          };
        });
  });
}

}  // namespace

std::span<const OpDef> ConvOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "Conv", 1, INT_MAX, InferConv, MakeConv, LowerConv},
      {kOnnxDomain, "ConvInteger", 10, INT_MAX, InferConvInteger, MakeConvInteger},
  };
  return kOps;
}

}  // namespace octet
