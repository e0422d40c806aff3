#include "server/repository/model_version.h"

#include <algorithm>

namespace octet {

const ServedVariant* ModelVersion::Find(Precision precision) const {
  const auto found = std::ranges::find(variants, precision, &ServedVariant::precision);
  return found == variants.end() ? nullptr : &*found;
}

bool ModelVersion::ready() const { return std::ranges::any_of(variants, &ServedVariant::ready); }

}  // namespace octet
