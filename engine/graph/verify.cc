// The invariants of a graph, checked after reading and after every pass.
#include <algorithm>
#include <cmath>
#include <format>
#include <utility>
#include <vector>

#include "engine/graph/graph.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

class Verifier {
 public:
  explicit Verifier(const Graph& graph) : graph_(graph) {}

  absl::Status Run() {
    if (absl::Status s = CheckOrder(); !s.ok()) return s;
    for (const NodeId id : graph_.order()) {
      if (absl::Status s = CheckNode(id); !s.ok()) return s;
    }
    for (ValueId id = 0; id < graph_.value_count(); ++id) {
      if (absl::Status s = CheckValue(id); !s.ok()) return s;
    }
    if (absl::Status s = CheckConsumers(); !s.ok()) return s;
    return CheckInterface();
  }

 private:
  template <typename... Args>
  absl::Status NodeError(NodeId id, std::format_string<Args...> format, Args&&... args) const {
    return Internal("broken graph at {}: {}", Describe(graph_.node(id)),
                    Format(format, std::forward<Args>(args)...));
  }
  template <typename... Args>
  absl::Status ValueError(ValueId id, std::format_string<Args...> format, Args&&... args) const {
    return Internal("broken graph at value '{}': {}", graph_.value(id).name,
                    Format(format, std::forward<Args>(args)...));
  }

  bool IsValue(ValueId id) const { return id >= 0 && id < graph_.value_count(); }
  bool IsDefined(ValueId id) const {
    return graph_.producer(id) != kNone || graph_.value(id).is_constant() ||
           graph_.is_graph_input(id);
  }

  // Every node of order() is alive and listed once; remembers where.
  absl::Status CheckOrder() {
    for (size_t i = 0; i < graph_.order().size(); ++i) {
      const NodeId id = graph_.order()[i];
      if (id < 0) return Internal("broken graph: node id {}", id);
      if (static_cast<size_t>(id) >= position_.size()) position_.resize(id + 1, kNone);
      if (!graph_.alive(id)) return NodeError(id, "removed, but still in the order");
      if (position_[id] != kNone) return NodeError(id, "twice in the order");
      position_[id] = static_cast<int>(i);
    }
    return absl::OkStatus();
  }

