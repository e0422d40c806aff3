#include "server/routing/shadow.h"

namespace octet {

bool Compares(const ModelConfig::Routing::Shadow& rule, Precision answered) {
  return answered != rule.precision && (!rule.against || answered == *rule.against);
}

bool WantsCopy(const ModelConfig::Routing::Shadow& rule, const ShadowFacts& facts) {
  return Compares(rule, facts.answered) && facts.draw * 100 < rule.percent;
}

}  // namespace octet
