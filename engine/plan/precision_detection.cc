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

}  // namespace

absl::StatusOr<Precision> DetectPrecision(const Graph& graph) {
  if (const auto found = graph.metadata.find("octet.precision"); found != graph.metadata.end()) {
    if (const std::optional<Precision> precision = ParsePrecision(found->second)) return *precision;
    return InvalidArgument("metadata octet.precision: unknown precision '{}'", found->second);
  }
  bool quantized = false;
  bool integer = false;
  bool f16 = false;
  bool bf16 = false;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    quantized |= IsQuantizedOperator(node);
    integer |= IsIntegerOperator(node);
    if (!node.is("Cast") || node.input(0) == kNone) continue;
    const Value& value = graph.value(node.inputs[0]);
    f16 |= value.is_constant() && value.dtype == DType::kF16;
    bf16 |= value.is_constant() && value.dtype == DType::kBF16;
  }
  if (integer) return Precision::kInt8Dynamic;
  if (quantized) return Precision::kInt8;
  if (bf16) return Precision::kBf16;
  if (f16) return Precision::kFp16;
  return Precision::kFp32;
}

}  // namespace octet
