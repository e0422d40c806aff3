#include "engine/plan/compiler.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <unordered_map>

#include "absl/container/inlined_vector.h"

#include "engine/onednn/runtime.h"
#include "engine/ops/op.h"
#include "engine/ops/reference_step.h"
#include "engine/plan/arena.h"
#include "engine/plan/buffer_map.h"
#include "engine/plan/executable_plan.h"
#include "engine/plan/team.h"
#include "engine/tensor/limits.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using Kind = Location::Kind;

// A view only renames its input: same bytes, same type, same meaning of its integers.
bool IsView(const Graph& graph, const Node& node) {
  const OpDef* def = FindOp(node);
  if (def == nullptr || !def->traits.view || !node.post_ops.empty()) return false;
  if (node.input(0) == kNone || node.output(0) == kNone) return false;
  for (size_t i = 1; i < node.outputs.size(); ++i) {
    if (node.outputs[i] != kNone) return false;
  }
  const Value& from = graph.value(node.inputs[0]);
  const Value& to = graph.value(node.outputs[0]);
  return from.dtype == to.dtype && from.quant == to.quant &&
         from.shape->elements() == to.shape->elements();
}

// The element type of the arithmetic that a precision asks for.
std::string_view Wanted(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return "f32";
    case Precision::kFp16:
    case Precision::kBf16:
      return "bf16";
    case Precision::kInt8:
    case Precision::kInt8Dynamic:
      return "int8";
  }
  return "f32";
}

// Why a node does not run in the precision that is asked for, where its lowering does not say.
std::string_view DefaultReason(const Graph& graph, const Node& node, Precision precision,
                               const Target& target) {
  const auto is_narrow = [&](ValueId id) {
    return id != kNone && graph.value(id).dtype == DType::kBF16;
  };
  if (std::ranges::any_of(node.inputs, is_narrow)) return "computed in float on bf16 values";
  switch (precision) {
    case Precision::kFp32:
      return "";
    case Precision::kFp16:
    case Precision::kBf16:
      return target.bf16 ? "its values are f32" : "this CPU has no bf16 arithmetic";
    case Precision::kInt8:
    case Precision::kInt8Dynamic:
      return "its values are f32";
  }
  return "";
}

bool IsEmpty(const Graph& graph, ValueId id) { return graph.value(id).shape->elements() == 0; }

// None of the node's outputs has an element.
bool WritesNothing(const Graph& graph, const Node& node) {
  return std::ranges::all_of(node.outputs,
                             [&](ValueId id) { return id == kNone || IsEmpty(graph, id); });
}

// Of what a request brings; a constant without elements is an operand that is left out (the roi of a Resize).
bool ReadsEmptyTensor(const Graph& graph, const Node& node) {
  return std::ranges::any_of(node.inputs, [&](ValueId id) {
    return id != kNone && !graph.value(id).is_constant() && IsEmpty(graph, id);
  });
}

// In place of a node that writes nothing.
class EmptyStep final : public Step {
 public:
  absl::Status Run(const StepArgs& /*args*/) const override { return absl::OkStatus(); }
  bool reads_input(int /*i*/) const override { return false; }
};

absl::Status CheckStatic(const Graph& graph) {
  for (const ValueId id : graph.inputs) {
    if (graph.value(id).has_static_shape()) continue;
    return Unimplemented("the shape of input '{}' is not known", graph.value(id).name);
  }
  for (const NodeId id : graph.order()) {
    if (TouchesStrings(graph, graph.node(id)))
      return Unimplemented("{}: strings have no static plan", Describe(graph.node(id)));
    for (const ValueId out : graph.node(id).outputs) {
      if (out == kNone || graph.value(out).has_static_shape()) continue;
      return Unimplemented("{}: the shape of '{}' depends on data that is known only when it runs",
                           Describe(graph.node(id)), graph.value(out).name);
    }
  }
  return absl::OkStatus();
}