  absl::Status CheckNode(NodeId id) {
    const Node& node = graph_.node(id);
    for (const ValueId input : node.inputs) {
      if (input == kNone) continue;
      if (!IsValue(input)) return NodeError(id, "input id out of range: {}", input);
      if (!IsDefined(input)) {
        return NodeError(id, "reads a value that nothing defines: {}", graph_.value(input).name);
      }
      const NodeId from = graph_.producer(input);
      if (from != kNone && PositionOf(from) >= position_[id]) {
        return NodeError(id, "comes before the producer of its input {}", graph_.value(input).name);
      }
      reads_.emplace_back(input, id);
    }
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const ValueId output = node.outputs[i];
      if (output == kNone) continue;
      if (!IsValue(output)) return NodeError(id, "output id out of range: {}", output);
      if (graph_.producer(output) != id) {
        return NodeError(id, "is not the producer of its output {}", graph_.value(output).name);
      }
      if (std::count(node.outputs.begin(), node.outputs.end(), output) != 1) {
        return NodeError(id, "has the same output twice: {}", graph_.value(output).name);
      }
    }
    return CheckPostOps(id, node);
  }

  absl::Status CheckPostOps(NodeId id, const Node& node) const {
    for (const PostOp& post_op : node.post_ops) {
      if (post_op.kind != PostOp::Kind::kAdd && post_op.kind != PostOp::Kind::kMul) continue;
      if (post_op.operand < 0 || node.input(post_op.operand) == kNone) {
        return NodeError(id, "post-op {} has no operand at input {}", PostOpName(post_op.kind),
                         post_op.operand);
      }
    }
    return absl::OkStatus();
  }

  int PositionOf(NodeId id) const {
    return id >= 0 && static_cast<size_t>(id) < position_.size() ? position_[id] : kNone;
  }

  absl::Status CheckValue(ValueId id) const {
    const Value& value = graph_.value(id);
    if (const NodeId from = graph_.producer(id); from != kNone) {
      if (PositionOf(from) == kNone) return ValueError(id, "its producer is not in the order");
      const std::vector<ValueId>& made = graph_.node(from).outputs;
      if (std::ranges::find(made, id) == made.end()) {
        return ValueError(id, "its producer does not list it: {}", Describe(graph_.node(from)));
      }
      if (value.is_constant()) return ValueError(id, "is a constant and has a producer");
      if (graph_.is_graph_input(id)) return ValueError(id, "is a graph input and has a producer");
    }
    if (value.shape) {
      for (const int64_t d : value.shape->dims()) {
        if (d < kUnknownDim)
          return ValueError(id, "negative extent in {}", value.shape->ToString());
      }
    }
    if (value.is_constant()) {
      if (value.dtype != value.constant.dtype()) {
        return ValueError(id, "type differs from its constant's: {} against {}",
                          DTypeName(value.dtype), DTypeName(value.constant.dtype()));
      }
      if (!value.shape || *value.shape != value.constant.shape()) {
        return ValueError(id, "shape differs from its constant's: {} against {}",
                          value.shape ? value.shape->ToString() : "unknown",
                          value.constant.shape().ToString());
      }
    }
    return value.quant ? CheckQuant(id, value, *value.quant) : absl::OkStatus();
  }

  absl::Status CheckQuant(ValueId id, const Value& value, const QuantParams& quant) const {
    if (!IsInt8(value.dtype) && value.dtype != DType::kI32) {
      return ValueError(id, "has scales, but its type is {}", DTypeName(value.dtype));
    }
    if (quant.scales.size() != quant.zero_points.size()) {
      return ValueError(id, "scales and zero points differ in number: {} and {}",
                        quant.scales.size(), quant.zero_points.size());
    }
    if (quant.per_tensor()) {
      if (quant.scales.size() != 1) {
        return ValueError(id, "one scale expected per tensor, got {}", quant.scales.size());
      }
    } else if (quant.axis < 0 || (value.shape && quant.axis >= value.shape->rank())) {
      return ValueError(id, "scales run along an axis that it does not have: {}", quant.axis);
    } else if (value.shape) {
      const int64_t extent = (*value.shape)[quant.axis];
      if (extent != kUnknownDim && extent != static_cast<int64_t>(quant.scales.size())) {
        return ValueError(id, "number of scales differs from the extent of axis {}: {} against {}",
                          quant.axis, quant.scales.size(), extent);
      }
    }
    for (const float scale : quant.scales) {
      if (!std::isfinite(scale) || scale <= 0) {
        return ValueError(id, "scale is not positive and finite: {}", scale);
      }
    }
    if (IsInt8(value.dtype)) {
      const IntRange range = RangeOf(value.dtype);
      for (const int32_t zero_point : quant.zero_points) {
        if (zero_point < range.min || zero_point > range.max) {
          return ValueError(id, "zero point outside its type: {}", zero_point);
        }
      }
    }
    return absl::OkStatus();
  }

  // The edges seen from the nodes and from the values are the same multiset.
  absl::Status CheckConsumers() {
    std::vector<std::pair<ValueId, NodeId>> listed;
    for (ValueId id = 0; id < graph_.value_count(); ++id) {
      for (const NodeId reader : graph_.consumers(id)) listed.emplace_back(id, reader);
    }
    std::ranges::sort(listed);
    std::ranges::sort(reads_);
    const auto [read, list] = std::ranges::mismatch(reads_, listed);
    if (read != reads_.end() && (list == listed.end() || *read < *list)) {
      return ValueError(read->first, "does not list its reader {}",
                        Describe(graph_.node(read->second)));
    }
    if (list != listed.end()) {
      return ValueError(list->first, "lists a reader that does not read it: node id {}",
                        list->second);
    }
    return absl::OkStatus();
  }

  absl::Status CheckInterface() const {
    for (const ValueId id : graph_.inputs) {
      if (!IsValue(id)) return Internal("graph input out of range: {}", id);
      if (graph_.value(id).is_constant()) return ValueError(id, "is a graph input and a constant");
      if (std::ranges::count(graph_.inputs, id) != 1) return ValueError(id, "is an input twice");
    }
    for (const ValueId id : graph_.outputs) {
      if (!IsValue(id)) return Internal("graph output out of range: {}", id);
      if (!IsDefined(id)) return ValueError(id, "is a graph output that nothing defines");
    }
    return absl::OkStatus();
  }

  const Graph& graph_;
  std::vector<int> position_;  // Node id -> index in order(), kNone when not there.
  std::vector<std::pair<ValueId, NodeId>> reads_;
};

}  // namespace

absl::Status Verify(const Graph& graph) { return Verifier(graph).Run(); }

}  // namespace octet
