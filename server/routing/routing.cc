#include "server/routing/routing.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "engine/tensor/status.h"
#include "server/routing/stable_hash.h"

namespace octet {
namespace {

/// Without configuration the most exact precision answers.
constexpr std::array kDefaultOrder = {Precision::kFp32, Precision::kBf16, Precision::kFp16,
                                      Precision::kInt8, Precision::kInt8Dynamic};

/// "fp32, int8 (not ready)".
std::string ListOf(const RouteTable& table) {
  std::string list;
  for (const RouteCandidate& candidate : table.candidates) {
    if (!list.empty()) list += ", ";
    list += PrecisionName(candidate.precision);
    if (!candidate.ready) list += " (not ready)";
  }
  return list.empty() ? "none" : list;
}

const RouteCandidate* Find(const RouteTable& table, Precision precision) {
  const auto it = std::ranges::find(table.candidates, precision, &RouteCandidate::precision);
  return it == table.candidates.end() ? nullptr : &*it;
}

bool TakesPart(const RouteCandidate& candidate) {
  return candidate.is_offered() && candidate.weight > 0;
}

absl::StatusOr<Route> ChooseExplicit(const RouteTable& table, std::string_view name) {
  const std::optional<Precision> precision = ParsePrecision(name);
  if (!precision) {
    return InvalidArgument("unknown precision, this model has {}: \"{}\"", ListOf(table), name);
  }
  const RouteCandidate* candidate = Find(table, *precision);
  if (candidate == nullptr) {
    return NotFound("the model has no such precision, it has {}: {}", ListOf(table), name);
  }
  if (!candidate->ready) {
    return MakeError(absl::StatusCode::kUnavailable, "the precision is not ready, there are {}: {}",
                     ListOf(table), name);
  }
  return Route{*precision, RouteReason::kExplicit};
}

std::optional<Precision> ChooseSticky(const RouteTable& table, std::string_view key) {
  // The separator keeps ("ab", "c") and ("a", "bc") apart: no UTF-8 text holds the byte 0xff.
  const uint64_t key_hash = HashBytes(key, HashBytes("\xff", HashBytes(table.salt)));
  std::optional<Precision> best;
  double best_score = -std::numeric_limits<double>::infinity();
  for (const RouteCandidate& candidate : table.candidates) {
    if (!TakesPart(candidate)) continue;
    const uint64_t hash =
        MixBits(key_hash ^ MixBits(HashBytes(PrecisionName(candidate.precision))));
    const double u = 1.0 - UnitInterval(hash);  // (0, 1]: its logarithm is finite
    const double score = std::log(u) / candidate.weight;
    if (!best || score > best_score) {
      best = candidate.precision;
      best_score = score;
    }
  }
  return best;
}

std::optional<Precision> ChooseByDraw(const RouteTable& table, double draw) {
  double sum = 0;
  for (const RouteCandidate& candidate : table.candidates) {
    if (TakesPart(candidate)) sum += candidate.weight;
  }
  double rest = draw * sum;
  std::optional<Precision> chosen;
  for (const RouteCandidate& candidate : table.candidates) {
    if (!TakesPart(candidate)) continue;
    chosen = candidate.precision;  // the last one when rounding leaves a rest
    if (rest < candidate.weight) break;
    rest -= candidate.weight;
  }
  return chosen;
}

}  // namespace

std::string_view RouteReasonName(RouteReason reason) {
  switch (reason) {
    case RouteReason::kExplicit:
      return "explicit";
    case RouteReason::kSticky:
      return "sticky";
    case RouteReason::kSplit:
      return "split";
    case RouteReason::kDefault:
      return "default";
  }
  return "unknown";
}

RouteTable MakeRouteTable(const ModelConfig::Routing& config, std::vector<RouteCandidate> present) {
  RouteTable table;
  table.default_precision = config.default_precision;
  table.salt = config.sticky.salt;
  table.has_split = !config.split.empty();
  std::ranges::sort(present, {}, &RouteCandidate::precision);
  for (RouteCandidate& candidate : present) {
    const auto weight = config.split.find(candidate.precision);
    candidate.weight = weight == config.split.end() ? 0 : weight->second;
  }
  table.candidates = std::move(present);
  return table;
}

std::optional<Precision> DefaultPrecision(const RouteTable& table) {
  const auto choose = [&table](auto can) -> std::optional<Precision> {
    const auto answers = [&](Precision precision) {
      const RouteCandidate* candidate = Find(table, precision);
      return candidate != nullptr && can(*candidate);
    };
    if (table.default_precision && answers(*table.default_precision)) {
      return table.default_precision;
    }
    const auto first = std::ranges::find_if(kDefaultOrder, answers);
    return first == kDefaultOrder.end() ? std::nullopt : std::optional(*first);
  };
  const auto offered = choose([](const RouteCandidate& one) { return one.is_offered(); });
  return offered ? offered : choose([](const RouteCandidate& one) { return one.ready; });
}

absl::StatusOr<Route> ChoosePrecision(const RouteTable& table, const RouteFacts& facts) {
  if (!facts.precision.empty()) return ChooseExplicit(table, facts.precision);
  if (table.has_split && !facts.sticky_key.empty()) {
    if (const auto chosen = ChooseSticky(table, facts.sticky_key))
      return Route{*chosen, RouteReason::kSticky};
  }
  if (table.has_split) {
    if (const auto chosen = ChooseByDraw(table, facts.draw))
      return Route{*chosen, RouteReason::kSplit};
  }
  if (const auto chosen = DefaultPrecision(table)) return Route{*chosen, RouteReason::kDefault};
  return MakeError(absl::StatusCode::kUnavailable,
                   "no precision of the model is ready, there are {}", ListOf(table));
}

}  // namespace octet
