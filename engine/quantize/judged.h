// Steps of static quantization that have to show in the outputs.
#pragma once

#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/output_gains.h"
#include "engine/quantize/output_noise.h"
#include "engine/quantize/quantizer.h"
#include "engine/quantize/statistics.h"

namespace octet {

/// As EqualizeChannels. Where constants may move the reach of channels into the weights (QuantizeRecipe::smooth), this is done only if it
/// leaves less noise in the int8 graph's outputs, with min-max ranges of `part` (of `statistics`, where that is empty) and on
/// `samples`, whose fp32 outputs `outputs` keeps; a record says what was measured. Errors: as Calibrate.
absl::StatusOr<std::vector<QuantizeRecord>> EqualizeJudged(
    Graph& graph, const QuantizeRecipe& recipe, Statistics& statistics, Statistics& part,
    const KeptOutputs& outputs, const CalibrationData& samples, const CalibrationRun& run,
    const OutputGains* gains = nullptr);

/// Whether concatenations get factors (ConcatFactors): where some would, if they leave less noise, measured as above; `records` says what
/// was measured. False where QuantizeRecipe::scale_concats is. Errors: as Calibrate.
absl::StatusOr<bool> ScaleConcatsJudged(const Graph& graph, const QuantizeRecipe& recipe,
                                        const Statistics& statistics, const Statistics& part,
                                        const KeptOutputs& outputs, const CalibrationData& samples,
                                        const CalibrationRun& run,
                                        std::vector<QuantizeRecord>& records);

}  // namespace octet
