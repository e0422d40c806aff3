#include "engine/ops/recurrent_activation.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <variant>

#include "engine/tensor/status.h"

namespace octet {
namespace {

using Kind = RecurrentActivation::Kind;

/// An activation's name, and the defaults of the parameters that it takes.
struct Named {
  std::string_view name;
  Kind kind;
  std::optional<float> alpha;
  std::optional<float> beta;
};
constexpr Named kNamed[] = {
    {"relu", Kind::kRelu, {}, {}},
    {"tanh", Kind::kTanh, {}, {}},
    {"sigmoid", Kind::kSigmoid, {}, {}},
    {"affine", Kind::kAffine, 1.0f, 0.0f},
    {"leakyrelu", Kind::kLeakyRelu, 0.01f, {}},
    {"thresholdedrelu", Kind::kThresholdedRelu, 1.0f, {}},
    {"scaledtanh", Kind::kScaledTanh, 1.0f, 1.0f},
    {"hardsigmoid", Kind::kHardSigmoid, 0.2f, 0.5f},
    {"elu", Kind::kElu, 1.0f, {}},
    {"softsign", Kind::kSoftsign, {}, {}},
    {"softplus", Kind::kSoftplus, {}, {}},
};

const Named& Find(Kind kind) { return *std::ranges::find(kNamed, kind, &Named::kind); }

/// Takes the next given parameter, or the default.
float Next(const std::vector<float>& given, size_t& used, float fallback) {
  return used < given.size() ? given[used++] : fallback;
}

}  // namespace

std::string_view RecurrentActivation::name() const { return Find(kind).name; }
bool RecurrentActivation::takes_alpha() const { return Find(kind).alpha.has_value(); }
bool RecurrentActivation::takes_beta() const { return Find(kind).beta.has_value(); }

absl::StatusOr<std::vector<RecurrentActivation>> ReadActivations(
    const Node& node, const std::vector<std::string>& defaults, size_t directions) {
  OCTET_ASSIGN_OR_RETURN(const auto alphas, node.attributes.Floats("activation_alpha", {}));
  OCTET_ASSIGN_OR_RETURN(const auto betas, node.attributes.Floats("activation_beta", {}));
  std::vector<std::string> names;
  for (size_t d = 0; d < directions; ++d)
    names.insert(names.end(), defaults.begin(), defaults.end());
  const size_t expected = names.size();
  for (const auto& [name, value] : node.attributes) {
    if (name != "activations") continue;
    const auto* strings = std::get_if<std::vector<std::string>>(&value);
    if (strings == nullptr)
      return InvalidArgument("{}: 'activations' is no list of names", Describe(node));
    names = *strings;
  }
  if (names.size() != expected) {
    return InvalidArgument("{}: 'activations' has {} names, expected {}", Describe(node),
                           names.size(), expected);
  }
  std::vector<RecurrentActivation> activations;
  size_t alphas_used = 0;
  size_t betas_used = 0;
  for (std::string name : names) {
    std::ranges::transform(name, name.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const auto* named = std::ranges::find(kNamed, name, &Named::name);
    if (named == std::end(kNamed))
      return InvalidArgument("{}: unknown activation '{}'", Describe(node), name);
    RecurrentActivation activation{named->kind};
    if (named->alpha) activation.alpha = Next(alphas, alphas_used, *named->alpha);
    if (named->beta) activation.beta = Next(betas, betas_used, *named->beta);
    activations.push_back(activation);
  }
  return activations;
}

}  // namespace octet
