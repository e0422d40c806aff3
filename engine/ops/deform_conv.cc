// DeformConv: a convolution whose taps are moved by offsets that come with the input.
// Source: Dai et al. 2017, Zhu et al. 2018 (masks); ONNX DeformConv-19.
#include <algorithm>
#include <array>
#include <cmath>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using Pair = std::array<int64_t, 2>;

struct DeformForm {
  int64_t groups = 1;
  int64_t offset_groups = 1;
  Pair kernel{}, strides{1, 1}, dilations{1, 1}, pads_before{}, pads_after{};

  // What one axis of the output has; -1 when the kernel does not fit.
  int64_t OutExtent(int64_t in, size_t axis) const {
    const int64_t span = dilations[axis] * (kernel[axis] - 1) + 1;
    const int64_t room = in + pads_before[axis] + pads_after[axis] - span;
    return room < 0 ? -1 : room / strides[axis] + 1;
  }
};

absl::StatusOr<Pair> PairAttribute(const Node& node, std::string_view name, Pair fallback,
                                   int64_t least) {
  OCTET_ASSIGN_OR_RETURN(const auto values, node.attributes.Ints(name, {fallback[0], fallback[1]}));
  const auto sane = [&](int64_t v) { return v >= least && v <= kMaxElements; };
  if (values.size() != 2 || !std::ranges::all_of(values, sane))
    return InvalidArgument("{}: '{}' must be two numbers of at least {}", Describe(node), name,
                           least);
  return Pair{values[0], values[1]};
}

absl::StatusOr<DeformForm> FormOfDeform(const Node& node, const Shape& weights) {
  DeformForm form;
  OCTET_ASSIGN_OR_RETURN(form.groups, node.attributes.Int("group", 1));
  OCTET_ASSIGN_OR_RETURN(form.offset_groups, node.attributes.Int("offset_group", 1));
  OCTET_ASSIGN_OR_RETURN(form.kernel,
                         PairAttribute(node, "kernel_shape", {weights[2], weights[3]}, 1));
  OCTET_ASSIGN_OR_RETURN(form.strides, PairAttribute(node, "strides", {1, 1}, 1));
  OCTET_ASSIGN_OR_RETURN(form.dilations, PairAttribute(node, "dilations", {1, 1}, 1));
  OCTET_ASSIGN_OR_RETURN(const auto pads, node.attributes.Ints("pads", {0, 0, 0, 0}));
  const auto sane = [](int64_t v) { return v >= 0 && v <= kMaxElements; };
  if (pads.size() != 4 || !std::ranges::all_of(pads, sane))
    return InvalidArgument("{}: 'pads' must be four numbers of at least 0", Describe(node));
  form.pads_before = {pads[0], pads[1]};
  form.pads_after = {pads[2], pads[3]};
  if (form.kernel != Pair{weights[2], weights[3]})
    return InvalidArgument("{}: 'kernel_shape' is not that of the weights", Describe(node));
  for (const size_t axis : {0, 1}) {
    if (form.kernel[axis] > kMaxElements / form.dilations[axis])
      return InvalidArgument("{}: kernel and 'dilations' are too large", Describe(node));
  }
  if (form.groups < 1 || form.offset_groups < 1)
    return InvalidArgument("{}: 'group' and 'offset_group' must be at least 1", Describe(node));
  return form;
}

// INVALID_ARGUMENT unless input `i` is of this shape, as far as it is known.
absl::Status ExpectInputShape(const InferContext& context, size_t i, const Shape& wanted) {
  if (!context.has_input(i) || !context.shape(i)) return absl::OkStatus();
  const Shape& got = *context.shape(i);
  bool agrees = got.rank() == wanted.rank();
  for (int d = 0; agrees && d < got.rank(); ++d)
    agrees = got[d] == wanted[d] || got[d] == kUnknownDim || wanted[d] == kUnknownDim;
  if (agrees) return absl::OkStatus();
  return context.Error(
      Format("input {} has shape {}, expected {}", i, got.ToString(), wanted.ToString()));
}

// Inputs: X [N, C, H, W], W [M, C / group, kH, kW], offset [N, 2 offset_group kH kW, oH, oW], B [M],
// mask [N, offset_group kH kW, oH, oW].
absl::Status InferDeformConv(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 3, 5));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  for (const size_t i : {1, 2, 3, 4}) OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, i));
  if (!context.shape(0) || !context.shape(1))
    return context.SetOutput(0, context.dtype(0), std::nullopt);
  const Shape& x = *context.shape(0);
  const Shape& w = *context.shape(1);
  if (x.rank() != 4 || w.rank() != 4) {
    return Unimplemented("{}: unsupported ranks of input {} and weights {}: only 4",
                         Describe(context.node()), x.rank(), w.rank());
  }
  if (!w.is_static())
    return Unimplemented("{}: weights are known only when it runs", Describe(context.node()));
  OCTET_ASSIGN_OR_RETURN(const DeformForm form, FormOfDeform(context.node(), w));
  const int64_t channels = x[1];
  if (w[0] % form.groups != 0 ||
      (channels != kUnknownDim && (channels % form.groups != 0 || channels / form.groups != w[1] ||
                                   channels % form.offset_groups != 0))) {
    return context.Error(
        Format("weights {} and groups do not fit {} channels", w.ToString(), channels));
  }
  Shape out{x[0], w[0], kUnknownDim, kUnknownDim};
  for (const int axis : {0, 1}) {
    if (x[2 + axis] == kUnknownDim) continue;
    out[2 + axis] = form.OutExtent(x[2 + axis], static_cast<size_t>(axis));
    if (out[2 + axis] < 0) return context.Error("the kernel is larger than the padded input");
  }
  const int64_t taps = form.offset_groups * w[2] * w[3];
  OCTET_RETURN_IF_ERROR(ExpectInputShape(context, 2, {x[0], 2 * taps, out[2], out[3]}));
  OCTET_RETURN_IF_ERROR(ExpectInputShape(context, 3, {w[0]}));
  OCTET_RETURN_IF_ERROR(ExpectInputShape(context, 4, {x[0], taps, out[2], out[3]}));
  return context.SetOutput(0, context.dtype(0), out);
}

