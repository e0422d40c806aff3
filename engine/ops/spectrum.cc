// Signals and their spectra: DFT, STFT and the windows (Hann, Hamming, Blackman). Sums in double.
//   Source: ONNX DFT-17, -20; STFT-17; HannWindow-17, HammingWindow-17, BlackmanWindow-17.
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <numeric>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/fourier.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr int64_t kMostSamples = int64_t{1} << 31;

/// Input `i` as one number of at least `least`; nullopt while it is not constant.
absl::StatusOr<std::optional<int64_t>> ReadCount(const InferContext& context, size_t i,
                                                 int64_t least) {
  OCTET_RETURN_IF_ERROR(ExpectDType(context, i, kIndexTypes));
  OCTET_RETURN_IF_ERROR(ExpectScalar(context, i));
  if (!context.has_input(i)) return std::nullopt;
  const auto values = context.ConstantInts(i);
  if (!values) return std::nullopt;
  if (values->size() != 1 || values->front() < least || values->front() > kMostSamples)
    return context.Error(Format("input {} must be one number of at least {}", i, least));
  return values->front();
}

// ---- DFT

/// Axis of the signal: an attribute (opset 17, default 1), or input 2 (opset 20, default -2).
template <typename Ints>
absl::StatusOr<std::optional<int>> DftAxis(const Node& node, int rank, const Ints& ints) {
  int64_t axis = -2;
  if (node.version < 20) {
    OCTET_ASSIGN_OR_RETURN(axis, node.attributes.Int("axis", 1));
  } else if (node.input(2) != kNone) {
    const auto given = ints(2);
    if (!given) return std::nullopt;
    if (given->size() != 1) return InvalidArgument("{}: 'axis' is no scalar", Describe(node));
    axis = given->front();
  }
  OCTET_ASSIGN_OR_RETURN(const int normal, NormalizeNodeAxis(node, axis, rank));
  if (normal == rank - 1)
    return InvalidArgument("{}: the last axis has the parts of the numbers", Describe(node));
  return normal;
}

/// x [..., n, ..., 1 or 2] -> y [..., bins, ..., 2].
absl::Status InferDft(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, context.node().version < 20 ? 2 : 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 2, kIndexTypes));
  OCTET_ASSIGN_OR_RETURN(const auto length, ReadCount(context, 1, 1));
  OCTET_ASSIGN_OR_RETURN(const int64_t onesided, context.attributes().Int("onesided", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t inverse, context.attributes().Int("inverse", 0));
  if (onesided != 0 && inverse != 0)
    return context.Error("'onesided' and 'inverse' exclude each other");
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, kMaxRank));
  (void)context.constant(
      2);  // The axis is asked for, even while there is no rank to check it against.
  if (!context.shape(0)) return context.SetOutput(0, context.dtype(0), std::nullopt);
  Shape out = *context.shape(0);
  OCTET_ASSIGN_OR_RETURN(const auto axis, DftAxis(context.node(), out.rank(), [&](size_t i) {
                           return context.ConstantInts(i);
                         }));
  if (!axis) return context.SetOutput(0, context.dtype(0), UnknownShape(out.rank()));
  const int64_t parts = out.back();
  if (parts != 1 && parts != 2 && parts != kUnknownDim)
    return context.Error(Format("a number has {} parts, expected 1 or 2", parts));
  int64_t& bins = out[*axis];
  if (context.has_input(1)) bins = length.value_or(kUnknownDim);
  if (onesided != 0 && bins != kUnknownDim) bins = bins / 2 + 1;
  out[out.rank() - 1] = 2;
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

