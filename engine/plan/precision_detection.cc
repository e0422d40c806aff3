#include "engine/plan/precision_detection.h"

#include <algorithm>
#include <array>

#include "engine/tensor/status.h"

namespace octet {
namespace {

bool IsQuantizedOperator(const Node& node) {
  return node.op == "QuantizeLinear" || node.op == "DequantizeLinear" ||
         node.op.starts_with("QLinear") || node.is("QGemm", kMicrosoftDomain) ||
         node.is("QAttention", kMicrosoftDomain);
}

bool IsIntegerOperator(const Node& node) {
  return node.op == "ConvInteger" || node.op.starts_with("MatMulInteger") ||
         node.is("DynamicQuantizeMatMul", kMicrosoftDomain) ||
         node.is("DynamicQuantizeLSTM", kMicrosoftDomain);
}

// Reals by how they are stored; those of more bits than F32 are none of them.
struct RealElements {
  int64_t f32 = 0;
  int64_t f16 = 0;
  int64_t bf16 = 0;

  void Add(DType dtype, int64_t count) {
    if (dtype == DType::kF32) f32 += count;
    if (dtype == DType::kF16) f16 += count;
    if (dtype == DType::kBF16) bf16 += count;
  }
};

RealElements RealsOfConstants(const Graph& graph) {
  RealElements elements;
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    const Value& value = graph.value(id);
    if (value.is_constant() && !graph.consumers(id).empty())
      elements.Add(value.dtype, value.constant.elements());
  }
  // Written as nodes.
  for (const NodeId id : graph.order()) {
    if (!graph.node(id).is("Constant")) continue;
    const absl::StatusOr<const Tensor*> tensor = graph.node(id).attributes.TensorOrNull("value");
    if (tensor.ok() && *tensor != nullptr) elements.Add((*tensor)->dtype(), (*tensor)->elements());
  }
  return elements;
}

// Of a graph without constants; each input counts as one.
RealElements RealsOfInputs(const Graph& graph) {
  RealElements elements;
  for (const ValueId id : graph.inputs) elements.Add(graph.value(id).dtype, 1);
  return elements;
}

}  // namespace

absl::StatusOr<Precision> DetectPrecision(const Graph& graph) {
  if (const auto found = graph.metadata.find("octet.precision"); found != graph.metadata.end()) {
    if (const std::optional<Precision> precision = ParsePrecision(found->second)) return *precision;
    return InvalidArgument("metadata octet.precision: unknown precision '{}'", found->second);
  }
  bool quantized = false;
  bool integer = false;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    quantized |= IsQuantizedOperator(node);
    integer |= IsIntegerOperator(node);
  }
  if (integer) return Precision::kInt8Dynamic;
  if (quantized) return Precision::kInt8;
  RealElements elements = RealsOfConstants(graph);
  if (elements.f32 + elements.f16 + elements.bf16 == 0) elements = RealsOfInputs(graph);
  if (elements.f16 + elements.bf16 <= elements.f32) return Precision::kFp32;
  return elements.bf16 > elements.f16 ? Precision::kBf16 : Precision::kFp16;
}

}  // namespace octet
