// Loads one file: reads, compiles and warms it up.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

#include "config/model_config.h"
#include "engine/engine.h"
#include "server/scheduling/clock.h"

namespace octet {

/// A model that has run once for every batch size that it was compiled for.
struct LoadedVariant {
  std::shared_ptr<const Model> model;
  int max_batch = 0;        ///< Of the options: what was compiled, whatever is asked for since.
  Certificate certificate;  ///< Of the plan for one row; empty when other extents are open.
  Nanoseconds load_time{0};
  /// Of one row, the least of a few runs; nothing when other extents are open.
  std::optional<Nanoseconds> run_time;
  bool steady = false;          ///< As ExecutionTarget::steady; false when other extents are open.
  bool held_to_golden = false;  ///< There was an archive of answers, and it passed.
};

/// The share of the multiply-adds that runs in int8, 0 .. 1; nullopt of a certificate without any, as of open shapes.
std::optional<double> Int8MacRatio(const Certificate& certificate);

/// What a variant must answer before it is served.
struct GoldenRule {
  std::string file;  ///< Nothing is asked where there is no such file.
  ModelConfig::Golden floor;
};

/// Loads the file and runs each of its plans on zeros, so that no request meets a page that was
/// never touched or a kernel that was never made; then it must pass CheckGolden.
/// Errors: as Model::Load and CheckGolden, naming the file; RESOURCE_EXHAUSTED without memory or a thread for it.
absl::StatusOr<LoadedVariant> LoadVariant(const std::string& path, const LoadOptions& options,
                                          const GoldenRule& golden);

/// Why two variants cannot answer the same requests; OK when they can. Names, element types and
/// extents of inputs and outputs must be equal; an output's extent that one of them leaves open may
/// be anything in the other.
absl::Status CheckSameSignature(const Signature& expected, const Signature& got);

}  // namespace octet
