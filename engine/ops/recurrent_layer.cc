#include "engine/ops/recurrent_layer.h"

#include "engine/tensor/status.h"

namespace octet {

std::vector<std::string> DefaultActivations(CellKind kind) {
  switch (kind) {
    case CellKind::kLstm:
      return {"Sigmoid", "Tanh", "Tanh"};
    case CellKind::kGru:
      return {"Sigmoid", "Tanh"};
    case CellKind::kRnn:
      return {"Tanh"};
  }
  return {};
}

absl::StatusOr<RecurrentDirection> RecurrentDirectionOf(const Node& node) {
  OCTET_ASSIGN_OR_RETURN(const std::string name, node.attributes.String("direction", "forward"));
  if (name == "forward") return RecurrentDirection::kForward;
  if (name == "reverse") return RecurrentDirection::kReverse;
  if (name == "bidirectional") return RecurrentDirection::kBidirectional;
  return InvalidArgument("{}: unknown 'direction': '{}'", Describe(node), name);
}

absl::StatusOr<RecurrentLayer> ReadRecurrentLayer(const Node& node, CellKind kind, const Shape& x,
                                                  const Shape& r) {
  const Attributes& attributes = node.attributes;
  RecurrentLayer layer{.kind = kind};
  OCTET_ASSIGN_OR_RETURN(layer.direction, RecurrentDirectionOf(node));
  OCTET_ASSIGN_OR_RETURN(const int64_t layout, attributes.Int("layout", 0));
  OCTET_ASSIGN_OR_RETURN(layer.clip, attributes.Float("clip", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t couple, attributes.Int("input_forget", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t linear, attributes.Int("linear_before_reset", 0));
  OCTET_ASSIGN_OR_RETURN(
      layer.activations,
      ReadActivations(node, DefaultActivations(kind), static_cast<size_t>(layer.directions())));
  layer.batch_first = layout != 0;
  layer.time = x[layout == 0 ? 0 : 1];
  layer.batch = x[layout == 0 ? 1 : 0];
  layer.inputs = x[2];
  layer.hidden = r[2];
  layer.couple_input_forget = couple != 0;
  layer.linear_before_reset = linear != 0;
  return layer;
}

}  // namespace octet
