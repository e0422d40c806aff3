// A model whose shapes follow from its data, or that has control flow or sequences: segments with host nodes between them.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/engine.h"
#include "engine/ops/control.h"
#include "engine/ops/op.h"
#include "engine/plan/segment.h"

namespace octet {

/// What one run of a model may use up, its sub-graphs' runs included.
struct ProgramRun {
  Workspace& workspace;
  int64_t iterations_left = 0;  ///< Of all loops together.
  uint64_t max_bytes = 0;       ///< Of one value.
  RunLimits limits = {};
};

class Program;
/// A body, or why it cannot run: of a branch that does not fit the shapes, which matters when it is taken.
using ProgramOrError = absl::StatusOr<std::unique_ptr<const Program>>;

/// Immutable but for the plans that its segments cache; run by several threads, each with a Workspace of its own.
class Program {
 public:
  /// Runs the passes that come before the cut, cuts the graph, compiles the segments whose shapes are known, and does the
  /// same with every sub-graph.
  /// Errors: as InferShapes and CompilePlan.
  static absl::StatusOr<std::unique_ptr<const Program>> Make(
      Graph graph, std::shared_ptr<const ProgramContext> context);

  /// Answers one datum per graph output. Inputs in the order of graph.inputs.
  /// Errors, naming the node: INVALID_ARGUMENT for data that a node does not take; RESOURCE_EXHAUSTED for loops without end
  /// and values without measure.
  absl::StatusOr<std::vector<Datum>> Run(ProgramRun& run, std::vector<Datum> inputs) const;

  const Graph& graph() const { return graph_; }
  /// Plans that its segments and its sub-graphs' hold.
  int plan_count() const;
  /// The layers of all segments and host nodes, in order, sub-graphs included. What is not compiled yet is there without
  /// what will run.
  void AppendLayers(std::vector<LayerRecord>& layers) const;
  /// A row per row of AppendLayers; zeros for what runs outside plans, or is compiled when it runs.
  absl::Status AppendTimes(Workspace& workspace, int repeats, std::vector<LayerTime>& times) const;
  /// The plans that were compiled in advance, sub-graphs included.
  void AppendPlans(std::vector<std::shared_ptr<const Plan>>& plans) const;

 private:
  struct SegmentUse {
    std::unique_ptr<const Segment> segment;
    std::shared_ptr<const Plan> in_advance;  // Null when its shapes are not known.
    std::vector<ValueId> inputs;             // Of the program's graph, in the segment's order.
    std::vector<ValueId> outputs;
  };
  struct HostNode {
    NodeId id;
    const OpDef* def;
    uint64_t constants =
        0;  // Inputs of an interpreted node that are constants when it is inferred: bit i is input i.
    ControlSlots slots;  // Of a node with sub-graphs.
    std::vector<ProgramOrError> bodies;
  };
  struct ProgramStage {
    std::optional<SegmentUse> segment;
    std::vector<HostNode> host;
    std::vector<ValueId> dead;  // Values that nothing after this stage reads.
  };
  class Builder;
  class Execution;

  Graph graph_;
  std::shared_ptr<const ProgramContext> context_;
  std::vector<ProgramStage> stages_;
  std::map<ValueId, Datum> constants_;  // That host nodes read, and that are outputs.
};

}  // namespace octet
