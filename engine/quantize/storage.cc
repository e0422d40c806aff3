#include "engine/quantize/storage.h"

#include <cmath>

#include "engine/ops/onnx_dtype.h"
#include "engine/quantize/opset.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr float kLargestHalf = 65504.0f;

bool Overflows(const Tensor& tensor, DType dtype) {
  if (dtype != DType::kF16) return false;
  for (const float x : tensor.span<float>()) {
    if (std::isfinite(x) && std::abs(x) > kLargestHalf) return true;
  }
  return false;
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
    if (Overflows(value.constant, dtype)) {
      result.records.push_back(
          {value.name, "kept", Format("fp32: elements beyond {}", kLargestHalf)});
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
