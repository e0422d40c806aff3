// What a trace says of a step of a pipeline.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "server/scheduling/clock.h"
#include "server/scheduling/request.h"

namespace octet {

/// A step of one request. Views look into the pipeline.
struct TracedStep {
  std::string_view name;
  std::string model;  ///< As metrics name it, likewise version and precision.
  std::string_view version;
  std::string_view
      precision;  ///< Empty, as the next one: of a pipeline, or it was refused before that was known.
  std::string_view route;
  std::optional<TimePoint> begin;  ///< Absent: it was never its turn.
  RequestTimings timings;
  absl::Status status;
  std::vector<TracedStep> steps;  ///< Its own, when it is a pipeline.
};

}  // namespace octet
