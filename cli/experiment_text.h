// What /v2/experiments answers, as lines for a terminal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace octet::cli {

/// The rows of an experiment: its precisions, or all of a pipeline's requests as one.
std::vector<const nlohmann::json*> ArmsOf(const nlohmann::json& experiment);

/// Requests of a row that did not run for want of room or time, whatever the reason.
uint64_t RefusedOf(const nlohmann::json& arm);

/// "-300 (-310 .. -289)", or "-" of null.
std::string DifferenceText(const nlohmann::json& over);

/// What is to be said of a row: why it is not ready, what its guard did to it or has seen, what its reason says.
std::string StateText(const nlohmann::json& arm);

/// Lines, indented, about an experiment as a whole: a sample ratio that does not fit, the ramp, and what shadow copies say.
std::string ExperimentLines(const nlohmann::json& experiment);

/// The last `most` events of a model, a line each, the latest last.
std::string EventLines(const nlohmann::json& experiment, size_t most);

/// How the versions of models that share their traffic out differ; "" of none.
std::string VersionSplitLines(const nlohmann::json& answer);

/// What is not ready, or not as its files say; "" of nothing.
std::string IndexLines(const nlohmann::json& answer);

}  // namespace octet::cli
