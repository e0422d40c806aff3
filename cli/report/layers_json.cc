#include "cli/report/layers_json.h"

#include <cmath>

namespace octet::cli {
namespace {

nlohmann::ordered_json Number(double x) {
  return std::isfinite(x) ? nlohmann::ordered_json(x) : nlohmann::ordered_json();
}

nlohmann::ordered_json AsJson(const BinCounts& bins) {
  return {{"min", bins.range.min}, {"max", bins.range.max}, {"counts", bins.counts}};
}

nlohmann::ordered_json AsJson(const ComparedValue& value) {
  nlohmann::ordered_json row{{"name", value.name},
                             {"node", value.node},
                             {"op", value.op},
                             {"sqnr_db", Number(value.noise.SqnrDb())},
                             {"equal", value.noise.noise == 0 && value.noise.non_finite == 0},
                             {"non_finite", value.noise.non_finite},
                             {"rescaled_channels", value.rescaled_channels}};
  if (value.rescaled_channels == 0) row["max_abs_error"] = value.noise.max_abs;
  if (value.dtype == DType::kUndefined) return row;
  row["quantized"] = {{"dtype", DTypeName(value.dtype)},
                      {"scale", value.params.scales[0]},
                      {"zero_point", value.params.zero_points[0]},
                      {"min", value.range.min},
                      {"max", value.range.max},
                      {"cut_off", value.cut_off},
                      {"histogram", AsJson(value.values)}};
  return row;
}

nlohmann::ordered_json AsJson(const QuantizedConstantUse& use) {
  nlohmann::ordered_json row{{"name", use.name},
                             {"node", use.node},
                             {"op", use.op},
                             {"dtype", DTypeName(use.dtype)},
                             {"scales", use.scales},
                             {"rounding_sqnr_db", Number(use.rounding_sqnr_db)},
                             {"histogram", AsJson(use.steps)}};
  if (use.scales > 0) {
    row["least_scale"] = use.least_scale;
    row["largest_scale"] = use.largest_scale;
  }
  return row;
}

}  // namespace

nlohmann::ordered_json LayersAsJson(const LayerComparison& comparison) {
  nlohmann::ordered_json values = nlohmann::json::array();
  for (const ComparedValue& value : comparison.values) values.push_back(AsJson(value));
  nlohmann::ordered_json weights = nlohmann::json::array();
  for (const QuantizedConstantUse& use : comparison.weights) weights.push_back(AsJson(use));
  return {{"samples", comparison.samples},
          {"values", std::move(values)},
          {"weights", std::move(weights)},
          {"unmatched", comparison.unmatched}};
}

}  // namespace octet::cli
