#include "engine/plan/cut.h"

#include <algorithm>

#include "engine/ops/op.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

class Cutter {
 public:
  explicit Cutter(Graph& graph) : graph_(graph), values_(graph.value_count()) {}

  absl::StatusOr<std::vector<Stage>> Cut() {
    for (const NodeId id : graph_.OrderSnapshot()) OCTET_RETURN_IF_ERROR(Place(id));
    for (const ValueId output : graph_.outputs) PlaceWeights(output, 0);
    return std::move(stages_);
  }

 private:
  // The first stage whose segment, and whose host nodes, may read a value.
  struct Ready {
    size_t segment = 0;
    size_t host = 0;
    int folds_in = kNone;  // The stage in whose segment it is a constant once shapes are known.
  };

  absl::Status Place(NodeId id) {
    const OpDef* def = FindOp(graph_.node(id));
    if (def == nullptr) return UnsupportedOperator(graph_.node(id));
    if (IsOfConstants(graph_.node(id))) return absl::OkStatus();
    const size_t stage = Earliest(id, &Ready::segment);
    OCTET_ASSIGN_OR_RETURN(const bool host, IsHost(id, *def, stage));
    if (host) {
      const size_t at = Earliest(id, &Ready::host);
      for (const ValueId input : graph_.node(id).inputs) PlaceWeights(input, 0);
      StageAt(at).host.push_back(id);
      SetReady(id, {at + 1, at, kNone});
    } else {
      for (const ValueId input : graph_.node(id).inputs) PlaceWeights(input, stage);
      StageAt(stage).segment.push_back(id);
      const bool folds = Folds(graph_.node(id), *def, stage);
      SetReady(id, {stage, stage, folds ? static_cast<int>(stage) : kNone});
    }
    return absl::OkStatus();
  }

  // Weights, which a layer takes as integers if they are made in its own segment.
  bool IsOfConstants(const Node& node) const {
    return node.is("DequantizeLinear") && std::ranges::all_of(node.inputs, [&](ValueId id) {
             return id == kNone || graph_.value(id).is_constant();
           });
  }

  // In the segment of each stage that reads them.
  void PlaceWeights(ValueId value, size_t stage) {
    const NodeId producer = value == kNone ? kNone : graph_.producer(value);
    if (producer == kNone || !IsOfConstants(graph_.node(producer))) return;
    std::vector<NodeId>& segment = StageAt(stage).segment;
    if (!std::ranges::contains(segment, producer)) segment.push_back(producer);
  }

  Stage& StageAt(size_t i) {
    if (i >= stages_.size()) stages_.resize(i + 1);
    return stages_[i];
  }

  size_t Earliest(NodeId id, size_t Ready::* ready) const {
    size_t earliest = 0;
    for (const ValueId input : graph_.node(id).inputs) {
      if (input != kNone) earliest = std::max(earliest, values_[input].*ready);
    }
    return earliest;
  }

  void SetReady(NodeId id, Ready ready) {
    for (const ValueId output : graph_.node(id).outputs) {
      if (output != kNone) values_[output] = ready;
    }
  }

  absl::StatusOr<bool> IsHost(NodeId id, const OpDef& def, size_t stage) {
    const Node& node = graph_.node(id);
    if (def.kernel == nullptr || HasOtherKinds(node) || TouchesStrings(graph_, node)) return true;
    OCTET_ASSIGN_OR_RETURN(const uint64_t asked, InputsThatDecideShapes(graph_, id));
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if ((asked >> (i % 64) & 1) == 0 || node.inputs[i] == kNone) continue;
      if (!FoldsIn(node.inputs[i], stage)) return true;
    }
    return false;
  }

  bool HasOtherKinds(const Node& node) const {
    const auto other = [&](ValueId id) { return id != kNone && !graph_.value(id).is_tensor(); };
    return std::ranges::any_of(node.inputs, other) || std::ranges::any_of(node.outputs, other);
  }

  bool FoldsIn(ValueId id, size_t stage) const {
    return graph_.value(id).is_constant() || values_[id].folds_in == static_cast<int>(stage);
  }

  // fold_constants will make constants of its outputs.
  bool Folds(const Node& node, const OpDef& def, size_t stage) const {
    if (def.traits.no_fold || node.is("DequantizeLinear")) return false;
    if (node.is("Shape") || node.is("Size")) return true;
    return std::ranges::all_of(node.inputs,
                               [&](ValueId id) { return id == kNone || FoldsIn(id, stage); });
  }

  Graph& graph_;
  std::vector<Ready> values_;
  std::vector<Stage> stages_;
};

}  // namespace

absl::StatusOr<std::vector<Stage>> CutIntoStages(Graph& graph) { return Cutter(graph).Cut(); }

absl::StatusOr<bool> NeedsStages(Graph& graph) {
  OCTET_ASSIGN_OR_RETURN(const std::vector<Stage> stages, CutIntoStages(graph));
  const auto strings = [&](ValueId id) { return graph.value(id).dtype == DType::kString; };
  return std::ranges::any_of(stages, [](const Stage& stage) { return !stage.host.empty(); }) ||
         std::ranges::any_of(graph.inputs, strings) || std::ranges::any_of(graph.outputs, strings);
}

}  // namespace octet
