#include "server/http/certificate_json.h"

namespace octet {

nlohmann::ordered_json LayersAsJson(const Certificate& certificate) {
  nlohmann::ordered_json layers = nlohmann::json::array();
  for (const LayerRecord& layer : certificate.layers) {
    layers.push_back({{"name", layer.name},
                      {"op", layer.op},
                      {"requested", layer.requested},
                      {"runs", layer.runs},
                      {"impl", layer.impl},
                      {"isa", layer.isa},
                      {"macs", layer.macs},
                      {"reason", layer.reason}});
  }
  return layers;
}

}  // namespace octet
