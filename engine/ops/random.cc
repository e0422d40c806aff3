// Noise: RandomNormal, RandomUniform, their Like forms, Bernoulli, Multinomial.
//   Element i of a run is a hash of (seed, run, i): the same for any number of threads. A node with a seed gives the same
//   in every run, so that answers can be repeated; one without takes a seed of the machine's, and counts its runs.
// Source: ONNX, Operators.md; Salmon et al. 2011 (counters as generators); Steele et al. 2014 (the hash).
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <memory>
#include <numbers>
#include <random>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

uint64_t Mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

/// The numbers of one run.
class Noise {
 public:
  explicit Noise(uint64_t key) : key_(key) {}
  /// Uniform in [0, 1), 53 bits; draw `which` of element i.
  double Uniform(int64_t i, uint64_t which = 0) const {
    constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;
    const uint64_t bits = Mixed(key_ + kGolden * (2 * static_cast<uint64_t>(i) + which + 1));
    return std::ldexp(static_cast<double>(bits >> 11), -53);
  }
  /// Standard normal, by Box and Muller.
  double Normal(int64_t i) const {
    const double radius = std::sqrt(-2 * std::log(1 - Uniform(i)));
    return radius * std::cos(2 * std::numbers::pi * Uniform(i, 1));
  }

 private:
  uint64_t key_;
};

/// A Noise for each run. Thread-safety: Next() from several threads.
class NoiseSource {
 public:
  static absl::StatusOr<std::shared_ptr<NoiseSource>> Of(const Node& node) {
    OCTET_ASSIGN_OR_RETURN(const float seed, node.attributes.Float("seed", 0));
    auto source = std::make_shared<NoiseSource>();
    source->repeats_ = node.attributes.has("seed");
    std::random_device device;
    source->seed_ =
        source->repeats_ ? std::bit_cast<uint32_t>(seed) : uint64_t{device()} << 32 | device();
    return source;
  }
  Noise Next() { return Noise(Mixed(seed_ + (repeats_ ? 0 : ++runs_))); }

 private:
  uint64_t seed_ = 0;
  bool repeats_ = false;
  std::atomic<uint64_t> runs_ = 0;
};

absl::StatusOr<DType> DTypeAttribute(const InferContext& context, DType fallback,
                                     DTypeSet accepted) {
  OCTET_ASSIGN_OR_RETURN(const int64_t number, context.attributes().Int("dtype", 0));
  const auto dtype =
      context.attributes().has("dtype") ? DTypeOfOnnx(number) : std::optional(fallback);
  if (dtype && accepted.contains(*dtype)) return *dtype;
  return Unimplemented("{}: unsupported element type {} of ONNX", Describe(context.node()), number);
}

absl::Status InferNoise(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputCount(context, 0, 0));
  OCTET_ASSIGN_OR_RETURN(const DType dtype, DTypeAttribute(context, DType::kF32, kFloats));
  OCTET_ASSIGN_OR_RETURN(const auto shape, context.attributes().Ints("shape", {}));
  for (const int64_t extent : shape) {
    if (extent < 0) return context.Error(Format("'shape' holds {}", extent));
  }
  return context.SetOutput(0, dtype, Shape(shape));
}

absl::Status InferNoiseLike(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_ASSIGN_OR_RETURN(const DType dtype, DTypeAttribute(context, context.dtype(0), kFloats));
  return context.SetOutput(0, dtype, context.shape(0));
}

/// Writes fn(noise, i) as the output's type.
template <typename Fn>
void Fill(const Noise& noise, const TensorView& output, const Fn& fn) {
  Tensor reals(DType::kF64, output.shape());
  double* to = reals.mutable_span<double>().data();
  ParallelFor(reals.elements(), 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = fn(noise, i);
  });
  ConvertTensor(reals.view(), output);
}

absl::StatusOr<Kernel> MakeNormal(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const float mean, context.node.attributes.Float("mean", 0));
  OCTET_ASSIGN_OR_RETURN(const float scale, context.node.attributes.Float("scale", 1));
  OCTET_ASSIGN_OR_RETURN(const auto source, NoiseSource::Of(context.node));
  return Kernel([=](std::span<const ConstTensorView>, std::span<const TensorView> outputs) {
    Fill(source->Next(), outputs[0], [&](const Noise& noise, int64_t i) {
      return double{mean} + double{scale} * noise.Normal(i);
    });
    return absl::OkStatus();
  });
}

