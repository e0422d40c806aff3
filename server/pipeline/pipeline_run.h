// One request of a pipeline, from step to step.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#include "engine/engine.h"
#include "server/repository/model_version.h"
#include "server/repository/pipeline.h"
#include "server/scheduling/dispatcher.h"
#include "server/tracing/traced_step.h"

namespace octet {

/// What tensors lie in, for those that need them when the request is over.
struct KeptTensors {
  std::vector<std::shared_ptr<const void>> owners;
  size_t bytes = 0;
};

/// What a request's steps share.
struct PipelineCall {
  std::shared_ptr<const ModelVersion> version;  ///< With a pipeline.
  std::string sticky_key;                       ///< For the routing of its models; empty = none.
  Dispatcher& dispatcher;
  Clock& clock;
  bool captures = true;   ///< The client lets the inputs of its steps be kept.
  KeptTensors kept = {};  ///< Of the request's inputs.
  /// Where it says what became of each step; outlives the request. Null: the request has no trace.
  std::vector<TracedStep>* trace = nullptr;
};

/// Runs a request through the steps of a pipeline, and calls its `done` exactly once, when no step is under way any more; perhaps
/// before this returns. The inputs, of the pipeline's signature, have passed CheckInput and CheckRows.
///
/// A step waits in its model's own queue, under the request's deadline and priority, as soon as all that it reads is there; steps that do not
/// wait for each other run side by side. Tensors stay where the worker wrote them until the request ends, and are read there by
/// the next steps. A step's request is its model's traffic as a client's is: the model's guard judges it, and when it was
/// answered and the next steps were submitted, the model's capture and its shadow may have it.
///
/// The first error ends the request and names the step; steps that have not been submitted are not any more. A tensor of a step
/// that does not fit its reader is FAILED_PRECONDITION, and names both.
void RunPipeline(PipelineCall call, std::unique_ptr<InferenceRequest> request);

}  // namespace octet
