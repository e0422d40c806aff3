#include "engine/ops/int_operands.h"

#include <algorithm>

#include "engine/ops/infer_rules.h"
#include "engine/tensor/status.h"

namespace octet {

absl::StatusOr<IntsOperand> ReadInts(const InferContext& context, std::string_view name, size_t i,
                                     int input_since) {
  IntsOperand operand;
  if (context.node().version < input_since) {
    operand.given = context.attributes().has(name);
    if (operand.given) {
      OCTET_ASSIGN_OR_RETURN(operand.values, context.attributes().Ints(name, {}));
    }
    return operand;
  }
  operand.given = context.has_input(i);
  if (!operand.given) return operand;
  OCTET_RETURN_IF_ERROR(ExpectDType(context, i, kIndexTypes));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, i, 0, 1));
  operand.values = context.ConstantInts(i);
  return operand;
}

absl::StatusOr<IntsOperand> ReadInts(const Node& node, std::span<const ConstTensorView> inputs,
                                     std::string_view name, size_t i, int input_since) {
  IntsOperand operand;
  if (node.version < input_since) {
    operand.given = node.attributes.has(name);
    if (operand.given) {
      OCTET_ASSIGN_OR_RETURN(operand.values, node.attributes.Ints(name, {}));
    }
    return operand;
  }
  operand.given = node.input(i) != kNone;
  if (operand.given && inputs[i].data != nullptr) operand.values = ToInts(inputs[i]);
  return operand;
}

std::vector<int64_t> ToInts(ConstTensorView view) {
  if (view.dtype() == DType::kI32) {
    const auto values = view.span<int32_t>();
    return {values.begin(), values.end()};
  }
  const auto values = view.span<int64_t>();
  return {values.begin(), values.end()};
}

absl::StatusOr<int> NormalizeNodeAxis(const Node& node, int64_t axis, int rank) {
  if (const auto normal = NormalizeAxis(axis, rank)) return *normal;
  return InvalidArgument("{}: axis is outside [-{}, {}): {}", Describe(node), rank, rank, axis);
}

absl::StatusOr<std::vector<int>> NormalizeNodeAxes(const Node& node, std::span<const int64_t> axes,
                                                   int rank) {
  std::vector<int> result;
  for (const int64_t axis : axes) {
    OCTET_ASSIGN_OR_RETURN(const int normal, NormalizeNodeAxis(node, axis, rank));
    if (std::ranges::contains(result, normal)) {
      return InvalidArgument("{}: an axis appears twice: {}", Describe(node), axis);
    }
    result.push_back(normal);
  }
  return result;
}

std::optional<Shape> UnknownShape(int64_t rank) {
  if (rank < 0 || rank > kMaxRank) return std::nullopt;
  Shape shape;
  for (int64_t i = 0; i < rank; ++i) shape.push_back(kUnknownDim);
  return shape;
}

}  // namespace octet
