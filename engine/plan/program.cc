#include "engine/plan/program.h"

#include <algorithm>
#include <set>
#include <utility>

#include "engine/ops/reference_step.h"
#include "engine/passes/pass.h"
#include "engine/plan/compiler.h"
#include "engine/plan/control_flow.h"
#include "engine/plan/cut.h"
#include "engine/tensor/limits.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// A node alone, as a graph: its inputs are graph inputs, but those whose elements its shapes follow from are constants.
absl::StatusOr<Graph> NodeAlone(const Node& node, std::span<const Datum* const> inputs,
                                std::span<const ValueType> outputs, uint64_t constant_inputs) {
  Graph alone;
  Node copy = node;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i] == nullptr) continue;
    const Tensor& tensor = inputs[i]->tensor;
    Value value;
    value.name = Format("input {}", i);
    value.dtype = tensor.dtype();
    value.shape = tensor.shape();
    const bool constant = (constant_inputs >> (i % 64) & 1) != 0;
    if (constant) value.constant = tensor;
    copy.inputs[i] = alone.AddValue(std::move(value));
    if (!constant) alone.inputs.push_back(copy.inputs[i]);
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (node.outputs[i] == kNone) continue;
    copy.outputs[i] = alone.AddValue({.name = Format("output {}", i), .dtype = outputs[i].dtype});
    alone.outputs.push_back(copy.outputs[i]);
  }
  alone.AddNode(std::move(copy));
  OCTET_RETURN_IF_ERROR(InferShapes(alone));
  return alone;
}

absl::Status CheckExtents(const Value& value, uint64_t max_bytes) {
  if (!value.has_static_shape())
    return Unimplemented("the shape of '{}' does not follow from its inputs", value.name);
  if (FitsInto(*value.shape, SizeOf(value.dtype), max_bytes)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted,
                   "'{}' of shape {} is over the limit of {} bytes", value.name,
                   value.shape->ToString(), max_bytes);
}

// Copies the characters of strings, which may point into what is gone when the node has run.
absl::Status KeepStrings(const Value& value, uint64_t max_bytes, Tensor& tensor) {
  if (tensor.dtype() != DType::kString) return absl::OkStatus();
  if (const uint64_t bytes = MemoryBytes(tensor.view()); bytes > max_bytes) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     "'{}' is too large: at most {} bytes, got {}", value.name, max_bytes, bytes);
  }
  tensor = Tensor::Strings(tensor.shape(), tensor.span<std::string_view>());
  return absl::OkStatus();
}

// The fast form of the node alone, which is of little use for one run where it packs weights; but none of those wait for elements.
absl::StatusOr<std::unique_ptr<Step>> FastForm(const Graph& alone, const OpDef& def,
                                               const ProgramContext& context) {
  LayerRecord layer;
  return LowerFast(def, {.graph = alone,
                         .node = alone.node(alone.order().front()),
                         .target = context.target,
                         .requested = context.precision,
                         .weights = *context.weights,
                         .overwritable = {},
                         .layer = layer});
}

absl::Status RunStep(const Step& step, std::span<const ConstTensorView> inputs,
                     std::span<const TensorView> outputs, uint64_t max_bytes) {
  if (step.scratch_bytes() > max_bytes) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     "needs too much memory for these shapes: at most {} bytes, got {}", max_bytes,
                     step.scratch_bytes());
  }
  std::vector<void*> in;
  for (const ConstTensorView& view : inputs) in.push_back(const_cast<void*>(view.data));
  std::vector<void*> out;
  for (const TensorView& view : outputs) out.push_back(view.data);
  const auto scratch = AllocateAligned(step.scratch_bytes());
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<StepState> state, step.NewState());
  return step.Run({.inputs = in, .outputs = out, .scratch = scratch.get(), .state = state.get()});
}

// The node's fast form or its reference kernel.
absl::StatusOr<Kernel> KernelOnce(const Graph& alone, const OpDef& def,
                                  const ProgramContext& context, uint64_t max_bytes) {
  absl::StatusOr<std::unique_ptr<Step>> step = FastForm(alone, def, context);
  if (absl::IsUnimplemented(step.status()))
    return MakeReferenceKernel(alone, alone.node(alone.order().front()));
  OCTET_RETURN_IF_ERROR(step.status());
  return [step = std::shared_ptr<const Step>(*std::move(step)), max_bytes](
             std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    return RunStep(*step, inputs, outputs, max_bytes);
  };
}

