// One request of a pipeline, from step to step.
#pragma once

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

/// What a request's steps share.
struct PipelineCall {
  std::shared_ptr<const ModelVersion> version;  ///< With a pipeline.
  std::string sticky_key;                       ///< For the routing of its models; empty = none.
  Dispatcher& dispatcher;
  Clock& clock;
  /// Where it says what became of each step; outlives the request. Null: the request has no trace.
  std::vector<TracedStep>* trace = nullptr;
};

/// Runs a request through the steps of a pipeline, and calls its `done` exactly once, when no step is under way any more; perhaps
/// before this returns. The inputs, of the pipeline's signature, have passed CheckInput and CheckRows.
///
/// A step waits in its model's own queue, under the request's deadline, as soon as all that it reads is there; steps that do not
/// wait for each other run side by side. Tensors stay where the worker wrote them until the request ends, and are read there by
/// the next steps. What a model's traffic is otherwise offered to, its shadow and its capture, sees no step.
///
/// The first error ends the request and names the step; steps that have not been submitted are not any more. A tensor of a step
/// that does not fit its reader is FAILED_PRECONDITION, and names both.
void RunPipeline(PipelineCall call, std::unique_ptr<InferenceRequest> request);

}  // namespace octet
