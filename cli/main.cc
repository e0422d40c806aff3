// octet: quantized ONNX models, served and measured on CPUs.
#include <array>
#include <cstdio>
#include <exception>

#include "cli/verb.h"
#include "cli/version.h"

namespace octet::cli {
namespace {

constexpr std::array kVerbs = {
    AddServe,  AddQuantize, AddQat,  AddInspect, AddCheck,       AddGolden, AddEval,
    AddReport, AddBench,    AddLoad, AddReplay,  AddExperiments, AddTop,    AddRollout,
};

}  // namespace
}  // namespace octet::cli

int main(int argc, char** argv) {
  CLI::App app("octet: serve, quantize, inspect and measure ONNX models on CPUs", "octet");
  app.set_version_flag("--version", octet::cli::VersionText());
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  octet::cli::Outcome outcome;
  for (const auto add : octet::cli::kVerbs) add(app, outcome);
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