// Before anything is made for the shapes: kernels keep tables as long as an extent.
absl::Status CheckTensorSizes(const Graph& graph, uint64_t limit) {
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    const Value& value = graph.value(id);
    const NodeId node = graph.producer(id);
    if (node == kNone && !graph.is_graph_input(id)) continue;
    if (FitsInto(*value.shape, SizeOf(value.dtype), limit)) continue;
    return InvalidArgument("{}: '{}' of shape {} is over the limit of {} bytes",
                           node == kNone ? "input" : Describe(graph.node(node)), value.name,
                           value.shape->ToString(), limit);
  }
  return absl::OkStatus();
}

class Compiler {
 public:
  Compiler(Graph graph, const CompileContext& context)
      : graph_(std::move(graph)),
        context_(context),
        views_(FindViews(graph_)),
        buffers_(graph_, views_),
        last_uses_(FindLastUses()) {}

  absl::StatusOr<std::shared_ptr<const Plan>> Compile() {
    const auto start = std::chrono::steady_clock::now();
    parts_.certificate.requested = context_.precision;
    parts_.certificate.isa = context_.target.isa;
    parts_.pass_trace = context_.pass_trace;
    for (size_t p = 0; p < graph_.order().size(); ++p) {
      if (!views_[p]) OCTET_RETURN_IF_ERROR(AddStep(static_cast<int>(p)));
      LetGoOfConstants(static_cast<int>(p));
    }
    PlaceBuffers();
    OCTET_RETURN_IF_ERROR(CheckPlanSize());
    for (const Pending& pending : pending_) AddPointers(pending);
    AddInterface();
    parts_.compile_time = std::chrono::steady_clock::now() - start;
    return std::make_shared<const ExecutablePlan>(std::move(parts_));
  }

 private:
  struct Pending {
    int position;
    size_t step;  // In parts_.steps.
  };

  static std::vector<bool> FindViews(const Graph& graph) {
    std::vector<bool> views;
    for (const NodeId id : graph.order()) views.push_back(IsView(graph, graph.node(id)));
    return views;
  }

  // The constant whose bytes `id` is, kNone for every other value.
  ValueId ConstantOf(ValueId id) const {
    const Location location = id == kNone ? Location{} : buffers_.location(id);
    return location.kind == Kind::kConstant ? location.index : kNone;
  }

  // Constant -> position of its last reader; what is copied to an output is not in it.
  std::unordered_map<ValueId, int> FindLastUses() const {
    std::unordered_map<ValueId, int> uses;
    for (size_t p = 0; p < graph_.order().size(); ++p) {
      for (const ValueId id : graph_.node(graph_.order()[p]).inputs) {
        if (const ValueId constant = ConstantOf(id); constant != kNone)
          uses[constant] = static_cast<int>(p);
      }
    }
    for (const ValueId id : graph_.outputs) uses.erase(ConstantOf(id));
    return uses;
  }

  void LetGoOfConstants(int position) {
    for (const ValueId id : graph_.node(graph_.order()[position]).inputs) {
      const auto use = last_uses_.find(ConstantOf(id));
      if (use != last_uses_.end() && use->second == position)
        graph_.mutable_value(use->first).constant = Tensor();
    }
  }

  // Whether input `i` is a constant that the node reads last, here and once, and that no other graph and no other value holds.
  bool MayDiscard(int position, size_t i) const {
    const Node& node = graph_.node(graph_.order()[position]);
    const ValueId constant = ConstantOf(node.inputs[i]);
    const auto use = last_uses_.find(constant);
    if (use == last_uses_.end() || use->second != position) return false;
    const auto reads = [&](ValueId id) { return ConstantOf(id) == constant; };
    return std::ranges::count_if(node.inputs, reads) == 1 &&
           graph_.value(constant).constant.owner().use_count() == 1;
  }

  absl::Status CheckPlanSize() const {
    uint64_t bytes = parts_.memory.arena_bytes;
    for (const ValueId id : graph_.outputs) {
      bytes += TensorSpec{graph_.value(id).dtype, *graph_.value(id).shape}.bytes();
    }
    if (bytes <= context_.max_plan_bytes) return absl::OkStatus();
    return InvalidArgument(
        "the model needs too much memory for these shapes: at most {} bytes, got {}",
        context_.max_plan_bytes, bytes);
  }

