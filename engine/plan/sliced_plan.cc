#include "engine/plan/sliced_plan.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <new>

#include "absl/container/inlined_vector.h"

#include "engine/onednn/runtime.h"
#include "engine/plan/workspace.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

std::vector<TensorSpec> Stacked(std::span<const TensorSpec> slice, int64_t slices) {
  std::vector<TensorSpec> specs(slice.begin(), slice.end());
  for (TensorSpec& spec : specs) spec.shape[0] *= slices;
  return specs;
}

}  // namespace

SlicedPlan::SlicedPlan(std::shared_ptr<const Plan> slice, int64_t slices, int threads)
    : slice_(std::move(slice)),
      slices_(slices),
      threads_(threads),
      inputs_(Stacked(slice_->inputs(), slices)),
      outputs_(Stacked(slice_->outputs(), slices)),
      certificate_(slice_->certificate()) {
  for (LayerRecord& layer : certificate_.layers) layer.macs *= slices;
}

PlanMemory SlicedPlan::memory() const {
  PlanMemory memory = slice_->memory();
  memory.arena_bytes *= static_cast<size_t>(threads_);
  memory.live_peak_bytes *= static_cast<size_t>(threads_);
  return memory;
}

// Calls fn(thread's number, its workspace) on all threads at once, each a team of one. Returns the first error.
template <typename Fn>
absl::Status SlicedPlan::OnEveryThread(Workspace& workspace, const Fn& fn) const {
  if (threads_ == 1) return fn(0, workspace);
  std::vector<Workspace>& others = Internals(workspace).others;
  while (others.size() + 1 < static_cast<size_t>(threads_)) others.emplace_back();
  absl::Status status;
#pragma omp parallel num_threads(threads_)
  {
    const onednn::TeamSizeScope alone(1);
    const int thread = omp_get_thread_num();
    absl::Status mine;
    try {
      mine = fn(thread, thread == 0 ? workspace : others[static_cast<size_t>(thread - 1)]);
    } catch (const std::bad_alloc&) {  // What left the parallel region would end the process.
      mine = MakeError(absl::StatusCode::kResourceExhausted, "out of memory");
    } catch (const std::exception& error) {
      mine = Internal("a slice of a batch: {}", error.what());
    }
#pragma omp critical(octet_sliced_plan)
    status.Update(mine);
  }
  return status;
}

absl::Status SlicedPlan::RunSlice(Workspace& workspace, int64_t index,
                                  std::span<const void* const> inputs,
                                  std::span<void* const> outputs) const {
  absl::InlinedVector<const void*, 4> from;
  absl::InlinedVector<void*, 4> to;
  const auto slice = static_cast<size_t>(index);
  for (size_t i = 0; i < inputs.size(); ++i) {
    from.push_back(static_cast<const std::byte*>(inputs[i]) + slice * slice_->inputs()[i].bytes());
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    to.push_back(static_cast<std::byte*>(outputs[i]) + slice * slice_->outputs()[i].bytes());
  }
  return slice_->Run(workspace, from, to);
}

absl::Status SlicedPlan::Run(Workspace& workspace, std::span<const void* const> inputs,
                             std::span<void* const> outputs) const {
  if (inputs.size() != inputs_.size() || outputs.size() != outputs_.size()) {
    return Internal(
        "a plan was run with the wrong number of buffers: expected {} and {}, got {} and {}",
        inputs_.size(), outputs_.size(), inputs.size(), outputs.size());
  }
  // Whoever is free takes the next one: another program may hold a core.
  std::atomic<int64_t> next{0};
  return OnEveryThread(workspace, [&](int /*thread*/, Workspace& own) {
    for (int64_t slice = next++; slice < slices_; slice = next++)
      OCTET_RETURN_IF_ERROR(RunSlice(own, slice, inputs, outputs));
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<LayerTime>> SlicedPlan::LayerTimes(Workspace& workspace,
                                                              int repeats) const {
  std::vector<std::vector<LayerTime>> times(static_cast<size_t>(threads_));
  OCTET_RETURN_IF_ERROR(OnEveryThread(workspace, [&](int thread, Workspace& own) -> absl::Status {
    OCTET_ASSIGN_OR_RETURN(times[static_cast<size_t>(thread)], slice_->LayerTimes(own, repeats));
    return absl::OkStatus();
  }));
  std::vector<LayerTime>& slowest = times.front();
  for (size_t i = 0; i < slowest.size(); ++i) {
    for (const std::vector<LayerTime>& other : times) {
      if (other.empty()) continue;  // OpenMP gave fewer threads.
      slowest[i].in_order = std::max(slowest[i].in_order, other[i].in_order);
      slowest[i].alone = std::max(slowest[i].alone, other[i].alone);
    }
    slowest[i].in_order *= slices_ / threads_;
    slowest[i].alone *= slices_ / threads_;
  }
  return std::move(slowest);
}

}  // namespace octet
