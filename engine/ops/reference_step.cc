#include "engine/ops/reference_step.h"

#include <format>
#include <utility>

#include "absl/container/inlined_vector.h"

#include "engine/graph/stored_value.h"
#include "engine/ops/broadcast.h"
#include "engine/ops/dynamic_quant.h"
#include "engine/ops/post_ops.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Constants up to this many elements are widened once, when the computation is made.
constexpr int64_t kWidenOnceElements = int64_t{1} << 16;

/// One input or output: how it is stored, and how the kernel sees it.
struct Slot {
  bool present = false;
  TensorSpec stored;
  std::optional<QuantParams> quant;
  bool converted = false;  ///< The kernel sees F32 in scratch instead of the stored elements.
  size_t offset = 0;       ///< Of those elements in scratch.
  Tensor prepared;         ///< Constant inputs: what the kernel sees, made once.

  TensorSpec seen() const { return {converted ? DType::kF32 : stored.dtype, stored.shape}; }
};

/// A family's kernel with its conversions, laid out over one block of scratch.
class ReferenceComputation {
 public:
  static absl::StatusOr<std::shared_ptr<const ReferenceComputation>> Make(const Graph& graph,
                                                                          const Node& node);
  /// Pointers follow node.inputs and node.outputs; those of prepared inputs may be null.
  absl::Status Run(std::span<const void* const> inputs, std::span<void* const> outputs,
                   std::byte* scratch) const;
  size_t scratch_bytes() const { return scratch_bytes_; }
  bool moves_data() const { return moves_data_; }
  bool reads_input(size_t i) const {
    return inputs_[i].present && inputs_[i].prepared.empty_handle();
  }

 private:
  struct Operand {
    PostOp op;
    BroadcastPlan plan;  ///< Of the operand alone against the output.
  };

  absl::Status AddSlots(const Graph& graph, const Node& node);
  bool MovesStoredElements(const OpDef& def, const Node& node) const;
  void PlanConversions(const OpDef& def);
  absl::Status MakeKernel(const OpDef& def, const Node& node);
  absl::Status PlanPostOps(const Node& node);
  void Widen(const Slot& slot, size_t index, const void* src, TensorView dst) const;
  void ApplyPostOps(std::span<const ConstTensorView> inputs, float* y) const;

  absl::InlinedVector<Slot, 4> inputs_;
  absl::InlinedVector<Slot, 2> outputs_;
  size_t own_inputs_ = 0;
  bool dynamic_quant_ = false;
  bool moves_data_ = false;
  size_t scratch_bytes_ = 0;
  Kernel kernel_;
  std::vector<Operand> post_ops_;
};

absl::StatusOr<Slot> MakeSlot(const Graph& graph, const Node& node, ValueId id) {
  Slot slot;
  if (id == kNone) return slot;
  const Value& value = graph.value(id);
  if (!value.has_static_shape() || value.dtype == DType::kUndefined) {
    return Internal("{}: value '{}' has no static shape or no element type", Describe(node),
                    value.name);
  }
  slot.present = true;
  slot.stored = {value.dtype, *value.shape};
  slot.quant = value.quant;
  return slot;
}

absl::Status ReferenceComputation::AddSlots(const Graph& graph, const Node& node) {
  for (const ValueId id : node.inputs) {
    OCTET_ASSIGN_OR_RETURN(Slot slot, MakeSlot(graph, node, id));
    if (slot.present) slot.prepared = graph.value(id).constant;
    inputs_.push_back(std::move(slot));
  }
  for (const ValueId id : node.outputs) {
    OCTET_ASSIGN_OR_RETURN(Slot slot, MakeSlot(graph, node, id));
    outputs_.push_back(std::move(slot));
  }
  return absl::OkStatus();
}

/// True when moving the stored elements is the same as moving the reals that they stand for: all data
/// inputs and outputs are stored alike. Pad invents elements (a real 0 is not an integer 0).
bool ReferenceComputation::MovesStoredElements(const OpDef& def, const Node& node) const {
  if (!def.traits.data_movement || !node.post_ops.empty() || !outputs_[0].present) return false;
  const Slot& model = outputs_[0];
  if (model.quant && (!model.quant->per_tensor() || node.op == "Pad")) return false;
  const auto stored_alike = [&model](const Slot& slot) {
    if (!slot.present || (!slot.quant && !IsFloat(slot.stored.dtype))) return true;
    return slot.stored.dtype == model.stored.dtype && slot.quant == model.quant;
  };
  return std::ranges::all_of(inputs_, stored_alike) && std::ranges::all_of(outputs_, stored_alike);
}

