#include "engine/engine.h"

namespace octet {

int64_t Certificate::total_macs() const {
  int64_t total = 0;
  for (const LayerRecord& layer : layers) total += layer.macs;
  return total;
}

std::map<std::string, double> Certificate::MacShare() const {
  std::map<std::string, double> share;
  const auto total = static_cast<double>(total_macs());
  if (total == 0) return share;
  for (const LayerRecord& layer : layers) {
    if (layer.macs > 0) share[layer.runs] += static_cast<double>(layer.macs) / total;
  }
  return share;
}

}  // namespace octet