// Runs a node by a kernel that is made for this one run: its shapes may be others the next time.
absl::StatusOr<std::vector<Datum>> Interpret(const Node& node, const OpDef& def,
                                             std::span<const Datum* const> inputs,
                                             std::span<const ValueType> outputs,
                                             uint64_t constant_inputs,
                                             const ProgramContext& context, uint64_t max_bytes) {
  OCTET_ASSIGN_OR_RETURN(const Graph alone, NodeAlone(node, inputs, outputs, constant_inputs));
  const Node& copy = alone.node(alone.order().front());
  std::vector<Datum> results(outputs.size());
  std::vector<TensorView> out(outputs.size());
  const bool view = def.traits.view && outputs.size() == 1;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (copy.outputs[i] == kNone) continue;
    const Value& value = alone.value(copy.outputs[i]);
    OCTET_RETURN_IF_ERROR(CheckExtents(value, max_bytes));
    if (view && inputs[0]->tensor.elements() == value.shape->elements())
      return std::vector<Datum>{Datum::Of(inputs[0]->tensor.Reshaped(*value.shape))};
    results[i] = Datum::Of(Tensor(value.dtype, *value.shape));
    out[i] = results[i].tensor.mutable_view();
  }
  std::vector<ConstTensorView> in;
  for (const Datum* input : inputs)
    in.push_back(input == nullptr ? ConstTensorView{} : input->tensor.view());
  // Owns what constant strings point into until they are copied.
  OCTET_ASSIGN_OR_RETURN(const Kernel kernel, KernelOnce(alone, def, context, max_bytes));
  OCTET_RETURN_IF_ERROR(kernel(in, out));
  for (size_t i = 0; i < results.size(); ++i) {
    if (copy.outputs[i] == kNone) continue;
    OCTET_RETURN_IF_ERROR(KeepStrings(alone.value(copy.outputs[i]), max_bytes, results[i].tensor));
  }
  return results;
}

LayerRecord LayerOf(const Node& node, const ProgramContext& context) {
  LayerRecord layer;
  layer.name = node.name;
  layer.op = node.domain.empty() ? node.op : Format("{}:{}", node.domain, node.op);
  layer.requested = PrecisionName(context.precision);
  layer.runs = "none";
  layer.isa = context.target.isa;
  return layer;
}

}  // namespace

// ---- Building

class Program::Builder {
 public:
  Builder(Graph graph, std::shared_ptr<const ProgramContext> context) {
    program_->graph_ = std::move(graph);
    program_->context_ = std::move(context);
  }

  absl::StatusOr<std::unique_ptr<const Program>> Build() {
    OCTET_RETURN_IF_ERROR(RunPasses(graph(), PassesBeforeCut(*program_->context_)).status());
    OCTET_ASSIGN_OR_RETURN(std::vector<Stage> stages, CutIntoStages(graph()));
    FindSegmentOutputs(stages);
    for (const Stage& stage : stages) {
      ProgramStage& made = program_->stages_.emplace_back();
      if (!stage.segment.empty()) OCTET_RETURN_IF_ERROR(AddSegment(stage, made));
      for (const NodeId id : stage.host) OCTET_RETURN_IF_ERROR(AddHostNode(id, made));
    }
    for (const ValueId id : graph().outputs) KeepConstant(id);
    FindDead();
    return std::unique_ptr<const Program>(std::move(program_));
  }

 private:
  Graph& graph() { return program_->graph_; }

  // Values that are read outside of the segment that makes them.
  void FindSegmentOutputs(std::span<const Stage> stages) {
    std::vector<std::set<int>> segments_of(graph().value_count());  // Weights may be in several.
    for (size_t s = 0; s < stages.size(); ++s) {
      for (const NodeId id : stages[s].segment) {
        for (const ValueId v : graph().node(id).outputs) {
          if (v != kNone) segments_of[v].insert(static_cast<int>(s));
        }
      }
    }
    const auto read = [&](NodeId id, int segment) {
      for (const ValueId v : graph().node(id).inputs) {
        if (v != kNone && !segments_of[v].empty() && !segments_of[v].contains(segment))
          leaves_.insert(v);
      }
    };
    for (size_t s = 0; s < stages.size(); ++s) {
      for (const NodeId id : stages[s].segment) read(id, static_cast<int>(s));
      for (const NodeId id : stages[s].host) read(id, kNone);
    }
    for (const ValueId v : graph().outputs) {
      if (!segments_of[v].empty()) leaves_.insert(v);
    }
  }

