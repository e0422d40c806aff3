#include "engine/quantize/quantizer.h"

#include <algorithm>
#include <array>

#include "engine/engine.h"
#include "engine/onnx/onnx_file.h"
#include "engine/ops/op.h"
#include "engine/passes/match.h"
#include "engine/passes/pass.h"
#include "engine/quantize/dynamic_int8.h"
#include "engine/quantize/float_model.h"
#include "engine/quantize/leave_out_defaults.h"
#include "engine/quantize/mixed_precision.h"
#include "engine/quantize/opset.h"
#include "engine/quantize/output_gains.h"
#include "engine/quantize/plain_products.h"
#include "engine/quantize/selection.h"
#include "engine/quantize/static_int8.h"
#include "engine/quantize/storage.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr std::array<std::string_view, 14> kQuantizedOps = {"QuantizeLinear",
                                                            "DequantizeLinear",
                                                            "DynamicQuantizeLinear",
                                                            "ConvInteger",
                                                            "MatMulInteger",
                                                            "MatMulIntegerToFloat",
                                                            "DynamicQuantizeMatMul",
                                                            "DynamicQuantizeLSTM",
                                                            "QAttention",
                                                            "MatMulNBits",
                                                            "MatMulBnb4",
                                                            "GatherBlockQuantized",
                                                            "QMoE",
                                                            "QEmbedLayerNormalization"};
constexpr std::array<std::string_view, 3> kQuantizedPrefixes = {"QLinear", "QGemm", "QOrdered"};

// Passes that keep a graph plain ONNX and leave less to quantize.
constexpr std::array<std::string_view, 9> kPreparingPasses = {
    "raise_opset",     "fold_constants", "inline_if", "remove_no_ops", "sum_to_add",
    "fold_batch_norm", "fold_affine",    "fuse_bias", "fold_scale"};
// What raising the opset further asks for.
constexpr std::array<std::string_view, 1> kRaisingPasses = {"raise_opset"};

// Weights of recurrent layers become integers in int8-dynamic alone.
absl::Status CheckFiniteWeights(const Graph& graph, Precision to) {
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    std::vector<ValueId> weights;
    if (const auto weighted = AsWeighted(graph, id)) {
      weights = {node.inputs[1], weighted->bias};
    } else if (to == Precision::kInt8Dynamic && IsRecurrent(node)) {
      weights = {node.inputs[1], node.inputs[2]};
    }
    for (const ValueId constant : weights) {
      if (constant == kNone || !graph.value(constant).is_constant()) continue;
      const Tensor& tensor = graph.value(constant).constant;
      if (tensor.dtype() != DType::kF32 || FindMinMax(tensor.view()).finite) continue;
      return InvalidArgument("weights '{}' of {} hold NaN or infinity", graph.value(constant).name,
                             Describe(node));
    }
  }
  return absl::OkStatus();
}

std::string RecipeText(const QuantizeRecipe& recipe) {
  switch (recipe.to) {
    case Precision::kInt8:
      return Format("static {} activations={} weights={}{}{}", RangeMethodName(recipe.method),
                    ActivationGridName(recipe.activation),
                    recipe.per_channel ? "per-channel" : "per-tensor",
                    recipe.weight_bits == 4 ? " weight-bits=4" : "",
                    recipe.fewer_roundings ? " fewer-roundings" : "");
    case Precision::kInt8Dynamic:
      return Format("dynamic weights={}", recipe.per_channel ? "per-channel" : "per-tensor");
    default:
      return std::string(PrecisionName(recipe.to));
  }
}

absl::StatusOr<QuantizeResult> QuantizeIntegers(Graph graph, const QuantizeRecipe& recipe,
                                                const CalibrationData& calibration,
                                                const CalibrationRun& run,
                                                const OutputGains* gains) {
  OCTET_RETURN_IF_ERROR(RunNamedPasses(graph, kPreparingPasses, run.disabled_passes));
  OCTET_ASSIGN_OR_RETURN(const int rewritten, WritePlainProducts(graph));
  if (rewritten > 0)
    OCTET_RETURN_IF_ERROR(RunNamedPasses(graph, kPreparingPasses, run.disabled_passes));
  OCTET_RETURN_IF_ERROR(RaiseOpset(graph, std::max(OnnxOpset(graph), kQuantizeOpset)));
  OCTET_RETURN_IF_ERROR(CheckFiniteWeights(graph, recipe.to));
  for (const NodeId id : graph.OrderSnapshot()) graph.mutable_node(id).in_bf16 = false;
  if (recipe.to == Precision::kInt8Dynamic) return QuantizeDynamic(std::move(graph), recipe);
  return QuantizeStatic(std::move(graph), recipe, calibration, run, gains);
}

