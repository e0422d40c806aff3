// `octet quantize` as a function: a model of reals in, a variant in another precision out, plain ONNX.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/calibration.h"
#include "engine/quantize/mixed_precision_figures.h"
#include "engine/quantize/recipe.h"

namespace octet {

/// What was done to one layer or tensor, for `octet quantize --json`.
struct QuantizeRecord {
  std::string name;  ///< Node or value.
  std::string
      what;  ///< "weights", "activation", "equalized", "tried", "ranges", "kept", "noisy", "slower", "seen".
  std::string detail;  ///< Scale and zero point, range, or the reason why it was kept in fp32.
};

struct QuantizeResult {
  Graph graph;
  std::vector<QuantizeRecord> records;
  std::optional<MixedPrecision> mixed;  ///< When layers were looked at one by one.
};

/// What QuantizeFile did: a QuantizeResult whose graph is in a file.
struct QuantizeSummary {
  std::vector<QuantizeRecord> records;
  std::optional<MixedPrecision> mixed;
};

/// Makes the variant `recipe.to` of an fp32 model; one of FLOAT16, BFLOAT16 or DOUBLE is taken to FLOAT first (InFloat), and its inputs and
/// outputs keep their types, behind Casts. `calibration`, in the model's types or in FLOAT, is read for int8 only. The result carries the
/// metadata "octet.precision" and "octet.recipe". Forms written:
///   fp16, bf16    weights stored in 16 bits behind a Cast to FLOAT;
///   int8          QuantizeLinear/DequantizeLinear pairs, weights I8 (symmetric, per output channel), bias FP32 on the grid of the
///                 integer sums (RoundBias);
///   int8-dynamic  DynamicQuantizeLinear -> ConvInteger (weights U8, zero point 128) or MatMulInteger (weights I8)
///                 -> Cast -> Mul by both scales -> Add bias, where that is not slower than float; else float on weights in I8.
///                 ConvTranspose and recurrent layers stay, behind a DequantizeLinear for the activation and one for the weights.
/// Errors: INVALID_ARGUMENT when the model is quantized already, holds nothing to quantize, or the calibration set does not fit
/// it, a floor asks for labels or scores that are not there, or a pass to leave out does not exist; FAILED_PRECONDITION, saying
/// what was reached, for a floor that no layer in int8 holds; UNIMPLEMENTED for an operator that Octet does not have or an opset that cannot be raised to 13.
absl::StatusOr<QuantizeResult> Quantize(const Graph& fp32, const QuantizeRecipe& recipe,
                                        const CalibrationData& calibration,
                                        const CalibrationRun& run);

/// What Quantize would say of the model, whatever the recipe and the data: INVALID_ARGUMENT naming the node when it is quantized
/// already.
absl::Status CheckNotQuantized(const Graph& graph);
/// The same of a file, which the message names, too. Errors: as ReadOnnxFile.
absl::Status CheckFp32File(const std::string& fp32);

/// Quantize from file to file; the result appears at `out` at once or not at all.
/// Errors: as ReadOnnxFile, Quantize and WriteOnnxFile.
absl::StatusOr<QuantizeSummary> QuantizeFile(const std::string& fp32, const QuantizeRecipe& recipe,
                                             const CalibrationData& calibration,
                                             const CalibrationRun& run, const std::string& out);

}  // namespace octet
