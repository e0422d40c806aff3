// octet: quantized ONNX models, served and measured on CPUs.
#include <array>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>

#include "cli/model_options.h"
#include "cli/start_pages.h"
#include "cli/verb.h"
#include "cli/version.h"

#include "engine/tensor/pending_file.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

constexpr std::array kVerbs = {
    AddServe,  AddQuantize, AddQat,  AddInspect, AddCheck,       AddGolden, AddEval,
    AddReport, AddBench,    AddLoad, AddReplay,  AddExperiments, AddTop,    AddRollout,
};

// The library would only say that a verb is required.
absl::Status CheckVerb(CLI::App& app, std::string_view word) {
  std::string verbs;
  for (const CLI::App* verb : app.get_subcommands({})) {
    if (verb->get_name() == word) return absl::OkStatus();
    verbs += (verbs.empty() ? "" : ", ") + verb->get_name();
  }
  return WrongUsage(InvalidArgument("expected a verb, one of {}, got '{}'", verbs, word));
}

int Parsed(CLI::App& app, int argc, char** argv, const Outcome& outcome) {
  if (argc > 1 && argv[1][0] != '-') {
    if (const absl::Status known = CheckVerb(app, argv[1]); !known.ok()) return Fail(known);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "octet: internal error: %s\n", error.what());
    return 1;
  }
  return outcome.exit_code;
}

// What a verb printed is buffered: whoever reads it must not take the half of it that a full disk left for the whole.
int WithOutputWritten(int exit_code) {
  errno = 0;
  std::cout.flush();
  if (std::cout && std::ferror(stdout) == 0) return exit_code;
  // Of an earlier write the reason is gone.
  const int failed = Fail(errno != 0 ? SystemError("write", "standard output", errno)
                                     : InvalidArgument("cannot write standard output"));
  return exit_code == 0 ? failed : exit_code;
}

}  // namespace
}  // namespace octet::cli

int main(int argc, char** argv) {
  octet::cli::GiveBackStartPages();
  CLI::App app("octet: serve, quantize, inspect and measure ONNX models on CPUs", "octet");
  app.set_version_flag("--version", octet::cli::VersionText());
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  octet::cli::Outcome outcome;
  for (const auto add : octet::cli::kVerbs) add(app, outcome);
  return octet::cli::WithOutputWritten(octet::cli::Parsed(app, argc, argv, outcome));
}
