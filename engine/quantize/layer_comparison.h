// What quantization did inside a model: a variant's inner values beside the fp32 model's, and how its 8-bit numbers are used.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/calibration.h"
#include "engine/tensor/output_agreement.h"
#include "engine/tensor/quant_params.h"

namespace octet {

/// Counts of equally wide bins over [range.min, range.max].
struct BinCounts {
  Range range;
  std::vector<uint64_t> counts;
};

/// A value that both graphs have under one name: a graph input or output, or what a Conv, a product or a recurrent layer reads.
struct ComparedValue {
  std::string name;
  std::string
      node;  ///< That computes it in the fp32 graph, and its operator; both empty for a graph input.
  std::string op;
  /// Of all errors up to here, against the fp32 model's value. max_abs stays 0 where `rescaled_channels` is not.
  NoiseSums noise;
  /// Channels that the variant holds on a scale more than one per cent off the fp32 model's.
  int64_t rescaled_channels = 0;
  /// Only of values that the variant quantizes with constants: element type, scale and zero point, the reals that the
  /// integers reach, the fp32 model's values on the variant's scale per channel, and the share of these (0..1) that is cut off.
  DType dtype = DType::kUndefined;
  QuantParams params;
  Range range;
  BinCounts values;
  double cut_off = 0;
};

/// Constant 8-bit weights that a node reads.
struct QuantizedConstantUse {
  std::string name;  ///< Of the integers.
  std::string node;
  std::string op;
  DType dtype = DType::kUndefined;
  int64_t scales = 0;  ///< One, or one per channel.
  float least_scale = 0;
  float largest_scale = 0;
  BinCounts steps;  ///< Of q - zero_point.
  /// 10 log10(12 mean (q - zero_point)^2): signal over the noise of rounding to whole steps.
  double rounding_sqnr_db = 0;
};

struct LayerComparison {
  std::vector<ComparedValue> values;  ///< In the order of the fp32 graph.
  std::vector<QuantizedConstantUse> weights;
  int64_t samples = 0;  ///< At most; of large values fewer are kept.
  /// Values whose name and shape the fp32 graph does not have; all inside, when it has not most: equal names mean nothing then.
  std::vector<std::string> unmatched;
};

/// Runs two graphs, as they were read, on the same samples, the variant in its own precision: its 8-bit values are read where they are
/// dequantized, so that no rounding and no fusion changes. A static int8 file may hold a channel of an inner value on another
/// scale, which the weights behind it take back (EqualizeChannels); there, every channel's best factor is taken out:
///   noise = sum over c of min over g of |x_c - g y_c|^2
/// Values that are no reals are left out. Errors: as Calibrate.
absl::StatusOr<LayerComparison> CompareLayers(Graph fp32, Graph variant, const CalibrationData& set,
                                              const CalibrationRun& run);

}  // namespace octet
