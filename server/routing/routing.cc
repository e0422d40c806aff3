#include "server/routing/routing.h"

#include <algorithm>
#include <array>
#include <charconv>
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

uint64_t NameHash(const RouteCandidate& candidate) {
  return HashBytes(PrecisionName(candidate.precision));
}
uint64_t NameHash(const VersionShare& share) {
  std::array<char, 20> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), share.number).ptr;
  return HashBytes({digits.data(), end});
}

double WeightOf(const RouteCandidate& candidate) {
  return candidate.ready && !candidate.ramped ? candidate.weight * candidate.kept_share() : 0;
}
double WeightOf(const VersionShare& share) { return share.weight; }

/// Rule 3; null when none has a weight.
template <typename Candidate>
const Candidate* ChooseByKey(std::span<const Candidate> candidates, std::string_view salt,
                             std::string_view key) {
  // The separator keeps ("ab", "c") and ("a", "bc") apart: no UTF-8 text holds the byte 0xff.
  const uint64_t key_hash = HashBytes(key, HashBytes("\xff", HashBytes(salt)));
  const Candidate* best = nullptr;
  double best_score = -std::numeric_limits<double>::infinity();
  for (const Candidate& candidate : candidates) {
    const double weight = WeightOf(candidate);
    if (weight <= 0) continue;
    const double u = 1.0 - UnitInterval(MixBits(key_hash ^ MixBits(NameHash(candidate))));
    const double score = std::log(u) / weight;  // u in (0, 1]: its logarithm is finite
    if (best != nullptr && score <= best_score) continue;
    best = &candidate;
    best_score = score;
  }
  return best;
}

/// Rule 4; null when none has a weight.
template <typename Candidate>
const Candidate* ChooseByDraw(std::span<const Candidate> candidates, double draw) {
  double sum = 0;
  for (const Candidate& candidate : candidates) sum += WeightOf(candidate);
  double rest = draw * sum;
  const Candidate* chosen = nullptr;
  for (const Candidate& candidate : candidates) {
    const double weight = WeightOf(candidate);
    if (weight <= 0) continue;
    chosen = &candidate;  // the last one when rounding leaves a rest
    if (rest < weight) break;
    rest -= weight;
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
  const auto offered =
      choose([](const RouteCandidate& one) { return one.is_offered() && !one.ramped; });
  return offered ? offered : choose([](const RouteCandidate& one) { return one.ready; });
}

std::vector<double> SharesOf(const RouteTable& table) {
  std::vector<double> shares(table.candidates.size());
  double rest = 1;
  double weights = 0;
  for (size_t i = 0; i < shares.size(); ++i) {
    const RouteCandidate& candidate = table.candidates[i];
    if (table.ramp_share != nullptr && candidate.ramped && candidate.is_offered()) {
      shares[i] = std::min(1.0, table.ramp_share->load());
      rest -= shares[i];
    }
    if (table.has_split) weights += WeightOf(candidate);
  }
  const std::optional<Precision> otherwise = weights > 0 ? std::nullopt : DefaultPrecision(table);
  for (size_t i = 0; i < shares.size(); ++i) {
    const RouteCandidate& candidate = table.candidates[i];
    if (weights > 0) shares[i] += rest * WeightOf(candidate) / weights;
    if (candidate.precision == otherwise) shares[i] += rest;
  }
  return shares;
}

bool TakesRamp(double share, std::string_view salt, std::string_view sticky_key, double& draw) {
  // Another separator than ChooseByKey's: the rest of the keys are split as if there were no ramp.
  const double place =
      sticky_key.empty()
          ? draw
          : UnitInterval(MixBits(HashBytes(sticky_key, HashBytes("\xfe", HashBytes(salt)))));
  if (place < share) return true;
  if (share < 1 && sticky_key.empty()) draw = (draw - share) / (1 - share);
  return false;
}

std::optional<int64_t> ChooseVersion(std::span<const VersionShare> shares, std::string_view salt,
                                     std::string_view sticky_key, double draw) {
  const VersionShare* chosen =
      sticky_key.empty() ? ChooseByDraw(shares, draw) : ChooseByKey(shares, salt, sticky_key);
  return chosen == nullptr ? std::nullopt : std::optional(chosen->number);
}

absl::StatusOr<Route> ChoosePrecision(const RouteTable& table, const RouteFacts& facts) {
  if (!facts.precision.empty()) return ChooseExplicit(table, facts.precision);
  const std::span<const RouteCandidate> candidates = table.candidates;
  double draw = facts.draw;
  const auto ramped = std::ranges::find(table.candidates, true, &RouteCandidate::ramped);
  if (table.ramp_share != nullptr && ramped != table.candidates.end() && ramped->is_offered() &&
      TakesRamp(table.ramp_share->load(), table.salt, facts.sticky_key, draw)) {
    return Route{ramped->precision,
                 facts.sticky_key.empty() ? RouteReason::kSplit : RouteReason::kSticky};
  }
  if (table.has_split && !facts.sticky_key.empty()) {
    if (const auto* chosen = ChooseByKey(candidates, table.salt, facts.sticky_key))
      return Route{chosen->precision, RouteReason::kSticky};
  }
  if (table.has_split) {
    if (const auto* chosen = ChooseByDraw(candidates, draw))
      return Route{chosen->precision, RouteReason::kSplit};
  }
  if (const auto chosen = DefaultPrecision(table)) return Route{*chosen, RouteReason::kDefault};
  return MakeError(absl::StatusCode::kUnavailable,
                   "no precision of the model is ready, there are {}", ListOf(table));
}

}  // namespace octet
