#include "engine/onednn/bound_primitive.h"

#include <algorithm>

#include "engine/onednn/runtime.h"

namespace octet::onednn {

ExecState::ExecState(std::span<const ExecArg> args) {
  memories_.reserve(args.size());
  for (const ExecArg& arg : args) {
    void* data = const_cast<void*>(arg.constant.get());
    memories_.emplace_back(arg.desc, CpuEngine(), data);
    args_.push_back({arg.arg, memories_.back().get()});
  }
}

bool BoundPrimitive::ReadsInput(size_t slot) const {
  return std::ranges::any_of(args_, [slot](const ExecArg& arg) {
    return arg.from == ExecArg::From::kInput && arg.index == slot;
  });
}

absl::StatusOr<ExecState> BoundPrimitive::NewState() const {
  return Catch([this] { return ExecState(args_); });
}

absl::Status BoundPrimitive::Execute(ExecState& state, std::span<void* const> inputs,
                                     std::span<void* const> outputs, std::byte* scratch) const {
  for (size_t i = 0; i < args_.size(); ++i) {
    void* data = nullptr;
    switch (args_[i].from) {
      case ExecArg::From::kInput:
        data = inputs[args_[i].index];
        break;
      case ExecArg::From::kOutput:
        data = outputs[args_[i].index];
        break;
      case ExecArg::From::kScratch:
        data = scratch + args_[i].index;
        break;
      case ExecArg::From::kConstant:
        continue;
    }
    dnnl_memory_set_data_handle(state.args_[i].memory, data);
  }
  const dnnl_status_t status = dnnl_primitive_execute(
      primitive_.get(), ThreadStream(), static_cast<int>(state.args_.size()), state.args_.data());
  return ToStatus(status, "oneDNN could not execute a primitive");
}

dnnl::primitive_attr UserScratchpad() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

}  // namespace octet::onednn
