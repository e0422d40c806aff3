#include "engine/quantize/storage.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "engine/ops/onnx_dtype.h"
#include "engine/quantize/opset.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Half a step behind the largest finite number: what rounds to infinity.
constexpr float kHalfOverflows = 65520;
constexpr float kBfloatOverflows = 0x1.FFp127F;
// At most half of the least number above 0: what rounds to 0.
constexpr float kHalfVanishes = 0x1p-25F;

bool IsDivisor(const Graph& graph, ValueId id) {
  return std::ranges::any_of(graph.consumers(id), [&](NodeId reader) {
    return graph.node(reader).is("Div") && graph.node(reader).inputs[1] == id;
  });
}

// Why the constant stays in fp32, or nothing. Weights that vanish are far below the rounding error of the others, and lose nothing
// that counts; a divisor that vanishes answers infinity.
std::string ReasonToKeep(const Graph& graph, ValueId id, DType dtype) {
  const float overflows = dtype == DType::kF16 ? kHalfOverflows : kBfloatOverflows;
  const bool divisor = dtype == DType::kF16 && IsDivisor(graph, id);
  for (const float x : graph.value(id).constant.span<float>()) {
    const float magnitude = std::abs(x);
    if (std::isfinite(x) && magnitude >= overflows)
      return Format("fp32: elements beyond {} would be infinite", overflows);
    if (divisor && magnitude > 0 && magnitude <= kHalfVanishes)
      return Format("fp32: divisors up to {} would be 0", kHalfVanishes);
  }
  return {};
}

}  // namespace

absl::StatusOr<QuantizeResult> StoreWeightsAs(Graph graph, DType dtype) {
  QuantizeResult result;
  const int version = OnnxOpset(graph);
  const int count = graph.value_count();
  for (ValueId id = 0; id < count; ++id) {
    const Value& value = graph.value(id);
    if (!value.is_constant() || value.constant.dtype() != DType::kF32 ||
        value.constant.elements() < 2)
      continue;
    if (graph.consumers(id).empty()) continue;
    if (std::string reason = ReasonToKeep(graph, id, dtype); !reason.empty()) {
      result.records.push_back({value.name, "kept", std::move(reason)});
      continue;
    }
    Tensor stored(dtype, value.constant.shape());
    ConvertTensor(value.constant.view(), stored.mutable_view());
    result.records.push_back({value.name, "weights", std::string(DTypeName(dtype))});
    // Adding values invalidates references to them.
    const std::string name = value.name;
    const std::optional<Shape> shape = value.shape;
    const ValueId narrow =
        graph.AddConstant(name + "_" + std::string(DTypeName(dtype)), std::move(stored));
    const NodeId first = graph.order().front();
    const ValueId widened = graph.AddValue(
        {.name = graph.UniqueName(name + "_fp32"), .dtype = DType::kF32, .shape = shape});
    graph.ReplaceUses(id, widened);
    Node cast{.name = graph.value(widened).name,
              .op = "Cast",
              .version = version,
              .inputs = {narrow},
              .outputs = {widened}};
    cast.attributes.Set("to", kOnnxFloat);
    graph.InsertNodeBefore(first, std::move(cast));
  }
  if (result.records.empty())
    return InvalidArgument("the model has no fp32 weights to store as {}", DTypeName(dtype));
  graph.RemoveDead();
  result.graph = std::move(graph);
  return result;
}

}  // namespace octet