absl::StatusOr<Kernel> MakeUniform(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const float low, context.node.attributes.Float("low", 0));
  OCTET_ASSIGN_OR_RETURN(const float high, context.node.attributes.Float("high", 1));
  OCTET_ASSIGN_OR_RETURN(const auto source, NoiseSource::Of(context.node));
  return Kernel([=](std::span<const ConstTensorView>, std::span<const TensorView> outputs) {
    Fill(source->Next(), outputs[0], [&](const Noise& noise, int64_t i) {
      return double{low} + (double{high} - double{low}) * noise.Uniform(i);
    });
    return absl::OkStatus();
  });
}

absl::Status InferBernoulli(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_ASSIGN_OR_RETURN(const DType dtype, DTypeAttribute(context, context.dtype(0), kAnyTypes));
  return context.SetOutput(0, dtype, context.shape(0));
}

/// 1 with the probability x[i], else 0.
absl::StatusOr<Kernel> MakeBernoulli(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const auto source, NoiseSource::Of(context.node));
  return Kernel([=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    Tensor chances(DType::kF64, inputs[0].shape());
    ConvertTensor(inputs[0], chances.mutable_view());
    const double* chance = chances.span<double>().data();
    Fill(source->Next(), outputs[0],
         [&](const Noise& noise, int64_t i) { return noise.Uniform(i) < chance[i] ? 1.0 : 0.0; });
    return absl::OkStatus();
  });
}

absl::Status InferMultinomial(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, 2));
  OCTET_ASSIGN_OR_RETURN(const DType dtype, DTypeAttribute(context, DType::kI32, kIndexTypes));
  OCTET_ASSIGN_OR_RETURN(const int64_t samples, context.attributes().Int("sample_size", 1));
  if (samples < 0) return context.Error(Format("'sample_size' is {}", samples));
  if (!context.shape(0)) return context.SetOutput(0, dtype, std::nullopt);
  const Shape& x = *context.shape(0);
  if (x[1] == 0) return context.Error("there is no class to draw");
  return context.SetOutput(0, dtype, Shape{x[0], samples});
}

/// Draws classes with the probabilities softmax(x) of each row.
absl::StatusOr<Kernel> MakeMultinomial(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const auto source, NoiseSource::Of(context.node));
  return Kernel([=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    Tensor logits(DType::kF64, inputs[0].shape());
    ConvertTensor(inputs[0], logits.mutable_view());
    const int64_t classes = inputs[0].shape()[1];
    const int64_t samples = outputs[0].shape()[1];
    std::vector<double> sums(static_cast<size_t>(logits.elements()));
    for (int64_t row = 0; row < inputs[0].shape()[0]; ++row) {
      const double* x = logits.span<double>().data() + row * classes;
      const double largest = *std::max_element(x, x + classes);
      double sum = 0;
      for (int64_t c = 0; c < classes; ++c)
        sums[static_cast<size_t>(row * classes + c)] = sum += std::exp(x[c] - largest);
    }
    Fill(source->Next(), outputs[0], [&](const Noise& noise, int64_t i) {
      const auto first = sums.begin() + i / samples * classes;
      const auto last = first + classes;
      const double at = noise.Uniform(i) * *(last - 1);
      // The last class stands in where rounding, or a NaN, leaves nothing beyond `at`.
      return static_cast<double>(
          std::min<int64_t>(std::upper_bound(first, last, at) - first, classes - 1));
    });
    return absl::OkStatus();
  });
}

}  // namespace

std::span<const OpDef> RandomOps() {
  constexpr OpTraits kNoise = {.any_types = true, .no_fold = true};
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "RandomNormal", 1, INT_MAX, InferNoise, MakeNormal, nullptr, kNoise},
      {kOnnxDomain, "RandomNormalLike", 1, INT_MAX, InferNoiseLike, MakeNormal, nullptr, kNoise},
      {kOnnxDomain, "RandomUniform", 1, INT_MAX, InferNoise, MakeUniform, nullptr, kNoise},
      {kOnnxDomain, "RandomUniformLike", 1, INT_MAX, InferNoiseLike, MakeUniform, nullptr, kNoise},
      {kOnnxDomain, "Bernoulli", 15, INT_MAX, InferBernoulli, MakeBernoulli, nullptr, kNoise},
      {kOnnxDomain, "Multinomial", 7, INT_MAX, InferMultinomial, MakeMultinomial, nullptr, kNoise},
  };
  return kOps;
}

}  // namespace octet