  absl::Status AddSegment(const Stage& stage, ProgramStage& made) {
    SegmentUse use;
    Graph segment;
    segment.name = graph().name;
    std::map<ValueId, ValueId> inside;
    for (const NodeId id : stage.segment) {
      Node node = graph().node(id);
      for (ValueId& v : node.inputs) {
        if (v != kNone) v = Inside(v, segment, inside, use);
      }
      for (ValueId& v : node.outputs) {
        if (v != kNone) v = inside[v] = segment.AddValue(graph().value(v));
      }
      segment.AddNode(std::move(node));
    }
    for (const NodeId id : stage.segment) {
      for (const ValueId v : graph().node(id).outputs) {
        if (v == kNone || !leaves_.contains(v) || !left_.insert(v).second) continue;
        segment.outputs.push_back(Copied(inside.at(v), segment));
        use.outputs.push_back(v);
      }
    }
    use.segment = std::make_unique<const Segment>(std::move(segment), program_->context_);
    OCTET_ASSIGN_OR_RETURN(use.in_advance, use.segment->PlanInAdvance());
    made.segment = std::move(use);
    return absl::OkStatus();
  }

  ValueId Inside(ValueId v, Graph& segment, std::map<ValueId, ValueId>& inside, SegmentUse& use) {
    const auto [at, added] = inside.try_emplace(v, kNone);
    if (!added) return at->second;
    at->second = segment.AddValue(graph().value(v));
    if (!graph().value(v).is_constant()) {
      segment.inputs.push_back(at->second);
      use.inputs.push_back(v);
    }
    return at->second;
  }

  // An output is never folded into a constant, but a Reshape in the same segment may wait for it as one: what leaves is a
  // copy, which costs nothing where the value is read by nobody else.
  static ValueId Copied(ValueId v, Graph& segment) {
    if (segment.consumers(v).empty()) return v;
    Node copy;
    copy.name = segment.value(v).name;
    copy.op = "Identity";
    copy.version = segment.node(segment.producer(v)).version;
    for (const NodeId id : segment.order()) {
      if (segment.node(id).domain == kOnnxDomain) copy.version = segment.node(id).version;
    }
    Value value = segment.value(v);
    value.name = segment.UniqueName(value.name);
    copy.inputs = {v};
    copy.outputs = {segment.AddValue(std::move(value))};
    const ValueId output = copy.outputs.front();
    segment.AddNode(std::move(copy));
    return output;
  }

  absl::Status AddHostNode(NodeId id, ProgramStage& made) {
    HostNode host{.id = id, .def = FindOp(graph().node(id)), .slots = {}, .bodies = {}};
    const Node& node = graph().node(id);
    for (const ValueId v : node.inputs) KeepConstant(v);
    if (host.def->traits.control) {
      OCTET_ASSIGN_OR_RETURN(host.slots, SlotsOf(node));
      for (const std::string_view name : BodyNames(node)) {
        host.bodies.push_back(MakeBody(node, name));
        const absl::Status& status = host.bodies.back().status();
        // A branch may not fit the shapes for which it is never taken.
        if (node.op == "If" && absl::IsInvalidArgument(status)) continue;
        if (!status.ok()) return Annotate(status, Describe(node));
      }
    } else if (host.def->evaluate == nullptr) {
      OCTET_ASSIGN_OR_RETURN(host.constants, InputsThatDecideShapes(graph(), id));
      for (size_t i = 0; i < node.inputs.size(); ++i) {
        const bool constant =
            node.inputs[i] != kNone && graph().value(node.inputs[i]).is_constant();
        if (constant) host.constants |= uint64_t{1} << (i % 64);
      }
    }
    made.host.push_back(std::move(host));
    return absl::OkStatus();
  }

  ProgramOrError MakeBody(const Node& node, std::string_view name) {
    OCTET_ASSIGN_OR_RETURN(Graph body, InferredBody(graph(), node, name));
    return Make(std::move(body), program_->context_);
  }

  void KeepConstant(ValueId id) {
    if (id == kNone || !graph().value(id).is_constant()) return;
    program_->constants_.try_emplace(id, Datum::Of(graph().value(id).constant));
  }