absl::StatusOr<Kernel> MakeDft(const KernelContext& context) {
  const Shape& in = context.inputs[0].shape();
  const Shape& out = context.outputs[0].shape;
  OCTET_ASSIGN_OR_RETURN(const int64_t onesided, context.node.attributes.Int("onesided", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t inverse, context.node.attributes.Int("inverse", 0));
  const auto ints = [&](size_t i) -> std::optional<std::vector<int64_t>> {
    if (context.inputs[i].data == nullptr) return std::nullopt;
    return ToInts(context.inputs[i]);
  };
  OCTET_ASSIGN_OR_RETURN(const auto axis, DftAxis(context.node, in.rank(), ints));
  if (!axis)
    return Unimplemented("{}: the axis is known only when it runs", Describe(context.node));
  int64_t length = in[*axis];
  if (context.node.input(1) != kNone) {
    const auto given = ints(1);
    if (!given)
      return Unimplemented("{}: its length is known only when it runs", Describe(context.node));
    length = given->front();
  }
  if (length < 1) return InvalidArgument("{}: an empty signal", Describe(context.node));
  const int64_t bins = out[*axis];
  if (bins != (onesided != 0 ? length / 2 + 1 : length))
    return InvalidArgument("{}: has {} bins for {} samples", Describe(context.node), bins, length);
  const int64_t parts = in.back();
  const int64_t inner = in.elements(*axis + 1, in.rank() - 1);
  const int64_t signals = in.elements(0, *axis) * inner;
  const int64_t samples = std::min(length, in[*axis]);
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=, extent = in[*axis]](std::span<const ConstTensorView> inputs,
                                       std::span<const TensorView> outputs) {
          const FourierTransform transform(static_cast<size_t>(length), inverse != 0);
          ParallelFor(signals, 1 + 1024 / length, [&](int64_t begin, int64_t end) {
            std::vector<Complex> x(static_cast<size_t>(length));
            std::vector<Complex> y(static_cast<size_t>(bins));
            std::vector<Complex> scratch(transform.scratch());
            for (int64_t s = begin; s < end; ++s) {
              const T* from = inputs[0].as<T>() + (s / inner * extent * inner + s % inner) * parts;
              for (int64_t i = 0; i < samples; ++i) {
                const T* number = from + i * inner * parts;
                x[i] = {static_cast<double>(number[0]),
                        parts > 1 ? static_cast<double>(number[1]) : 0};
              }
              transform.Run(x, y, scratch);
              T* to = outputs[0].as<T>() + (s / inner * bins * inner + s % inner) * 2;
              for (int64_t k = 0; k < bins; ++k) {
                to[k * inner * 2] = static_cast<T>(y[k].real());
                to[k * inner * 2 + 1] = static_cast<T>(y[k].imag());
              }
            }
          });
          return absl::OkStatus();
        };
      });
}

// ---- STFT: signal [B, n, 1 or 2], frame_step, window [m], frame_length. PyTorch's exporter writes real signals as [B, n], which ONNX
// Runtime takes too.

/// The parts of a number; kUnknownDim while they are not known.
int64_t PartsOf(const Shape& signal) { return signal.rank() == 2 ? 1 : signal[2]; }

/// Frame extents as far as they are constant.
struct Frames {
  int64_t step = kUnknownDim;
  int64_t length = kUnknownDim;
};

absl::StatusOr<Frames> ReadFrames(const InferContext& context) {
  Frames frames;
  OCTET_ASSIGN_OR_RETURN(const auto step, ReadCount(context, 1, 1));
  OCTET_ASSIGN_OR_RETURN(const auto length, ReadCount(context, 3, 1));
  frames.step = step.value_or(kUnknownDim);
  if (context.has_input(3)) {
    frames.length = length.value_or(kUnknownDim);
  } else if (context.has_input(2)) {
    if (context.shape(2)) frames.length = (*context.shape(2))[0];
  } else {
    return context.Error("needs a window or a frame length");
  }
  return frames;
}

absl::Status InferStft(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 4));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 2));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, 3));
  OCTET_RETURN_IF_ERROR(ExpectVector(context, 2, kUnknownDim));
  OCTET_ASSIGN_OR_RETURN(const int64_t onesided, context.attributes().Int("onesided", 1));
  OCTET_ASSIGN_OR_RETURN(const Frames frames, ReadFrames(context));
  OCTET_RETURN_IF_ERROR(ExpectVector(context, 2, frames.length));
  Shape out{kUnknownDim, kUnknownDim, kUnknownDim, 2};
  if (frames.length != kUnknownDim) out[2] = onesided != 0 ? frames.length / 2 + 1 : frames.length;
  if (!context.shape(0)) return context.SetOutput(0, context.dtype(0), std::move(out));
  const Shape& signal = *context.shape(0);
  out[0] = signal[0];
  const int64_t parts = PartsOf(signal);
  if (parts != 1 && parts != 2 && parts != kUnknownDim)
    return context.Error(Format("a number has {} parts, expected 1 or 2", parts));
  if (signal[1] != kUnknownDim && frames.length != kUnknownDim && frames.step != kUnknownDim) {
    if (frames.length < 1 || frames.length > signal[1])
      return context.Error(Format("frames of {} in a signal of {}", frames.length, signal[1]));
    out[1] = (signal[1] - frames.length) / frames.step + 1;
  }
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

