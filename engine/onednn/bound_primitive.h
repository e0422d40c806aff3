// A oneDNN primitive together with where each of its arguments comes from.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "oneapi/dnnl/dnnl.hpp"

namespace octet::onednn {

/// One argument of a primitive: its descriptor and the origin of its buffer.
struct ExecArg {
  enum class From : uint8_t {
    kInput,     ///< Input `index` of the step.
    kOutput,    ///< Output `index` of the step.
    kScratch,   ///< `index` bytes into the step's scratch.
    kConstant,  ///< `constant`, fixed when the primitive was made.
  };
  int arg;  ///< DNNL_ARG_*
  dnnl::memory::desc desc;
  From from;
  size_t index = 0;
  std::shared_ptr<const void> constant = nullptr;

  static ExecArg Input(int arg, dnnl::memory::desc desc, size_t slot) {
    return {arg, std::move(desc), From::kInput, slot};
  }
  static ExecArg Output(int arg, dnnl::memory::desc desc, size_t slot) {
    return {arg, std::move(desc), From::kOutput, slot};
  }
  static ExecArg Scratch(int arg, dnnl::memory::desc desc, size_t offset) {
    return {arg, std::move(desc), From::kScratch, offset};
  }
  static ExecArg Constant(int arg, dnnl::memory::desc desc, std::shared_ptr<const void> data) {
    return {arg, std::move(desc), From::kConstant, 0, std::move(data)};
  }
};

/// The memory objects of one BoundPrimitive for one frame: their buffers are set before each execution, so
/// that running allocates nothing. Not thread-safe; one per worker.
class ExecState {
 public:
  explicit ExecState(std::span<const ExecArg> args);

 private:
  friend class BoundPrimitive;
  std::vector<dnnl::memory> memories_;
  std::vector<dnnl_exec_arg_t> args_;
};

/// Immutable after construction: executed from several threads at once, each with its own ExecState.
class BoundPrimitive {
 public:
  BoundPrimitive(dnnl::primitive primitive, std::vector<ExecArg> args)
      : primitive_(std::move(primitive)), args_(std::move(args)) {}

  std::span<const ExecArg> args() const { return args_; }
  /// True when input `slot` of the step is read when it runs.
  bool ReadsInput(size_t slot) const;
  /// INTERNAL or RESOURCE_EXHAUSTED when oneDNN refuses.
  absl::StatusOr<ExecState> NewState() const;
  absl::Status Execute(ExecState& state, std::span<void* const> inputs,
                       std::span<void* const> outputs, std::byte* scratch) const;

 private:
  dnnl::primitive primitive_;
  std::vector<ExecArg> args_;
};

/// An attribute set with the user-managed scratchpad that every primitive of Octet uses.
dnnl::primitive_attr UserScratchpad();

}  // namespace octet::onednn