absl::StatusOr<QuantizeResult> Dispatch(const Graph& fp32, const QuantizeRecipe& recipe,
                                        const CalibrationData& calibration,
                                        const CalibrationRun& run, const OutputGains* gains) {
  switch (recipe.to) {
    case Precision::kFp16: {
      Graph graph = fp32;
      // Functions of the model may have opsets of their own; a file has one.
      const int opset = OnnxOpset(graph);
      if (IsBelowOpset(graph, opset)) {
        OCTET_RETURN_IF_ERROR(RunNamedPasses(graph, kRaisingPasses, run.disabled_passes));
        OCTET_RETURN_IF_ERROR(RaiseOpset(graph, opset));
      }
      return StoreWeightsAs(std::move(graph), DType::kF16);
    }
    case Precision::kBf16: {
      Graph graph = fp32;
      OCTET_RETURN_IF_ERROR(RunNamedPasses(graph, kRaisingPasses, run.disabled_passes));
      OCTET_RETURN_IF_ERROR(RaiseOpset(
          graph, std::max(OnnxOpset(graph), kQuantizeOpset)));  // Cast knows BF16 from there on.
      return StoreWeightsAs(std::move(graph), DType::kBF16);
    }
    case Precision::kInt8:
    case Precision::kInt8Dynamic:
      return QuantizeIntegers(fp32, recipe, calibration, run, gains);
    case Precision::kFp32:
      break;
  }
  return InvalidArgument("fp32 is no precision to quantize to");
}

}  // namespace

absl::Status CheckNotQuantized(const Graph& graph) {
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    const bool quantized = std::ranges::contains(kQuantizedOps, node.op) ||
                           std::ranges::any_of(kQuantizedPrefixes, [&](std::string_view prefix) {
                             return node.op.starts_with(prefix);
                           });
    if (quantized)
      return InvalidArgument("the model is quantized already: it holds {}", Describe(node));
    for (const auto& [name, attribute] : node.attributes) {
      if (const auto* body = std::get_if<Subgraph>(&attribute))
        OCTET_RETURN_IF_ERROR(CheckNotQuantized(**body));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<QuantizeResult> Quantize(const Graph& fp32, const QuantizeRecipe& recipe,
                                        const CalibrationData& calibration,
                                        const CalibrationRun& run) {
  return QuantizeForOutputs(fp32, recipe, calibration, run, nullptr);
}

absl::StatusOr<QuantizeResult> QuantizeForOutputs(const Graph& fp32, const QuantizeRecipe& recipe,
                                                  const CalibrationData& calibration,
                                                  const CalibrationRun& run,
                                                  const OutputGains* gains) {
  OCTET_RETURN_IF_ERROR(CheckPassNames(run.disabled_passes));
  OCTET_RETURN_IF_ERROR(CheckNotQuantized(fp32));
  // Also where no samples pass: weights are rounded in parallel.
  ConfigureWorkerThread(run.threads);
  if (recipe.weight_bits != 8 && recipe.weight_bits != 4)
    return InvalidArgument("weights have 8 or 4 bits, not {}", recipe.weight_bits);
  OCTET_ASSIGN_OR_RETURN(const FloatModel model, InFloat(fp32));
  OCTET_ASSIGN_OR_RETURN(QuantizeResult result,
                         Dispatch(model.graph, recipe, InFloat(calibration), run, gains));
  model.RestoreTypes(result.graph);
  result.graph.metadata["octet.precision"] = std::string(PrecisionName(recipe.to));
  if (recipe.to == Precision::kInt8 && recipe.weight_bits == 4) {
    result.graph.metadata["octet.weights"] =
        "experiment: but in the first and the last layer, which keep 8 bits, weights lie on a grid "
        "of 4 bits, [-7, 7]; they are held in bytes and run as INT8";
  }
  std::string& text = result.graph.metadata["octet.recipe"] = RecipeText(recipe);
  if (recipe.to == Precision::kInt8Dynamic) {
    const auto kept = std::ranges::count(result.records, "kept", &QuantizeRecord::what);
    if (kept > 0) text += Format(" float-layers={}", kept);
  }
  if (result.mixed) {
    const auto in = [&](LayerPrecision precision) {
      return std::ranges::count(result.mixed->layers, precision, &LayerDecision::precision);
    };
    if (std::ranges::contains(result.records, kFewerRoundings, &QuantizeRecord::what))
      text += Format(" {}", kFewerRoundings);
    text += Format(" float-layers={} of {}", in(LayerPrecision::kBf16) + in(LayerPrecision::kF32),
                   result.mixed->layers.size());
    if (in(LayerPrecision::kBf16) > 0) text += Format(" bf16-layers={}", in(LayerPrecision::kBf16));
  }
  return result;
}

absl::Status CheckFp32File(const std::string& fp32) {
  OCTET_ASSIGN_OR_RETURN(const Graph graph, ReadOnnxFile(fp32));
  return Annotate(CheckNotQuantized(graph), fp32);
}

absl::StatusOr<QuantizeSummary> QuantizeFile(const std::string& fp32, const QuantizeRecipe& recipe,
                                             const CalibrationData& calibration,
                                             const CalibrationRun& run, const std::string& out) {
  OCTET_ASSIGN_OR_RETURN(const Graph graph, ReadOnnxFile(fp32));
  auto result = Quantize(graph, recipe, calibration, run);
  if (!result.ok()) return Annotate(result.status(), fp32);
  // Float files keep what the user's own says.
  if (recipe.to == Precision::kInt8 || recipe.to == Precision::kInt8Dynamic) {
    LeaveOutDefaults(result->graph);
  }
  OCTET_RETURN_IF_ERROR(WriteOnnxFile(result->graph, out));
  return QuantizeSummary{std::move(result->records), std::move(result->mixed)};
}

}  // namespace octet
