// What every front door of the process asks and feeds, whatever the protocol.
#pragma once

#include "server/metrics/registry.h"
#include "server/repository/model_repository.h"
#include "server/scheduling/clock.h"
#include "server/scheduling/dispatcher.h"
#include "server/scheduling/gate.h"

namespace octet {

class CallerRunners;
class SharedMemory;
class Tracer;

/// Everything outlives the servers that are given it.
struct ServingParts {
  ModelRepository& repository;
  Dispatcher& dispatcher;
  MetricsRegistry& metrics;
  Gate& gate;  ///< Every inference is inside from its arrival until its answer has been sent.
  Clock& clock = Clock::Real();
  SharedMemory* shared_memory = nullptr;  ///< Null = clients may not use any.
  Tracer* tracer = nullptr;               ///< Null = no request has a trace.
  CallerRunners* callers = nullptr;       ///< Null = every request runs on a worker.
  int workers = 1;                        ///< That run batches side by side.
};

}  // namespace octet
