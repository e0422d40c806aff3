// The options that every verb which loads a model shares.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "engine/engine.h"

namespace octet::cli {

struct ModelOptions {
  std::string path;
  std::string precision;
  int threads = 1;
  double require_int8 = 0;
  std::vector<std::string> disabled_passes;

  /// MODEL, --precision, --threads, --require-int8, --disable-pass.
  void AddTo(CLI::App& verb);
  LoadOptions ToLoadOptions() const;
  /// Also configures the calling thread to run the model.
  absl::StatusOr<std::shared_ptr<const Model>> Load() const;
};

/// Prints "octet: <message>" to stderr and returns the exit code of a failure, 1.
int Fail(const absl::Status& status);

/// The shapes of a batch: extent 0 of every input is `batch` where the model leaves it open. INVALID_ARGUMENT naming
/// the input when another extent is open, too.
absl::StatusOr<std::vector<Shape>> ShapesForBatch(const Signature& signature, int64_t batch);

}  // namespace octet::cli
