#include "engine/ops/movement_step.h"

#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"

#include "engine/tensor/status.h"

namespace octet {
namespace {

class KernelStep final : public Step {
 public:
  KernelStep(Kernel kernel, const std::vector<ConstTensorView>& inputs,
             std::vector<TensorSpec> outputs)
      : kernel_(std::move(kernel)), outputs_(std::move(outputs)) {
    for (const ConstTensorView& input : inputs) inputs_.push_back(input.spec);
  }

  absl::Status Run(const StepArgs& args) const override {
    absl::InlinedVector<ConstTensorView, 8> inputs;
    for (size_t i = 0; i < inputs_.size(); ++i) inputs.push_back({args.inputs[i], inputs_[i]});
    absl::InlinedVector<TensorView, 4> outputs;
    for (size_t i = 0; i < outputs_.size(); ++i) outputs.push_back({args.outputs[i], outputs_[i]});
    return kernel_({inputs.data(), inputs.size()}, {outputs.data(), outputs.size()});
  }

 private:
  Kernel kernel_;
  std::vector<TensorSpec> inputs_;
  std::vector<TensorSpec> outputs_;
};

}  // namespace

std::vector<ConstTensorView> KernelInputs(const Graph& graph, const Node& node) {
  std::vector<ConstTensorView> inputs;
  for (ValueId id : node.inputs) {
    if (id == kNone) {
      inputs.emplace_back();
      continue;
    }
    const Value& value = graph.value(id);
    inputs.push_back(value.is_constant() ? value.constant.view()
                                         : ConstTensorView{nullptr, {value.dtype, *value.shape}});
  }
  return inputs;
}

std::vector<TensorSpec> KernelOutputs(const Graph& graph, const Node& node) {
  std::vector<TensorSpec> outputs;
  for (ValueId id : node.outputs) {
    outputs.push_back(id == kNone ? TensorSpec{}
                                  : TensorSpec{graph.value(id).dtype, *graph.value(id).shape});
  }
  return outputs;
}

Kernel CopyKernel(StridedCopy copy) {
  return [copy = std::move(copy)](std::span<const ConstTensorView> inputs,
                                  std::span<const TensorView> outputs) {
    copy.Run(inputs[0].data, outputs[0].data);
    return absl::OkStatus();
  };
}

std::unique_ptr<Step> MakeKernelStep(Kernel kernel, const LowerContext& context) {
  return std::make_unique<KernelStep>(std::move(kernel), KernelInputs(context.graph, context.node),
                                      KernelOutputs(context.graph, context.node));
}

absl::StatusOr<std::unique_ptr<Step>> LowerMovement(const LowerContext& context) {
  if (!context.node.post_ops.empty()) return Unimplemented("data movement takes no post-ops");
  const Value& source = context.input(0);
  for (size_t i = 0; i < context.node.outputs.size(); ++i) {
    if (context.node.outputs[i] == kNone) continue;
    const Value& result = context.output(i);
    if (result.dtype != source.dtype || result.quant != source.quant) {
      return Unimplemented("data movement keeps the stored type; it cannot requantize");
    }
  }
  const OpDef* def = FindOp(context.node);
  if (def == nullptr || def->kernel == nullptr) return UnsupportedOperator(context.node);
  const auto inputs = KernelInputs(context.graph, context.node);
  const auto outputs = KernelOutputs(context.graph, context.node);
  OCTET_ASSIGN_OR_RETURN(Kernel kernel, def->kernel({context.node, inputs, outputs}));
  context.layer.runs = "none";
  context.layer.impl = "octet:copy";
  context.layer.isa = context.target.isa;
  return MakeKernelStep(std::move(kernel), context);
}

}  // namespace octet
