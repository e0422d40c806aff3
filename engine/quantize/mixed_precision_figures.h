// What the search for mixed precision measured and decided, for `octet quantize`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace octet {

/// One layer with multiply-adds that int8 could compute.
struct LayerDecision {
  std::string name;  ///< Of the node in the fp32 model.
  std::string op;
  int64_t macs = 0;  ///< Multiply-adds per sample; 0 when shapes are open.
  bool int8 = true;
  /// SQNR of the outputs, in dB, with this layer (and the others of `group`) in int8 and all else in fp32; absent when nobody
  /// had to ask.
  std::optional<double> alone_sqnr_db;
  int group = 0;  ///< Layers with one number were measured and decided together.
  std::string why;
};

/// One mixture as it ran on the samples held back.
struct MixedPoint {
  int float_layers = 0;
  double sqnr_db = 0;
  std::optional<double>
      agreement;               ///< Per cent of samples with fp32's top-1, where there are classes.
  std::optional<double> drop;  ///< Points of top-1 lost, where there are labels as well.
  /// Points of top-1 that fp32 has right and the mixture wrong. What luck wins on a few samples does not come again, so that
  /// gains do not make up for these.
  std::optional<double> lost;
  double int8_share = 0;     ///< Of the multiply-adds, 0..1.
  double us_per_sample = 0;  ///< In the fastest run.
  bool holds = false;        ///< The floor.
  bool on_front = false;     ///< No other point is as accurate with a larger int8 share.
  bool chosen = false;
};

struct MixedPrecision {
  std::string floor;                  ///< As a sentence: "SQNR of at least 20 dB".
  int64_t held_back = 0;              ///< Samples that decided.
  int runs = 0;                       ///< Mixtures that ran, single layers included.
  std::vector<LayerDecision> layers;  ///< In graph order.
  std::vector<MixedPoint> points;     ///< By rising share of int8.
};

}  // namespace octet