// The plane's value between its elements; 0 beyond them.
template <typename T>
double Bilinear(const T* plane, int64_t height, int64_t width, double h, double w) {
  if (!(h > -1 && w > -1 && h < static_cast<double>(height) && w < static_cast<double>(width)))
    return 0;
  const auto top = static_cast<int64_t>(std::floor(h));
  const auto left = static_cast<int64_t>(std::floor(w));
  const double down = h - static_cast<double>(top);
  const double right = w - static_cast<double>(left);
  const auto at = [&](int64_t i, int64_t j) {
    const bool inside = i >= 0 && j >= 0 && i < height && j < width;
    return inside ? static_cast<double>(plane[i * width + j]) : 0.0;
  };
  return (1 - down) * ((1 - right) * at(top, left) + right * at(top, left + 1)) +
         down * ((1 - right) * at(top + 1, left) + right * at(top + 1, left + 1));
}

// y[n, m, i, j] = B[m] + sum over c, k, l of W[m, c, k, l] mask * X[n, c, moved position of the tap].
template <typename T>
class DeformKernel {
 public:
  DeformKernel(const DeformForm& form, const Shape& x, const Shape& w, const Shape& y)
      : form_(form), x_(x), w_(w), y_(y) {}

  absl::Status operator()(std::span<const ConstTensorView> inputs,
                          std::span<const TensorView> outputs) const {
    T* y = outputs[0].as<T>();
    ParallelFor(y_[0] * y_[1], 1, [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        for (int64_t at = 0; at < y_[2] * y_[3]; ++at)
          y[plane * y_[2] * y_[3] + at] =
              static_cast<T>(One(inputs, plane / y_[1], plane % y_[1], at));
      }
    });
    return absl::OkStatus();
  }

 private:
  double One(std::span<const ConstTensorView> inputs, int64_t n, int64_t m, int64_t at) const {
    const auto given = [&](size_t i) { return i < inputs.size() && inputs[i].data != nullptr; };
    const int64_t area = y_[2] * y_[3];
    const int64_t taps = form_.kernel[0] * form_.kernel[1];
    const int64_t first = m / (y_[1] / form_.groups) * w_[1];
    double sum = given(3) ? static_cast<double>(inputs[3].as<T>()[m]) : 0;
    for (int64_t c = 0; c < w_[1]; ++c) {
      const int64_t channel = first + c;
      const int64_t group = channel / (x_[1] / form_.offset_groups);
      const T* plane = inputs[0].as<T>() + (n * x_[1] + channel) * x_[2] * x_[3];
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t which = (n * form_.offset_groups + group) * taps + tap;
        const T* offset = inputs[2].as<T>() + 2 * which * area + at;
        const double h =
            Position(at / y_[3], tap / form_.kernel[1], 0) + static_cast<double>(offset[0]);
        const double w =
            Position(at % y_[3], tap % form_.kernel[1], 1) + static_cast<double>(offset[area]);
        const double mask =
            given(4) ? static_cast<double>(inputs[4].as<T>()[which * area + at]) : 1;
        const auto weight = static_cast<double>(inputs[1].as<T>()[(m * w_[1] + c) * taps + tap]);
        sum += weight * mask * Bilinear(plane, x_[2], x_[3], h, w);
      }
    }
    return sum;
  }

  double Position(int64_t out, int64_t tap, size_t axis) const {
    return static_cast<double>(out * form_.strides[axis] - form_.pads_before[axis] +
                               tap * form_.dilations[axis]);
  }

  DeformForm form_;
  Shape x_, w_, y_;
};

absl::StatusOr<Kernel> MakeDeformConv(const KernelContext& context) {
  const Shape& w = context.inputs[1].shape();
  OCTET_ASSIGN_OR_RETURN(const DeformForm form, FormOfDeform(context.node, w));
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return DeformKernel<T>(form, context.inputs[0].shape(), w, context.outputs[0].shape);
      });
}

}  // namespace

std::span<const OpDef> DeformConvOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "DeformConv", 19, INT_MAX, InferDeformConv, MakeDeformConv},
  };
  return kOps;
}

}  // namespace octet
