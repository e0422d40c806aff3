// A model in memory: its optimised graph, its packed weights, its plans.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "engine/engine.h"
#include "engine/plan/plan_cache.h"
#include "engine/plan/segment.h"

namespace octet {

/// A graph for one set of input shapes, and what the passes did to it once it had them.
struct BoundGraph {
  Graph graph;
  std::vector<PassTrace> trace;
};

/// Thread-safe after Prepare().
///
/// Life of the weights: the graph's constants are read from the file and packed by the plans that are compiled at load; the
/// last of them releases the graph layer by layer, and a plan for another shape reads the file again (and finds the packed
/// weights by their content); it is refused once one of the files is another. A model that runs as a program keeps the constants of its segments beside their packed forms,
/// since their shapes come with the data. A model without plans at load, or made from a graph in memory, keeps its graph.
class LoadedModel final : public Model {
 public:
  /// `files`: what the graph was read from (ReadOnnxFile); empty for one that was made in memory.
  LoadedModel(Graph graph, std::vector<SourceFile> files, LoadOptions options, Precision precision);

  /// Runs the passes and compiles the plans that are known at load.
  absl::Status Prepare();

  const Signature& signature() const override { return signature_; }
  Precision precision() const override { return precision_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }
  size_t resident_weight_bytes() const override;
  const std::vector<PassTrace>& pass_trace() const override { return pass_trace_; }
  std::string DumpGraph() const override { return dump_; }
  absl::StatusOr<std::shared_ptr<const Plan>> PlanFor(
      std::span<const Shape> input_shapes) const override;

 private:
  absl::Status Examine(const Graph& read);
  absl::StatusOr<std::vector<PassTrace>> Optimise(Graph& graph) const;
  absl::StatusOr<Graph> ReadAgain() const;
  absl::StatusOr<std::shared_ptr<const Graph>> OptimisedGraph() const;
  /// Lets go of the graph, where it can be read again.
  std::shared_ptr<const Graph> TakeGraph();
  absl::StatusOr<BoundGraph> Bind(const Graph& optimised,
                                  std::span<const Shape> input_shapes) const;
  std::optional<BoundGraph> Slice(const Graph& whole, const Graph& optimised,
                                  std::span<const Shape> input_shapes) const;
  absl::StatusOr<std::shared_ptr<const Plan>> Compile(
      std::span<const Shape> input_shapes,
      absl::StatusOr<std::shared_ptr<const Graph>> optimised) const;
  std::vector<std::vector<Shape>> ShapesAtLoad() const;
  absl::Status CheckInt8Share(const Plan& plan) const;
  /// A program hands its inputs on as data of the types that its nodes know.
  bool narrows_inputs() const { return options_.narrow_inputs && !needs_stages_; }

  const std::vector<SourceFile> files_;
  const LoadOptions options_;
  const Precision precision_;
  const Target target_;
  const std::shared_ptr<const ProgramContext> context_;
  bool needs_stages_ =
      false;  ///< Its plans are programs, unless one's shapes leave nothing that needs them.
  std::optional<std::string> rows_meet_;  ///< Where, in the model as it was read.
  Signature signature_;
  std::map<std::string, std::string> metadata_;
  std::vector<PassTrace> pass_trace_;
  std::string dump_;
  mutable PlanCache plans_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<const Graph> graph_ ABSL_GUARDED_BY(mutex_);  ///< Null once released.
};

}  // namespace octet
