// The verbs of `octet`: one file each, one line in the list in main.cc.
#pragma once

#include <CLI/CLI.hpp>

namespace octet::cli {

/// What the process ends with: 0 done, 1 failed (the message is on stderr), 2 wrong usage, 3 from `rollout`: not promoted.
struct Outcome {
  int exit_code = 0;
};

/// Adds a subcommand whose callback does the work and sets `outcome`. Both outlive the parse.
void AddServe(CLI::App& app, Outcome& outcome);
void AddQuantize(CLI::App& app, Outcome& outcome);
void AddQat(CLI::App& app, Outcome& outcome);
void AddInspect(CLI::App& app, Outcome& outcome);
void AddCheck(CLI::App& app, Outcome& outcome);
void AddGolden(CLI::App& app, Outcome& outcome);
void AddEval(CLI::App& app, Outcome& outcome);
void AddBench(CLI::App& app, Outcome& outcome);
void AddLoad(CLI::App& app, Outcome& outcome);
void AddReport(CLI::App& app, Outcome& outcome);
void AddExperiments(CLI::App& app, Outcome& outcome);
void AddTop(CLI::App& app, Outcome& outcome);
void AddRollout(CLI::App& app, Outcome& outcome);
void AddReplay(CLI::App& app, Outcome& outcome);

}  // namespace octet::cli