void ReferenceComputation::PlanConversions(const OpDef& def) {
  const auto plan = [&](Slot& slot) {
    const bool narrow = IsNarrowReal(slot.stored.dtype) && !def.traits.any_types;
    const bool typed = slot.quant.has_value() && !def.traits.stored_integers;
    slot.converted = slot.present && (typed || narrow);
    if (!slot.converted) return;
    slot.offset = scratch_bytes_;
    scratch_bytes_ += AlignUp(slot.seen().bytes());
  };
  for (size_t i = 0; i < inputs_.size(); ++i) {
    Slot& slot = inputs_[i];
    plan(slot);
    if (i == 0 && dynamic_quant_ && !slot.converted) {
      slot.converted = true;
      slot.offset = scratch_bytes_;
      scratch_bytes_ += AlignUp(slot.seen().bytes());
    }
    if (!slot.converted || slot.prepared.empty_handle()) continue;
    if (slot.stored.shape.elements() > kWidenOnceElements) {
      slot.prepared = Tensor();
      continue;
    }
    Tensor widened(DType::kF32, slot.stored.shape);
    Widen(slot, i, slot.prepared.data(), widened.mutable_view());
    slot.prepared = std::move(widened);
  }
  for (Slot& slot : outputs_) plan(slot);
}

absl::Status ReferenceComputation::MakeKernel(const OpDef& def, const Node& node) {
  std::vector<ConstTensorView> inputs;
  for (size_t i = 0; i < own_inputs_; ++i) {
    const Slot& slot = inputs_[i];
    inputs.push_back({slot.prepared.empty_handle() ? nullptr : slot.prepared.data(), slot.seen()});
  }
  std::vector<TensorSpec> outputs;
  for (const Slot& slot : outputs_) outputs.push_back(slot.seen());
  OCTET_ASSIGN_OR_RETURN(kernel_, def.kernel({node, inputs, outputs}));
  return absl::OkStatus();
}

absl::Status ReferenceComputation::PlanPostOps(const Node& node) {
  if (node.post_ops.empty()) return absl::OkStatus();
  if (!outputs_[0].present || outputs_[0].seen().dtype != DType::kF32) {
    return Internal("{}: post-ops need a real output", Describe(node));
  }
  const Shape& shape = outputs_[0].stored.shape;
  for (const PostOp& op : node.post_ops) {
    Operand operand{op, {}};
    if (HasOperand(op.kind)) {
      const Slot& slot = inputs_[op.operand];
      if (slot.seen().dtype != DType::kF32 || Broadcast(slot.stored.shape, shape) != shape) {
        return Internal("{}: post-op operand {} does not fit the output", Describe(node),
                        op.operand);
      }
      operand.plan = BroadcastPlan(shape, {&slot.stored.shape, 1});
    }
    post_ops_.push_back(std::move(operand));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const ReferenceComputation>> ReferenceComputation::Make(
    const Graph& graph, const Node& node) {
  const OpDef* def = FindOp(node);
  if (def == nullptr) return UnsupportedOperator(node);
  if (def->kernel == nullptr)
    return Unimplemented("{}: what it computes has no static shapes", Describe(node));
  auto computation = std::make_shared<ReferenceComputation>();
  OCTET_RETURN_IF_ERROR(computation->AddSlots(graph, node));
  if (computation->outputs_.empty()) return Internal("{}: has no output", Describe(node));
  computation->own_inputs_ = OwnInputCount(node);
  computation->dynamic_quant_ = node.attributes.IntOr("dynamic_quant", 0) == 1;
  computation->moves_data_ = def->traits.data_movement || def->traits.view;
  if (!computation->MovesStoredElements(*def, node)) computation->PlanConversions(*def);
  OCTET_RETURN_IF_ERROR(computation->MakeKernel(*def, node));
  OCTET_RETURN_IF_ERROR(computation->PlanPostOps(node));
  return computation;
}

/// Writes the reals of a converted input.
void ReferenceComputation::Widen(const Slot& slot, size_t index, const void* src,
                                 TensorView dst) const {
  const ConstTensorView stored{src, slot.stored};
  if (slot.quant) {
    DequantizeTensor(stored, *slot.quant, dst);
  } else {
    ConvertTensor(stored, dst);
  }
  if (index != 0 || !dynamic_quant_) return;
  const QuantParams params = DynamicQuantParams(FindMinMax(dst));
  for (float& real : dst.span<float>()) {
    const int32_t q =
        QuantizeOne(real, params.scales[0], params.zero_points[0], RangeOf(DType::kU8));
    real = params.scales[0] * static_cast<float>(q - params.zero_points[0]);
  }
}

void ReferenceComputation::ApplyPostOps(std::span<const ConstTensorView> inputs, float* y) const {
  const int64_t count = outputs_[0].stored.shape.elements();
  for (const Operand& post : post_ops_) {
    if (!HasOperand(post.op.kind)) {
      ApplyUnaryPostOp(post.op, y, count);
      continue;
    }
    const float* b = inputs[post.op.operand].as<float>();
    post.plan.ForEachRow(0, count, [&](int64_t out, std::span<const int64_t> in, int64_t n) {
      ApplyBinaryPostOp(post.op.kind, y + out, b + in[0], post.plan.stride(0), n);
    });
  }
}

absl::Status ReferenceComputation::Run(std::span<const void* const> inputs,
                                       std::span<void* const> outputs, std::byte* scratch) const {
  absl::InlinedVector<ConstTensorView, 4> seen_inputs;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const Slot& slot = inputs_[i];
    ConstTensorView& view = seen_inputs.emplace_back();
    if (!slot.present) continue;
    view = {slot.prepared.empty_handle() ? inputs[i] : slot.prepared.data(), slot.seen()};
    if (!slot.converted || !slot.prepared.empty_handle()) continue;
    view.data = scratch + slot.offset;
    Widen(slot, i, inputs[i], {scratch + slot.offset, slot.seen()});
  }
  absl::InlinedVector<TensorView, 2> seen_outputs;
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const Slot& slot = outputs_[i];
    TensorView& view = seen_outputs.emplace_back();
    if (!slot.present) continue;
    view = {slot.converted ? scratch + slot.offset : outputs[i], slot.seen()};
  }
  OCTET_RETURN_IF_ERROR(
      kernel_(std::span<const ConstTensorView>(seen_inputs).first(own_inputs_), seen_outputs));
  if (!post_ops_.empty()) ApplyPostOps(seen_inputs, seen_outputs[0].as<float>());
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const Slot& slot = outputs_[i];
    if (!slot.converted) continue;
    const TensorView stored{outputs[i], slot.stored};
    if (slot.quant) {
      QuantizeTensor(seen_outputs[i], *slot.quant, stored);
    } else {
      ConvertTensor(seen_outputs[i], stored);
    }
  }
  return absl::OkStatus();
}

