// Which precision answers a request: a pure function of what is configured, what is ready and what
// the request says.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "config/model_config.h"
#include "engine/graph/precision.h"

namespace octet {

/// Why a precision was chosen; also the label of the metric that counts it. kSticky: by a key, or as the split drew for the start
/// of the request's sequence.
enum class RouteReason : uint8_t { kExplicit, kSticky, kSplit, kDefault };
/// "explicit", "sticky", "split", "default".
std::string_view RouteReasonName(RouteReason reason);

/// One precision of a model version, as routing sees it.
struct RouteCandidate {
  Precision precision = Precision::kFp32;
  bool ready = false;
  double weight = 0;  ///< Of the split; 0 without one.
  /// What its guard leaves of its weight, 0 .. 1; null = all of it.
  std::shared_ptr<const std::atomic<double>> guard_share = nullptr;
  bool ramped = false;  ///< It has the share of the ramp, and none of the split or the default.

  double kept_share() const { return guard_share == nullptr ? 1 : guard_share->load(); }
  /// True when the ramp, the split or the default may choose it.
  bool is_offered() const { return ready && kept_share() > 0; }
};

/// What routing knows of a model version. Immutable but for what guards say; made anew when a
/// variant or the configuration changes.
struct RouteTable {
  std::vector<RouteCandidate> candidates;  ///< Every precision that the version has, ready or not.
  std::optional<Precision> default_precision;
  std::string salt;
  bool has_split = false;
  std::shared_ptr<const std::atomic<double>> ramp_share = nullptr;  ///< Null without a ramp.
};

/// Makes the table of a version. `present` lists its precisions and whether each is ready.
RouteTable MakeRouteTable(const ModelConfig::Routing& config, std::vector<RouteCandidate> present);

/// What routing needs to know of a request.
struct RouteFacts {
  std::string_view precision;   ///< Asked for by parameter or metadata; empty = not asked.
  std::string_view sticky_key;  ///< Empty = none.
  double draw = 0;              ///< Uniform in [0, 1), for the split.
  bool is_drawn =
      true;  ///< Counted where versions are drawn; false of who only asks which one would answer.
};

struct Route {
  Precision precision = Precision::kFp32;
  RouteReason reason = RouteReason::kDefault;
};

/// Chooses, in this order:
/// 1. the precision that the request asks for;
/// 2. with a ramp: the precision that it brings in, as TakesRamp says; the rest goes on without it;
/// 3. with a split and a sticky key: the candidate with the largest score ln(u) / weight, where u
///    in (0, 1] is a salted hash of key and precision. The same key always gets the same answer,
///    shares are proportional to the weights, and changing one weight moves only keys to or from
///    that precision;
/// 4. with a split: in proportion to the weights, by `draw`;
/// 5. the configured default; else the first ready one of fp32, bf16, fp16, int8, int8-dynamic.
/// In 2, 3 and 4 only ready precisions of weight > 0 take part: a broken one, or one that its guard let
/// fall back, leaves its share to the others; of one that a guard shifts the weight is its share's part. In 5 one that
/// fell back or comes in by a ramp answers only when nobody else can.
///
/// Errors: INVALID_ARGUMENT for a precision name that does not exist; NOT_FOUND for one that the
/// model does not have; UNAVAILABLE for one that is not ready, or when none is.
/// Source of 3: weighted rendezvous hashing (Schindelhauer and Schomaker, 2005).
absl::StatusOr<Route> ChoosePrecision(const RouteTable& table, const RouteFacts& facts);

/// The share of each candidate in the requests that ask for no precision, 0 .. 1, as rules 2 to 5 give it out now: all 0 when
/// none can answer.
std::vector<double> SharesOf(const RouteTable& table);

/// A version that can answer, and its weight, > 0.
struct VersionShare {
  int64_t number = 0;
  double weight = 0;
  bool operator==(const VersionShare&) const = default;
};

/// True when a request is among the ramped's `share`: its key's place in [0, 1), which does not change, or its draw
/// lies below it, so that a rising share moves keys one way alone. Else `draw` becomes uniform in [0, 1) once more.
bool TakesRamp(double share, std::string_view salt, std::string_view sticky_key, double& draw);

/// Chooses a version by rule 3 where there is a sticky key, else by rule 4, each independent of how the precision is
/// chosen. nullopt of none.
std::optional<int64_t> ChooseVersion(std::span<const VersionShare> shares, std::string_view salt,
                                     std::string_view sticky_key, double draw);

/// The precision that rule 5 chooses; nullopt when none is ready.
std::optional<Precision> DefaultPrecision(const RouteTable& table);

}  // namespace octet