/// True where two frames of reals may be transformed as one of complex numbers: each then has errors of the other's size, which
/// must round to nothing beside its own, and one that is silent or no number must leave the other as it is.
template <typename T>
bool MayBeOne(std::span<const Complex> frames) {
  constexpr double kMostRatio = 1 << 16;
  if (std::is_same_v<T, double>) return false;
  constexpr size_t kLanes = 4;  // Additions that do not wait for each other.
  std::array<double, kLanes> sums_a = {}, sums_b = {};
  for (size_t i = 0; i < frames.size(); i += kLanes) {
    const size_t lanes = std::min(kLanes, frames.size() - i);
    for (size_t lane = 0; lane < lanes; ++lane) {
      sums_a[lane] += std::abs(frames[i + lane].real());
      sums_b[lane] += std::abs(frames[i + lane].imag());
    }
  }
  const double a = std::reduce(sums_a.begin(), sums_a.end());
  const double b = std::reduce(sums_b.begin(), sums_b.end());
  return std::isfinite(a + b) && a <= kMostRatio * b && b <= kMostRatio * a;
}

absl::StatusOr<Kernel> MakeStft(const KernelContext& context) {
  const Shape& signal = context.inputs[0].shape();
  const Shape& out = context.outputs[0].shape;
  const bool has_window = context.node.input(2) != kNone;
  int64_t length = has_window ? context.inputs[2].elements() : 0;
  if (context.inputs[1].data == nullptr ||
      (context.node.input(3) != kNone && context.inputs[3].data == nullptr)) {
    return Unimplemented("{}: its frames are known only when it runs", Describe(context.node));
  }
  const int64_t step = ToInts(context.inputs[1]).front();
  if (context.node.input(3) != kNone) length = ToInts(context.inputs[3]).front();
  const int64_t signals = out[0], samples = signal[1], parts = PartsOf(signal);
  const int64_t count = out[1], bins = out[2];
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=, transform = FourierTransform(static_cast<size_t>(length), false)](
                   std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          const T* elements = inputs[0].as<T>();
          const T* window = has_window ? inputs[2].as<T>() : nullptr;
          const auto first = [&](int64_t f) {
            return elements + (f / count * samples + f % count * step) * parts;
          };
          const auto weighted = [&](const T* from, int64_t i) {
            const double weight = window != nullptr ? static_cast<double>(window[i]) : 1;
            return weight * static_cast<double>(from[i * parts]);
          };
          const int64_t pairs = (count + 1) / 2;
          ParallelFor(signals * pairs, 1, [&](int64_t begin, int64_t end) {
            std::vector<Complex> x(static_cast<size_t>(length));
            std::vector<Complex> y(static_cast<size_t>(length));
            std::vector<Complex> scratch(transform.scratch());
            const auto write = [&](int64_t f, const auto& bin) {
              T* to = outputs[0].as<T>() + f * bins * 2;
              for (int64_t k = 0; k < bins; ++k) {
                const Complex value = bin(k);
                to[k * 2] = static_cast<T>(value.real());
                to[k * 2 + 1] = static_cast<T>(value.imag());
              }
            };
            const auto transform_alone = [&](int64_t f) {
              const T* from = first(f);
              for (int64_t i = 0; i < length; ++i)
                x[i] = {weighted(from, i), parts > 1 ? weighted(from + 1, i) : 0};
              transform.Run(x, y, scratch);
              write(f, [&](int64_t k) { return y[k]; });
            };
            for (int64_t p = begin; p < end; ++p) {
              const int64_t at = p % pairs * 2, f = p / pairs * count + at;
              const bool two = at + 1 < count;
              if (two && parts == 1) {
                const T *a = first(f), *b = first(f + 1);
                for (int64_t i = 0; i < length; ++i) x[i] = {weighted(a, i), weighted(b, i)};
              }
              if (!two || parts > 1 || !MayBeOne<T>(x)) {
                transform_alone(f);
                if (two) transform_alone(f + 1);
                continue;
              }
              // What of the bins of a + i b is conjugate to the mirrored one is a's.
              transform.Run(x, y, scratch);
              const auto mirrored = [&](int64_t k) {
                return std::conj(y[k == 0 ? 0 : length - k]);
              };
              write(f, [&](int64_t k) { return (y[k] + mirrored(k)) * 0.5; });
              write(f + 1, [&](int64_t k) {
                const Complex twice = y[k] - mirrored(k);
                return Complex(twice.imag() * 0.5, twice.real() * -0.5);
              });
            }
          });
          return absl::OkStatus();
        };
      });
}