  void FindDead() {
    std::vector<ProgramStage>& stages = program_->stages_;
    std::vector<int> last(graph().value_count(), kNone);
    for (size_t s = 0; s < stages.size(); ++s) {
      const auto use = [&](ValueId v) {
        if (v != kNone) last[v] = static_cast<int>(s);
      };
      if (stages[s].segment) {
        std::ranges::for_each(stages[s].segment->inputs, use);
        std::ranges::for_each(stages[s].segment->outputs, use);
      }
      for (const HostNode& host : stages[s].host) {
        std::ranges::for_each(graph().node(host.id).inputs, use);
        std::ranges::for_each(graph().node(host.id).outputs, use);
      }
    }
    for (const ValueId v : graph().outputs) last[v] = kNone;
    for (ValueId v = 0; v < graph().value_count(); ++v) {
      if (last[v] != kNone) stages[last[v]].dead.push_back(v);
    }
  }

  std::unique_ptr<Program> program_ = std::make_unique<Program>();
  std::set<ValueId> leaves_;
  std::set<ValueId> left_;  ///< Of these, what some segment hands out.
};

absl::StatusOr<std::unique_ptr<const Program>> Program::Make(
    Graph graph, std::shared_ptr<const ProgramContext> context) {
  return Builder(std::move(graph), std::move(context)).Build();
}

// ---- Running

class Program::Execution {
 public:
  Execution(const Program& program, ProgramRun& run)
      : program_(program), graph_(program.graph_), run_(run), values_(graph_.value_count()) {}

  absl::StatusOr<std::vector<Datum>> Run(std::vector<Datum> inputs) {
    if (inputs.size() != graph_.inputs.size()) {
      return Internal("a program was run with {} inputs, it has {}", inputs.size(),
                      graph_.inputs.size());
    }
    for (size_t i = 0; i < inputs.size(); ++i) values_[graph_.inputs[i]] = std::move(inputs[i]);
    for (const ProgramStage& stage : program_.stages_) {
      if (stage.segment) OCTET_RETURN_IF_ERROR(RunSegment(*stage.segment));
      for (const HostNode& host : stage.host) {
        const absl::Status status = RunHost(host);
        if (!status.ok()) return Blame(graph_.node(host.id), status);
      }
      for (const ValueId id : stage.dead) values_[id] = Datum();
    }
    std::vector<Datum> outputs;
    for (const ValueId id : graph_.outputs) outputs.push_back(At(id));
    return outputs;
  }

 private:
  static absl::Status Blame(const Node& node, const absl::Status& status) {
    const std::string name = Describe(node);
    return Message(status).starts_with(name) ? status : Annotate(status, name);
  }

  const Datum& At(ValueId id) const {
    const auto constant = program_.constants_.find(id);
    return constant != program_.constants_.end() ? constant->second : values_[id];
  }

  absl::Status CheckTensor(const Value& expected, const Datum& got) const {
    if (got.is_tensor() && got.tensor.dtype() == expected.dtype) return absl::OkStatus();
    return InvalidArgument("'{}': expected a tensor of {}, got {}", expected.name,
                           DTypeName(expected.dtype),
                           got.is_tensor()     ? DTypeName(got.tensor.dtype())
                           : got.is_sequence() ? "a sequence"
                                               : "an optional without an element");
  }

