// MelWeightMatrix: which share of each frequency bin goes into each mel bin.
// Source: Davis and Mermelstein 1980; ONNX MelWeightMatrix-17.
#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/ops/infer_rules.h"
#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// The integer of a scalar input, or nullopt while it is no constant.
absl::StatusOr<std::optional<int64_t>> Count(const InferContext& context, size_t i) {
  OCTET_RETURN_IF_ERROR(ExpectDType(context, i, kIndexTypes));
  OCTET_RETURN_IF_ERROR(ExpectScalar(context, i));
  const auto values = context.ConstantInts(i);
  if (!values) return std::nullopt;
  if (values->size() != 1 || values->front() < 0 || values->front() > kMaxElements - 2)
    return context.Error(Format("input {} is no count", i));
  return values->front();
}

// Inputs, all scalars: mel bins, DFT length, sample rate, lower and upper edge in Hz.
absl::Status InferMelWeights(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 5, 5));
  OCTET_ASSIGN_OR_RETURN(const auto bins, Count(context, 0));
  OCTET_ASSIGN_OR_RETURN(const auto length, Count(context, 1));
  OCTET_RETURN_IF_ERROR(Count(context, 2).status());
  for (const size_t i : {3, 4}) {
    OCTET_RETURN_IF_ERROR(ExpectDType(context, i, kFloats));
    OCTET_RETURN_IF_ERROR(ExpectScalar(context, i));
  }
  OCTET_ASSIGN_OR_RETURN(const int64_t number,
                         context.attributes().Int("output_datatype", kOnnxFloat));
  const auto dtype = DTypeOfOnnx(number);
  if (!dtype || !kNumbers.contains(*dtype)) {
    return Unimplemented("{}: unsupported element type {} of ONNX", Describe(context.node()),
                         number);
  }
  return context.SetOutput(
      0, *dtype, Shape{length ? *length / 2 + 1 : kUnknownDim, bins ? *bins : kUnknownDim});
}

double RealOf(const ConstTensorView& view) {
  double real = 0;
  ConvertTensor(view, {&real, {DType::kF64, view.shape()}});
  return real;
}

// The edges of all mel bins, as indices of frequency bins: bin m rises from edge m to m + 1, and falls to m + 2.
std::vector<int64_t> MelEdges(std::span<const ConstTensorView> inputs, int64_t bins) {
  const auto mel = [](double hertz) { return 2595 * std::log10(1 + hertz / 700); };
  const double low = mel(RealOf(inputs[3]));
  const double step = (mel(RealOf(inputs[4])) - low) / static_cast<double>(bins + 2);
  std::vector<int64_t> edges;
  for (int64_t i = 0; i < bins + 2; ++i) {
    const double hertz = 700 * (std::pow(10, (static_cast<double>(i) * step + low) / 2595) - 1);
    const double at = std::floor((RealOf(inputs[1]) + 1) * hertz / RealOf(inputs[2]));
    // What lies outside the spectrum weighs nothing; NaN (a sample rate of 0) is outside.
    edges.push_back(at >= 0 && at < static_cast<double>(kMaxElements) ? static_cast<int64_t>(at)
                                                                      : kMaxElements);
  }
  return edges;
}

absl::StatusOr<Kernel> MakeMelWeights(const KernelContext&) {
  return Kernel([](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    const int64_t rows = outputs[0].shape()[0];
    const int64_t bins = outputs[0].shape()[1];
    Tensor weights(DType::kF64, outputs[0].shape());
    const auto w = weights.mutable_span<double>();
    std::ranges::fill(w, 0.0);
    const std::vector<int64_t> edges = MelEdges(inputs, bins);
    for (int64_t m = 0; m < bins; ++m) {
      const auto edge = [&](int64_t i) { return edges[static_cast<size_t>(m + i)]; };
      const auto at = [&](int64_t row) -> double& {
        return w[static_cast<size_t>(row * bins + m)];
      };
      const int64_t rise = edge(1) - edge(0);
      const int64_t fall = edge(2) - edge(1);
      if (rise == 0 && edge(1) < rows) at(edge(1)) = 1;
      for (int64_t row = edge(0); rise > 0 && row <= edge(1) && row < rows; ++row)
        at(row) = static_cast<double>(row - edge(0)) / static_cast<double>(rise);
      for (int64_t row = edge(1); fall > 0 && row < edge(2) && row < rows; ++row)
        at(row) = static_cast<double>(edge(2) - row) / static_cast<double>(fall);
    }
    ConvertTensor(weights.view(), outputs[0]);
    return absl::OkStatus();
  });
}

}  // namespace

std::span<const OpDef> MelWeightOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain,
       "MelWeightMatrix",
       17,
       INT_MAX,
       InferMelWeights,
       MakeMelWeights,
       nullptr,
       {.any_types = true}},
  };
  return kOps;
}

}  // namespace octet
