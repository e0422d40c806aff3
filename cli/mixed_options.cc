#include "cli/mixed_options.h"

#include <cmath>
#include <iostream>

#include "cli/finite_range.h"

#include "engine/tensor/format.h"

namespace octet::cli {
namespace {

using Json = nlohmann::ordered_json;

Json Finite(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? Json(*value) : Json();
}

std::string Cell(const Json& value, int digits) {
  return value.is_null() ? "-" : Format("{:.{}f}", value.get<double>(), digits);
}

void PrintPoint(const Json& point) {
  const int bf16 = point["bf16_layers"].get<int>();
  std::cout << Format(
      "  {:>10.1f} {:>9} {:>11} {:>6} {:>6} {:>10} {:>11} {:>11.2f}{}\n",
      point["us_per_sample"].get<double>(), Cell(point["sqnr_db"], 1), Cell(point["agreement"], 2),
      Cell(point["drop"], 2), Cell(point["lost"], 2), point["float_layers"].get<int>() - bf16, bf16,
      100 * point["int8_share"].get<double>(), point["chosen"].get<bool>() ? "  written" : "");
}

}  // namespace

void MixedOptions::AddTo(CLI::App& verb) {
  CLI::Option_group* floor = verb.add_option_group(
      "accuracy",
      "What int8 must hold on held-back calibration samples (with --calibration-file, "
      "which does not say whose it is, on any of --calibration); layers stay in bf16 or f32 "
      "until it does, by times measured on this machine [with --method auto, which looks at "
      "outputs, an SQNR of 30 dB where all layers in int8 leave less than 20 dB, in f32 and by "
      "estimated times, so that --seed alone decides; and where the network is slower than fp32 on "
      "this machine, the fastest mixture]");
  floor
      ->add_option("--max-drop", max_drop,
                   "Points of top-1 to lose at most, gains not counted (needs labels)")
      ->check(FiniteRange(0.0, 100.0));
  floor
      ->add_option("--min-agreement", min_agreement,
                   "Per cent of samples with fp32's top-1 at least")
      ->check(FiniteRange(0.0, 100.0));
  floor->add_option("--min-sqnr-db", min_sqnr_db, "SQNR of the outputs at least")
      ->check(FiniteRange(-100.0, 300.0));
  floor->add_flag("--all-int8", all_int8, "Keep no layer in float for accuracy's or speed's sake");
  floor->require_option(0, 1);
  verb.add_option("--seed", seed, "Of which calibration samples are held back")
      ->capture_default_str();
}

AccuracyFloor MixedOptions::Floor() const {
  using Kind = AccuracyFloor::Kind;
  if (max_drop) return {Kind::kMaxDrop, *max_drop};
  if (min_agreement) return {Kind::kMinAgreement, *min_agreement};
  if (min_sqnr_db) return {Kind::kMinSqnr, *min_sqnr_db};
  return {all_int8 ? Kind::kAllInt8 : Kind::kAuto};
}

Json MixedAsJson(const MixedPrecision& mixed) {
  Json layers = Json::array();
  for (const LayerDecision& layer : mixed.layers) {
    layers.push_back({{"name", layer.name},
                      {"op", layer.op},
                      {"macs", layer.macs},
                      {"precision", LayerPrecisionName(layer.precision)},
                      {"alone_sqnr_db", Finite(layer.alone_sqnr_db)},
                      {"bf16_us", Finite(layer.bf16_us)},
                      {"f32_us", Finite(layer.f32_us)},
                      {"group", layer.group},
                      {"why", layer.why}});
  }
  Json points = Json::array();
  for (const MixedPoint& point : mixed.points) {
    points.push_back({{"float_layers", point.float_layers},
                      {"bf16_layers", point.bf16_layers},
                      {"int8_share", point.int8_share},
                      {"bf16_share", point.bf16_share},
                      {"sqnr_db", Finite(point.sqnr_db)},
                      {"agreement", Finite(point.agreement)},
                      {"drop", Finite(point.drop)},
                      {"lost", Finite(point.lost)},
                      {"us_per_sample", point.us_per_sample},
                      {"holds", point.holds},
                      {"on_front", point.on_front},
                      {"chosen", point.chosen}});
  }
  return {{"floor", mixed.floor},        {"held_back", mixed.held_back},
          {"runs", mixed.runs},          {"measured_times", mixed.measured_times},
          {"layers", std::move(layers)}, {"points", std::move(points)}};
}

void PrintMixed(const Json& mixed) {
  std::cout << Format(
      "  floor: {}, on {} samples held back; {} mixtures ran; layers chosen by {} "
      "times; accuracy against latency:\n",
      mixed["floor"].get<std::string>(), mixed["held_back"].get<int64_t>(),
      mixed["runs"].get<int>(), mixed["measured_times"].get<bool>() ? "measured" : "estimated");
  std::cout
      << "   us/sample   SQNR dB  agreement %   drop   lost f32 layers bf16 layers int8 MACs %\n";
  for (const Json& point : mixed["points"]) {
    if (point["on_front"].get<bool>() || point["chosen"].get<bool>()) PrintPoint(point);
  }
  for (const Json& layer : mixed["layers"]) {
    if (layer["precision"] == "int8") continue;
    std::cout << Format("  in {}: {} {}, {} multiply-adds: {}\n",
                        layer["precision"].get<std::string>(), layer["op"].get<std::string>(),
                        layer["name"].get<std::string>(), layer["macs"].get<int64_t>(),
                        layer["why"].get<std::string>());
  }
}

}  // namespace octet::cli
