#include "engine/plan/team.h"

#include "engine/ops/reference_step.h"

namespace octet {
namespace {

constexpr int64_t kFloatMacs = 1'000'000;
/// Of bf16 and 8-bit values; fewer than a core makes of them at best, since short layers have few channels.
constexpr int64_t kNarrowMacs = 2'000'000;
/// Few multiply-adds for each element that is read: loading is what takes time.
constexpr int64_t kDepthwiseFactor = 4;
constexpr size_t kBytes = size_t{128} << 10;

bool IsDepthwise(const Graph& graph, const Node& node) {
  return node.is("Conv") && graph.value(node.input(1)).shape->rank() > 1 &&
         (*graph.value(node.input(1)).shape)[1] == 1;
}

size_t BytesOf(const Graph& graph, ValueId id) {
  if (id == kNone || graph.value(id).is_constant()) return 0;
  return TensorSpec{graph.value(id).dtype, *graph.value(id).shape}.bytes();
}

}  // namespace

bool IsWorthATeam(const Graph& graph, const Node& node) {
  int64_t macs = MultiplyAdds(graph, node);
  if (macs > 0) {
    if (IsDepthwise(graph, node)) macs *= kDepthwiseFactor;
    const bool wide = SizeOf(graph.value(node.input(0)).dtype) >= sizeof(float) &&
                      node.attributes.IntOr("dynamic_quant", 0) == 0;
    return macs >= (wide ? kFloatMacs : kNarrowMacs);
  }
  size_t bytes = 0;
  for (const ValueId id : node.inputs) bytes += BytesOf(graph, id);
  for (const ValueId id : node.outputs) bytes += BytesOf(graph, id);
  return bytes >= kBytes;
}

}  // namespace octet