  absl::StatusOr<std::unique_ptr<Step>> Lower(int position, const Target& target,
                                              LayerRecord& layer) const {
    const Node& node = graph_.node(graph_.order()[position]);
    const OpDef* def = FindOp(node);
    if (def == nullptr) return UnsupportedOperator(node);
    if (WritesNothing(graph_, node)) {
      layer.runs = "none";
      layer.impl = "octet:empty";
      return std::make_unique<EmptyStep>();
    }
    absl::InlinedVector<bool, 8> overwritable;
    absl::InlinedVector<bool, 8> discardable;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      overwritable.push_back(buffers_.MayOverwrite(position, i));
      discardable.push_back(MayDiscard(position, i));
    }
    const LowerContext lower{graph_,
                             node,
                             target,
                             context_.precision,
                             context_.weights,
                             {overwritable.data(), overwritable.size()},
                             layer,
                             {discardable.data(), discardable.size()}};
    absl::StatusOr<std::unique_ptr<Step>> step = LowerFast(*def, lower);
    if (step.ok() || step.status().code() != absl::StatusCode::kUnimplemented) return step;
    layer.reason = std::string(Message(step.status()));
    return MakeReferenceStep(lower);
  }

  // A mixed int8 file asks for bf16 in some of its layers.
  Precision WantedOf(const Node& node) const {
    const bool marked = node.in_bf16 && (context_.precision == Precision::kInt8 ||
                                         context_.precision == Precision::kInt8Dynamic);
    return marked ? Precision::kBf16 : context_.precision;
  }

  absl::Status AddStep(int position) {
    const Node& node = graph_.node(graph_.order()[position]);
    LayerRecord layer;
    layer.name = node.name;
    layer.op = node.domain.empty() ? node.op : Format("{}:{}", node.domain, node.op);
    const Precision wanted = WantedOf(node);
    layer.requested = PrecisionName(wanted);
    Target target = context_.target;
    const bool alone = target.threads > 1 && !IsWorthATeam(graph_, node);
    if (alone) target.threads = 1;
    // Primitives are made for the team that they find.
    const onednn::TeamSizeScope team(target.threads);
    absl::StatusOr<std::unique_ptr<Step>> step = Lower(position, target, layer);
    if (!step.ok()) return Annotate(step.status(), Describe(node));
    if (layer.isa.empty()) layer.isa = context_.target.isa;
    if (layer.runs == "none" || layer.runs == Wanted(wanted)) {
      layer.reason.clear();
    } else if (layer.reason.empty()) {
      layer.reason = DefaultReason(graph_, node, wanted, context_.target);
    }
    parts_.certificate.layers.push_back(std::move(layer));
    const int overwritten = (*step)->overwrites_input();
    if (overwritten != kNone) buffers_.Overwrite(position, static_cast<size_t>(overwritten));
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId constant = ConstantOf(node.inputs[i]);
      if (constant != kNone && (*step)->reads_input(static_cast<int>(i))) ConstantIndex(constant);
    }
    pending_.push_back({position, parts_.steps.size()});
    PlannedStep& planned = parts_.steps.emplace_back();
    planned.step = *std::move(step);
    planned.name = Describe(node);
    planned.alone = alone;
    return absl::OkStatus();
  }

  // Scratch is a buffer that lives for its own step only, so it fills gaps between intermediates.
  void PlaceBuffers() {
    std::vector<BufferLife> lives;
    for (const BufferMap::Buffer& buffer : buffers_.TakeArenaBuffers()) {
      lives.push_back({buffer.bytes, buffer.first, buffer.last});
    }
    const size_t first_scratch = lives.size();
    for (const Pending& pending : pending_) {
      lives.push_back(
          {parts_.steps[pending.step].step->scratch_bytes(), pending.position, pending.position});
    }
    ArenaLayout layout = LayOutArena(lives);
    for (size_t i = 0; i < pending_.size(); ++i) {
      parts_.steps[pending_[i].step].scratch_offset = layout.offsets[first_scratch + i];
    }
    layout.offsets.resize(first_scratch);
    offsets_ = std::move(layout.offsets);
    parts_.memory = {layout.bytes, layout.live_peak};
  }

  PointerSource Resolve(ValueId id) {
    const Location location = buffers_.location(id);
    switch (location.kind) {
      case Kind::kNowhere:
        return {};
      case Kind::kArena:
        return {Kind::kArena, offsets_[location.index]};
      case Kind::kInput:
      case Kind::kOutput:
        return {location.kind, static_cast<size_t>(location.index)};
      case Kind::kConstant:
        return {Kind::kConstant, ConstantIndex(location.index)};
    }
    return {};
  }

  size_t ConstantIndex(ValueId id) {
    const auto [entry, added] = constants_.try_emplace(id, parts_.constants.size());
    if (added) parts_.constants.push_back(context_.weights.Intern(graph_.value(id).constant));
    return entry->second;
  }

  void AddPointers(const Pending& pending) {
    const Node& node = graph_.node(graph_.order()[pending.position]);
    PlannedStep& planned = parts_.steps[pending.step];
    planned.first_pointer = parts_.pointers.size();
    planned.inputs = node.inputs.size();
    planned.outputs = node.outputs.size();
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const bool read = node.inputs[i] != kNone && planned.step->reads_input(static_cast<int>(i));
      parts_.pointers.push_back(read ? Resolve(node.inputs[i]) : PointerSource{});
    }
    for (const ValueId id : node.outputs) {
      parts_.pointers.push_back(id == kNone ? PointerSource{} : Resolve(id));
    }
  }

  void AddInterface() {
    for (const ValueId id : graph_.inputs) {
      parts_.inputs.push_back({graph_.value(id).dtype, *graph_.value(id).shape});
    }
    for (const ValueId id : graph_.outputs) {
      parts_.outputs.push_back({graph_.value(id).dtype, *graph_.value(id).shape});
    }
    for (const BufferMap::Copy& copy : buffers_.OutputCopies()) {
      PointerSource from{copy.from.kind, static_cast<size_t>(copy.from.index)};
      if (copy.from.kind == Kind::kArena) from.index = offsets_[copy.from.index];
      if (copy.from.kind == Kind::kConstant) from.index = ConstantIndex(copy.from.index);
      parts_.copies.push_back({from, static_cast<size_t>(copy.output), copy.bytes});
    }
  }

  Graph graph_;
  const CompileContext& context_;
  const std::vector<bool> views_;
  BufferMap buffers_;
  const std::unordered_map<ValueId, int> last_uses_;
  std::vector<Pending> pending_;
  std::vector<size_t> offsets_;
  std::unordered_map<ValueId, size_t> constants_;
  PlanParts parts_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerFast(const OpDef& def, const LowerContext& context) {
  // Fast steps divide their work by extents; a sum of nothing needs none.
  if (!def.traits.lowers_empty && ReadsEmptyTensor(context.graph, context.node))
    return Unimplemented("an input has no elements");
  if (WritesNothing(context.graph, context.node)) return Unimplemented("it writes no element");
  if (def.lower == nullptr) return Unimplemented("");
  try {
    return def.lower(context);
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_invalid_arguments || error.status == dnnl_out_of_memory)
      return Unimplemented("oneDNN: {}", error.message);
    return onednn::ToStatus(error.status, error.message);
  }
}

absl::StatusOr<std::shared_ptr<const Plan>> CompilePlan(Graph graph,
                                                        const CompileContext& context) {
  OCTET_RETURN_IF_ERROR(CheckStatic(graph));
  OCTET_RETURN_IF_ERROR(CheckTensorSizes(graph, context.max_plan_bytes));
  return Compiler(std::move(graph), context).Compile();
}

}  // namespace octet