class ReferenceStep : public Step {
 public:
  explicit ReferenceStep(std::shared_ptr<const ReferenceComputation> computation)
      : computation_(std::move(computation)) {}
  absl::Status Run(const StepArgs& args) const override {
    return computation_->Run(args.inputs, args.outputs, args.scratch);
  }
  size_t scratch_bytes() const override { return computation_->scratch_bytes(); }
  bool reads_input(int i) const override {
    return computation_->reads_input(static_cast<size_t>(i));
  }

 private:
  std::shared_ptr<const ReferenceComputation> computation_;
};

}  // namespace

absl::StatusOr<Kernel> MakeReferenceKernel(const Graph& graph, const Node& node) {
  OCTET_ASSIGN_OR_RETURN(auto computation, ReferenceComputation::Make(graph, node));
  return Kernel([computation](std::span<const ConstTensorView> inputs,
                              std::span<const TensorView> outputs) -> absl::Status {
    absl::InlinedVector<const void*, 4> in;
    absl::InlinedVector<void*, 2> out;
    for (const ConstTensorView& view : inputs) in.push_back(view.data);
    for (const TensorView& view : outputs) out.push_back(view.data);
    const auto scratch = AllocateAligned(computation->scratch_bytes());
    return computation->Run(in, out, scratch.get());
  });
}

absl::StatusOr<std::unique_ptr<Step>> MakeReferenceStep(const LowerContext& context) {
  OCTET_ASSIGN_OR_RETURN(auto computation, ReferenceComputation::Make(context.graph, context.node));
  LayerRecord& layer = context.layer;
  layer.runs = computation->moves_data() ? "none" : "f32";
  layer.impl = "reference";
  layer.isa = context.target.isa;
  layer.macs = MultiplyAdds(context.graph, context.node);
  return std::make_unique<ReferenceStep>(std::move(computation));
}

absl::StatusOr<std::vector<Tensor>> Evaluate(const Graph& graph, std::span<const Tensor> inputs) {
  if (inputs.size() != graph.inputs.size()) {
    return InvalidArgument("wrong number of inputs: expected {}, got {}", graph.inputs.size(),
                           inputs.size());
  }
  std::vector<Tensor> values(graph.value_count());
  for (ValueId id = 0; id < graph.value_count(); ++id) values[id] = graph.value(id).constant;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Value& value = graph.value(graph.inputs[i]);
    if (!value.has_static_shape() || inputs[i].spec() != TensorSpec{value.dtype, *value.shape}) {
      return InvalidArgument("input '{}' has the wrong element type or shape: got {}{}", value.name,
                             DTypeName(inputs[i].dtype()), inputs[i].shape().ToString());
    }
    values[graph.inputs[i]] = inputs[i];
  }
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    // What a kernel makes of strings goes with it; what it moves stays where it was, in an input or a constant.
    const OpDef* def = FindOp(node);
    if (TouchesStrings(graph, node) && (def == nullptr || !def->traits.data_movement))
      return Unimplemented("{}: strings are a program's", Describe(node));
    OCTET_ASSIGN_OR_RETURN(const Kernel kernel, MakeReferenceKernel(graph, node));
    std::vector<ConstTensorView> in;
    for (const ValueId v : node.inputs)
      in.push_back(v == kNone ? ConstTensorView{} : values[v].view());
    std::vector<TensorView> out;
    for (const ValueId v : node.outputs) {
      if (v != kNone) values[v] = Tensor(graph.value(v).dtype, *graph.value(v).shape);
      out.push_back(v == kNone ? TensorView{} : values[v].mutable_view());
    }
    OCTET_RETURN_IF_ERROR(Annotate(kernel(in, out), Describe(node)));
  }
  std::vector<Tensor> outputs;
  for (const ValueId id : graph.outputs) outputs.push_back(values[id]);
  return outputs;
}

}  // namespace octet