// ---- Windows: one scalar, the length

absl::StatusOr<DType> OutputType(const InferContext& context) {
  OCTET_ASSIGN_OR_RETURN(const int64_t number, context.attributes().Int("output_datatype", 1));
  const auto dtype = DTypeOfOnnx(number);
  if (dtype && kNumbers.contains(*dtype)) return *dtype;
  return Unimplemented("{}: unsupported element type {} of ONNX", Describe(context.node()), number);
}

absl::Status InferWindow(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_ASSIGN_OR_RETURN(const DType dtype, OutputType(context));
  OCTET_ASSIGN_OR_RETURN(const auto size, ReadCount(context, 0, 0));
  return context.SetOutput(0, dtype, Shape{size.value_or(kUnknownDim)});
}

/// y[i] = a - b cos(2 pi i / n) + c cos(4 pi i / n), n being the length, one less when not periodic.
absl::StatusOr<Kernel> MakeCosineWindow(const KernelContext& context, double a, double b,
                                        double c) {
  OCTET_ASSIGN_OR_RETURN(const int64_t periodic, context.node.attributes.Int("periodic", 1));
  return Kernel([=](std::span<const ConstTensorView>, std::span<const TensorView> outputs) {
    Tensor window(DType::kF64, outputs[0].shape());
    const auto length = static_cast<double>(window.elements() - (periodic != 0 ? 0 : 1));
    for (int64_t i = 0; i < window.elements(); ++i) {
      const double angle = 2 * std::numbers::pi * static_cast<double>(i) / std::max(length, 1.0);
      window.mutable_span<double>()[static_cast<size_t>(i)] =
          a - b * std::cos(angle) + c * std::cos(2 * angle);
    }
    ConvertTensor(window.view(), outputs[0]);
    return absl::OkStatus();
  });
}
absl::StatusOr<Kernel> MakeHann(const KernelContext& context) {
  return MakeCosineWindow(context, 0.5, 0.5, 0);
}
absl::StatusOr<Kernel> MakeHamming(const KernelContext& context) {
  return MakeCosineWindow(context, 25.0 / 46, 21.0 / 46, 0);
}
absl::StatusOr<Kernel> MakeBlackman(const KernelContext& context) {
  return MakeCosineWindow(context, 0.42, 0.5, 0.08);
}

}  // namespace

std::span<const OpDef> SpectrumOps() {
  // The windows' kernels write any type themselves.
  constexpr OpTraits kAnyOutput = {.any_types = true};
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "DFT", 17, INT_MAX, InferDft, MakeDft},
      {kOnnxDomain, "STFT", 17, INT_MAX, InferStft, MakeStft},
      {kOnnxDomain, "HannWindow", 17, INT_MAX, InferWindow, MakeHann, nullptr, kAnyOutput},
      {kOnnxDomain, "HammingWindow", 17, INT_MAX, InferWindow, MakeHamming, nullptr, kAnyOutput},
      {kOnnxDomain, "BlackmanWindow", 17, INT_MAX, InferWindow, MakeBlackman, nullptr, kAnyOutput},
  };
  return kOps;
}

}  // namespace octet
