// oneDNN primitives of a layer with their buffers: created once, run for every batch.
#pragma once

#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/onednn/runtime.h"

namespace octet::train {

/// Where an argument of a primitive lies. The layer's own buffers are allocated by oneDNN in the layout it chose.
inline dnnl::memory At(const dnnl::memory::desc& desc, const float* data) {
  return {desc, onednn::CpuEngine(), const_cast<float*>(data)};
}
inline dnnl::memory Allocated(const dnnl::memory::desc& desc) {
  return {desc, onednn::CpuEngine()};
}

/// Not thread-safe.
class Primitive {
 public:
  using Args = std::unordered_map<int, dnnl::memory>;

  Primitive() = default;
  Primitive(dnnl::primitive primitive, Args args)
      : primitive_(std::move(primitive)), args_(std::move(args)) {}

  /// Runs with the buffer of one argument set to `data`.
  absl::Status RunTo(int arg, float* data) {
    args_.at(arg).set_data_handle(data);
    return Run();
  }
  absl::Status Run() {
    return onednn::Catch([&] {
             thread_local dnnl::stream stream(onednn::CpuEngine());
             primitive_.execute(stream, args_);
             stream.wait();
             return true;
           })
        .status();
  }

 private:
  dnnl::primitive primitive_;
  Args args_;
};

/// A copy from one layout to another.
class Relayout {
 public:
  Relayout() = default;
  Relayout(dnnl::memory from, dnnl::memory to)
      : primitive_(dnnl::reorder(from, to), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}}) {}
  absl::Status Run() { return primitive_.Run(); }

 private:
  Primitive primitive_;
};

}  // namespace octet::train
