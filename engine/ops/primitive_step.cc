#include "engine/ops/primitive_step.h"

#include <algorithm>

#include "engine/onednn/runtime.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

struct PrimitiveState : StepState {
  std::vector<onednn::ExecState> states;
};

}  // namespace

size_t PrimitiveStep::ReserveScratch(size_t bytes) {
  const size_t offset = scratch_bytes_;
  scratch_bytes_ += AlignUp(bytes);
  return offset;
}

absl::Status PrimitiveStep::Add(const dnnl::primitive_desc_base& pd,
                                std::vector<onednn::ExecArg> args) {
  // What it throws without memory a compiler takes for a shape that oneDNN does not have, and falls back to other kernels.
  OCTET_ASSIGN_OR_RETURN(const dnnl::memory::desc scratchpad,
                         onednn::Catch([&] { return pd.scratchpad_desc(); }));
  if (const size_t bytes = scratchpad.get_size(); bytes > 0) {
    args.push_back(
        onednn::ExecArg::Scratch(DNNL_ARG_SCRATCHPAD, scratchpad, ReserveScratch(bytes)));
  }
  OCTET_ASSIGN_OR_RETURN(auto primitive, onednn::Catch([&] { return dnnl::primitive(pd.get()); }));
  primitives_.emplace_back(std::move(primitive), std::move(args));
  return absl::OkStatus();
}

absl::Status PrimitiveStep::RunPrimitives(const StepArgs& args) const {
  auto& state = static_cast<PrimitiveState&>(*args.state);
  for (size_t i = 0; i < primitives_.size(); ++i) {
    OCTET_RETURN_IF_ERROR(
        primitives_[i].Execute(state.states[i], args.inputs, args.outputs, args.scratch));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<StepState>> PrimitiveStep::NewState() const {
  auto state = std::make_unique<PrimitiveState>();
  for (const onednn::BoundPrimitive& primitive : primitives_) {
    OCTET_ASSIGN_OR_RETURN(onednn::ExecState made, primitive.NewState());
    state->states.push_back(std::move(made));
  }
  return state;
}

bool PrimitiveStep::reads_input(int i) const {
  return std::ranges::any_of(primitives_, [i](const onednn::BoundPrimitive& p) {
    return p.ReadsInput(static_cast<size_t>(i));
  });
}

}  // namespace octet
