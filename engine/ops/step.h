// What a node becomes in a Plan: a Step that runs, and the certificate's row about it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/target.h"

namespace octet {

namespace onednn {
class WeightCache;  // engine/onednn/weight_cache.h
}

/// What a step keeps between its executions by one worker (oneDNN's memory objects): made once per worker, so
/// that Run allocates nothing.
class StepState {
 public:
  virtual ~StepState() = default;
};

/// Pointers of one execution. Entries follow node.inputs and node.outputs; kNone entries are null, and
/// constants that the step packed for itself may be null too.
struct StepArgs {
  std::span<void* const> inputs;
  std::span<void* const> outputs;
  std::byte* scratch = nullptr;  ///< At least Step::scratch_bytes(), kTensorAlignment-aligned.
  StepState* state = nullptr;    ///< What NewState() of this step made for this worker.
};

/// One executable piece of a Plan. Immutable: run from several threads at once, each with its own args.
class Step {
 public:
  virtual ~Step() = default;
  virtual absl::Status Run(const StepArgs& args) const = 0;
  virtual size_t scratch_bytes() const { return 0; }
  /// A state of its own for one more worker; null when the step needs none.
  virtual absl::StatusOr<std::unique_ptr<StepState>> NewState() const { return nullptr; }
  /// Index of the input whose buffer output 0 overwrites (residual sum, in-place activation), or kNone.
  /// Only legal when LowerContext::MayOverwrite(index) said so.
  virtual int overwrites_input() const { return kNone; }
  /// True when the step reads input i's buffer at run time (false for weights packed at compile time).
  virtual bool reads_input(int /*i*/) const { return true; }
  /// True when the step has oneDNN primitives, whose time counts into primitive_sum_ms.
  virtual bool is_primitive() const { return false; }
  /// What of Run is primitives, on what the last Run left in scratch. Requires: is_primitive().
  virtual absl::Status RunPrimitives(const StepArgs& args) const { return Run(args); }
};

/// One row of the certificate: what was asked of a layer and what runs.
struct LayerRecord {
  std::string name;
  std::string op;
  std::string requested;  ///< PrecisionName that the variant asks for.
  std::string
      runs;  ///< Element type of the arithmetic: "f32", "bf16", "int8", or "none" for data movement.
  std::string impl;    ///< oneDNN's impl_info_str(), "octet:<kernel>" or "reference".
  std::string isa;     ///< The ISA part of impl, or the Target's.
  int64_t macs = 0;    ///< Multiply-adds for the plan's shapes.
  std::string reason;  ///< Why `runs` is not what was requested; empty when it is.
};

/// What lowering sees of a node; every shape is static.
struct LowerContext {
  const Graph& graph;
  const Node& node;
  const Target& target;
  Precision requested;
  onednn::WeightCache& weights;        ///< Packed constants, shared between the plans of one model.
  std::span<const bool> overwritable;  ///< Per input slot: see MayOverwrite.
  LayerRecord& layer;                  ///< Filled by the lowering: runs, impl, isa, macs, reason.
  std::span<const bool> discardable = {};  ///< Per input slot: see MayDiscard.

  const Value& input(size_t i) const { return graph.value(node.inputs[i]); }
  bool has_input(size_t i) const { return node.input(i) != kNone; }
  const Value& output(size_t i = 0) const { return graph.value(node.outputs[i]); }
  /// The input is an intermediate that nobody reads after this node, of the same byte size as output 0.
  bool MayOverwrite(size_t i) const { return i < overwritable.size() && overwritable[i]; }
  /// The input is a constant whose elements nobody but this lowering reads: what packs them may give them up. A lowering that has
  /// done so must not answer UNIMPLEMENTED: the reference kernel would read them.
  bool MayDiscard(size_t i) const { return i < discardable.size() && discardable[i]; }
};

}  // namespace octet
