// What the search for mixed precision measured and decided, for `octet quantize`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace octet {

/// What a layer of an int8 file computes in; kBf16 in f32 where the processor has no bf16 arithmetic.
enum class LayerPrecision : uint8_t { kInt8, kBf16, kF32 };
/// "int8", "bf16", "f32".
std::string_view LayerPrecisionName(LayerPrecision precision);

/// One layer with multiply-adds that int8 could compute.
struct LayerDecision {
  std::string name;  ///< Of the node in the fp32 model.
  std::string op;
  int64_t macs = 0;  ///< Multiply-adds per sample; 0 when shapes are open.
  LayerPrecision precision = LayerPrecision::kInt8;
  /// SQNR of the outputs, in dB, with this layer (and the others of `group`) in int8 and all else in fp32; absent when nobody
  /// had to ask.
  std::optional<double> alone_sqnr_db;
  /// How many us longer a sample takes with this layer (and the others of `group`) in bf16 or f32 and all else in int8, conversions
  /// at its borders included; absent when nobody measured it.
  std::optional<double> bf16_us;
  std::optional<double> f32_us;
  int group = 0;  ///< Layers with one number were measured and decided together.
  std::string why;
};

/// One mixture as it ran on the samples held back.
struct MixedPoint {
  int float_layers = 0;  ///< In bf16 or f32.
  int bf16_layers = 0;
  double sqnr_db = 0;
  std::optional<double>
      agreement;               ///< Per cent of samples with fp32's top-1, where there are classes.
  std::optional<double> drop;  ///< Points of top-1 lost, where there are labels as well.
  /// Points of top-1 that fp32 has right and the mixture wrong. What luck wins on a few samples does not come again, so that
  /// gains do not make up for these.
  std::optional<double> lost;
  double int8_share = 0;  ///< Of the multiply-adds, 0..1.
  double bf16_share = 0;
  /// One sample at a time on one thread, as LatencyMeter has it: in turns with the mixture of int8 alone, so that points compare.
  double us_per_sample = 0;
  bool holds = false;     ///< The floor.
  bool on_front = false;  ///< No other point is as accurate in less time.
  bool chosen = false;
};

struct MixedPrecision {
  std::string floor;                  ///< As a sentence: "SQNR of at least 20 dB".
  int64_t held_back = 0;              ///< Samples that decided.
  int runs = 0;                       ///< Mixtures that ran, single layers included.
  bool measured_times = false;        ///< Decided by times of this machine, not by an estimate.
  std::vector<LayerDecision> layers;  ///< In graph order.
  std::vector<MixedPoint> points;     ///< By rising time.
};

}  // namespace octet