  absl::Status RunSegment(const SegmentUse& use) {
    std::vector<const Tensor*> inputs;
    for (const ValueId id : use.inputs) {
      OCTET_RETURN_IF_ERROR(CheckTensor(graph_.value(id), values_[id]));
      inputs.push_back(&values_[id].tensor);
    }
    OCTET_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, use.segment->Run(run_.workspace, inputs));
    for (size_t i = 0; i < outputs.size(); ++i)
      values_[use.outputs[i]] = Datum::Of(std::move(outputs[i]));
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<Datum>> Evaluated(const OpDef& def, const Node& node,
                                               std::span<const Datum* const> inputs) {
    OCTET_ASSIGN_OR_RETURN(std::vector<Datum> outputs, def.evaluate(node, inputs));
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      if (node.outputs[i] == kNone) continue;
      const Value& value = graph_.value(node.outputs[i]);
      OCTET_RETURN_IF_ERROR(KeepStrings(value, run_.max_bytes, outputs[i].tensor));
      for (Tensor& element : outputs[i].sequence)
        OCTET_RETURN_IF_ERROR(KeepStrings(value, run_.max_bytes, element));
    }
    return outputs;
  }

  absl::StatusOr<std::vector<Datum>> Answer(const HostNode& host, const Node& node,
                                            std::span<const Datum* const> inputs) {
    if (host.def->traits.control) {
      return RunControl(graph_, node, host.slots, host.bodies, inputs, run_);
    }
    if (!host.def->traits.any_kind) {
      for (size_t i = 0; i < inputs.size(); ++i) {
        if (inputs[i] == nullptr) continue;
        OCTET_RETURN_IF_ERROR(CheckTensor(graph_.value(node.inputs[i]), *inputs[i]));
      }
    }
    if (host.def->evaluate != nullptr) return Evaluated(*host.def, node, inputs);
    std::vector<ValueType> types;
    for (const ValueId id : node.outputs)
      types.push_back(id == kNone ? ValueType()
                                  : ValueType{graph_.value(id).kind, graph_.value(id).dtype});
    return Interpret(node, *host.def, inputs, types, host.constants, *program_.context_,
                     run_.max_bytes);
  }

  absl::Status RunHost(const HostNode& host) {
    const Node& node = graph_.node(host.id);
    std::vector<const Datum*> inputs;
    for (const ValueId id : node.inputs) inputs.push_back(id == kNone ? nullptr : &At(id));
    OCTET_ASSIGN_OR_RETURN(std::vector<Datum> outputs, Answer(host, node, inputs));
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      if (node.outputs[i] == kNone) continue;
      if (outputs[i].bytes() > run_.max_bytes) {
        return MakeError(absl::StatusCode::kResourceExhausted,
                         "'{}' is too large: at most {} bytes, got {}",
                         graph_.value(node.outputs[i]).name, run_.max_bytes, outputs[i].bytes());
      }
      values_[node.outputs[i]] = std::move(outputs[i]);
    }
    return absl::OkStatus();
  }

  const Program& program_;
  const Graph& graph_;
  ProgramRun& run_;
  std::vector<Datum> values_;
};

absl::StatusOr<std::vector<Datum>> Program::Run(ProgramRun& run, std::vector<Datum> inputs) const {
  return Execution(*this, run).Run(std::move(inputs));
}

// ---- What it is made of

int Program::plan_count() const {
  int count = 0;
  for (const ProgramStage& stage : stages_) {
    if (stage.segment) count += stage.segment->segment->plan_count();
    for (const HostNode& host : stage.host) {
      for (const ProgramOrError& body : host.bodies) count += body.ok() ? (*body)->plan_count() : 0;
    }
  }
  return count;
}

void Program::AppendLayers(std::vector<LayerRecord>& layers) const {
  for (const ProgramStage& stage : stages_) {
    if (stage.segment && stage.segment->in_advance != nullptr) {
      const std::vector<LayerRecord>& compiled = stage.segment->in_advance->certificate().layers;
      layers.insert(layers.end(), compiled.begin(), compiled.end());
    } else if (stage.segment) {
      const Graph& graph = stage.segment->segment->graph();
      for (const NodeId id : graph.order()) {
        LayerRecord& layer = layers.emplace_back(LayerOf(graph.node(id), *context_));
        layer.impl = "compiled when it runs";
        layer.reason = "its shapes follow from the data";
      }
    }
    for (const HostNode& host : stage.host) {
      layers.emplace_back(LayerOf(graph_.node(host.id), *context_)).impl = "octet:host";
      for (const ProgramOrError& body : host.bodies) {
        if (body.ok()) (*body)->AppendLayers(layers);
      }
    }
  }
}

absl::Status Program::AppendTimes(Workspace& workspace, int repeats,
                                  std::vector<LayerTime>& times) const {
  for (const ProgramStage& stage : stages_) {
    if (stage.segment && stage.segment->in_advance != nullptr) {
      OCTET_ASSIGN_OR_RETURN(const std::vector<LayerTime> measured,
                             stage.segment->in_advance->LayerTimes(workspace, repeats));
      times.insert(times.end(), measured.begin(), measured.end());
    } else if (stage.segment) {
      times.resize(times.size() + stage.segment->segment->graph().order().size());
    }
    for (const HostNode& host : stage.host) {
      times.emplace_back();
      for (const ProgramOrError& body : host.bodies) {
        if (body.ok()) OCTET_RETURN_IF_ERROR((*body)->AppendTimes(workspace, repeats, times));
      }
    }
  }
  return absl::OkStatus();
}

void Program::AppendPlans(std::vector<std::shared_ptr<const Plan>>& plans) const {
  for (const ProgramStage& stage : stages_) {
    if (stage.segment && stage.segment->in_advance != nullptr)
      plans.push_back(stage.segment->in_advance);
    for (const HostNode& host : stage.host) {
      for (const ProgramOrError& body : host.bodies) {
        if (body.ok()) (*body)->AppendPlans(plans);
      }
    }
  }
}

}  // namespace octet
