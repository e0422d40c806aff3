// What a load's runs are said to have been: as JSON, as a table, as a plot.
#pragma once

#include <string>
#include <vector>

#include "cli/load/load_driver.h"
#include <nlohmann/json.hpp>

namespace octet::cli {

struct LoadRun {
  LoadSettings settings;
  LoadTally tally;
};

/// What makes a run's figures less than they seem: a client that fell behind its plan, or was held back. Empty: nothing.
std::vector<std::string> WarningsOf(const LoadRun& run);

/// One object per run; cli/load/load_report.cc holds the keys.
nlohmann::ordered_json LoadAsJson(const LoadRun& run, const std::vector<LoadStream>& streams);

/// For people: one line per run, below it one per model and precision where there are several, errors and warnings.
std::string LoadAsTable(const std::vector<LoadRun>& runs, const std::vector<LoadStream>& streams);

/// One line per run, model and precision.
std::string LoadAsPlot(const std::vector<LoadRun>& runs, const std::vector<LoadStream>& streams);

}  // namespace octet::cli
