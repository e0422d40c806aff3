#include "server/repository/model_version.h"

#include <algorithm>

namespace octet {

const ServedVariant* ModelVersion::Find(Precision precision) const {
  const auto found = std::ranges::find(variants, precision, &ServedVariant::precision);
  return found == variants.end() ? nullptr : &*found;
}

bool ModelVersion::ready() const {
  return pipeline != nullptr || std::ranges::any_of(variants, &ServedVariant::ready);
}

SequenceHome HomeOf(const std::shared_ptr<const ModelVersion>& version, const Route& route) {
  const ServedVariant& variant = *version->Find(route.precision);
  return {.version = version,
          .route = route,
          .model = variant.queue->target().model.get(),
          .layout = version->sequences->layout,
          .metrics = variant.sequence_metrics};
}

}  // namespace octet
