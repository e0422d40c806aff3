#include "server/repository/catalogue.h"

#include <algorithm>
#include <charconv>
#include <ranges>

#include "engine/tensor/status.h"

namespace octet {
namespace {

using VersionPointer = std::shared_ptr<const ModelVersion>;

/// The number that a version is asked for by: itself, or a label.
absl::StatusOr<int64_t> ParseVersion(const CatalogueModel& model, std::string_view text) {
  int64_t number = 0;
  const char* begin = text.data();
  const char* end = begin + text.size();
  const auto [stop, error] = std::from_chars(begin, end, number);
  if (error == std::errc() && stop == end && number >= 1) return number;
  if (const auto label = model.labels.find(text); label != model.labels.end()) return label->second;
  std::string labels;
  for (const auto& [label, unused] : model.labels) labels += Format(", '{}'", label);
  return InvalidArgument(
      "model version: expected a positive integer, a precision{} or nothing, got '{}'", labels,
      text);
}

absl::Status NotReady(std::string_view model, std::string_view what, std::string_view reason) {
  return MakeError(absl::StatusCode::kUnavailable, "Model is not ready ({}): '{}'{}",
                   reason.empty() ? "no reason known" : reason, model, what);
}

absl::StatusOr<const CatalogueModel*> FindModel(const Catalogue& catalogue,
                                                std::string_view model) {
  const auto found = catalogue.models.find(model);
  if (found != catalogue.models.end()) return found->second.get();
  if (!catalogue.complete) return NotReady(model, "", "the server is starting");
  return NotFound("Request for unknown model: '{}'", model);
}

absl::StatusOr<VersionPointer> FindVersion(const CatalogueModel& model, std::string_view name,
                                           std::string_view version) {
  OCTET_ASSIGN_OR_RETURN(const int64_t number, ParseVersion(model, version));
  const auto found = model.versions.find(number);
  if (found == model.versions.end()) {
    if (!model.problem.empty()) return NotReady(name, "", model.problem);
    return NotFound("Request for unknown model: '{}' has no version {}", name, number);
  }
  if (found->second.state == VersionState::kReady) return found->second.served;
  return NotReady(name, Format(" version {}", number), found->second.reason);
}

absl::StatusOr<VersionPointer> FindHighest(const CatalogueModel& model, std::string_view name) {
  for (const CatalogueVersion& version :
       model.versions | std::views::values | std::views::reverse) {
    if (version.state == VersionState::kReady) return version.served;
  }
  if (model.versions.empty()) return NotReady(name, "", model.problem);
  const auto& [number, highest] = *model.versions.rbegin();
  return NotReady(name, Format(" version {}", number), highest.reason);
}

/// The same for requests that no share takes: of a version that comes in by a ramp only when nobody else can.
absl::StatusOr<VersionPointer> FindRest(const CatalogueModel& model, std::string_view name) {
  for (const auto& [number, version] : model.versions | std::views::reverse) {
    const bool ramped = model.ramp != nullptr && model.ramp->rules().version == number;
    if (version.state == VersionState::kReady && !ramped) return version.served;
  }
  return FindHighest(model, name);
}

/// It is ready, in the precision if one is asked for.
bool Answers(const CatalogueVersion& version, std::optional<Precision> precision) {
  if (version.state != VersionState::kReady) return false;
  if (!precision) return true;
  const ServedVariant* variant = version.served->Find(*precision);
  return variant != nullptr && variant->ready();
}

void AppendReady(const CatalogueModel& model, std::vector<VersionPointer>& list) {
  for (const CatalogueVersion& version : model.versions | std::views::values) {
    if (version.state == VersionState::kReady) list.push_back(version.served);
  }
}

}  // namespace

VersionState CatalogueVersion::StateNow() const {
  if (state != VersionState::kUnavailable) return state;
  const bool held =
      std::ranges::any_of(leaving, [](const auto& queue) { return !queue.expired(); });
  return held ? VersionState::kUnloading : state;
}

absl::StatusOr<VersionPointer> Catalogue::Find(std::string_view model,
                                               std::string_view version) const {
  OCTET_ASSIGN_OR_RETURN(const CatalogueModel* found, FindModel(*this, model));
  const bool any = version.empty() || ParsePrecision(version);
  return any ? FindHighest(*found, model) : FindVersion(*found, model, version);
}

absl::StatusOr<VersionPointer> Catalogue::FindShare(std::string_view model,
                                                    const RouteFacts& request) const {
  OCTET_ASSIGN_OR_RETURN(const CatalogueModel* found, FindModel(*this, model));
  const auto precision = ParsePrecision(request.precision);
  double draw = request.draw;
  if (found->ramp != nullptr) {
    const auto ramped = found->versions.find(*found->ramp->rules().version);
    if (ramped != found->versions.end() && Answers(ramped->second, precision) &&
        TakesRamp(found->ramp->share(), found->salt, request.sticky_key, draw)) {
      return ramped->second.served;
    }
  }
  std::span<const VersionShare> shares = found->shares;
  std::vector<VersionShare> having;
  if (precision) {
    for (const VersionShare& share : shares) {
      if (Answers(found->versions.at(share.number), precision)) having.push_back(share);
    }
    shares = having;
  }
  const auto number = ChooseVersion(shares, found->salt, request.sticky_key, draw);
  if (!number) return FindRest(*found, model);
  // Where some do not have the precision the rest is drawn by other shares, which these could not be held to.
  if (request.is_drawn && shares.size() == found->shares.size()) {
    found->version_experiment->Count(*number, !request.sticky_key.empty());
  }
  return found->versions.at(*number).served;
}

absl::StatusOr<std::vector<VersionPointer>> Catalogue::List(std::string_view model,
                                                            std::string_view version) const {
  std::vector<VersionPointer> list;
  if (model.empty()) {
    for (const auto& entry : models | std::views::values) AppendReady(*entry, list);
    return list;
  }
  OCTET_ASSIGN_OR_RETURN(const VersionPointer one, Find(model, version));
  if (!version.empty()) return std::vector{one};
  AppendReady(*models.find(model)->second, list);
  return list;
}

std::vector<IndexEntry> Catalogue::Index(bool ready_only) const {
  std::vector<IndexEntry> rows;
  for (const auto& [name, model] : models) {
    if (model->versions.empty() && !ready_only) {
      rows.push_back({name, "", VersionState::kUnavailable, model->problem});
    }
    for (const auto& [number, version] : model->versions) {
      const VersionState state = version.StateNow();
      if (ready_only && state != VersionState::kReady) continue;
      rows.push_back({name, std::to_string(number), state, version.reason});
    }
  }
  return rows;
}

std::vector<VersionExperimentFacts> Catalogue::VersionExperiments(std::string_view model) const {
  std::vector<VersionExperimentFacts> list;
  for (const auto& [name, entry] : models) {
    if (entry->shares.empty() || (!model.empty() && name != model)) continue;
    list.push_back(entry->version_experiment->Read());
  }
  return list;
}

std::string_view VersionStateName(VersionState state) {
  switch (state) {
    case VersionState::kUnavailable:
      return "UNAVAILABLE";
    case VersionState::kLoading:
      return "LOADING";
    case VersionState::kReady:
      return "READY";
    case VersionState::kUnloading:
      return "UNLOADING";
  }
  return "UNKNOWN";
}

}  // namespace octet
