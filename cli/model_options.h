// The options that every verb which loads a model shares.
#pragma once

#include <map>
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

/// Adds --disable-pass and --threads. Requires: what they write into lives until `verb` has been parsed.
void AddRunOptions(CLI::App& verb, std::vector<std::string>& disabled_passes, int& threads);

/// The model that a verb makes variants of, in fp32. Errors: as Model::Load.
absl::StatusOr<std::shared_ptr<const Model>> LoadFp32(
    const std::string& path, const std::vector<std::string>& disabled_passes, int threads);

/// A model to compare with, in its own precision; one that stores its reals in 16 bits computes in fp32, for its answers are the measure.
/// Errors: as Model::Load.
absl::StatusOr<std::shared_ptr<const Model>> LoadReference(const std::string& path, int threads);

/// Prints "octet: <message>" to stderr and returns the exit code of a failure: 2 for WrongUsage, else 1.
int Fail(const absl::Status& status);

/// An error of the command line that only the model could tell.
absl::Status WrongUsage(absl::Status status);

/// Shapes by input; an extent 0 of kUnknownDim is the batch.
using GivenShapes = std::map<std::string, Shape>;

/// The shapes of a batch: what is given for an input, else extent 0 is `batch` where the model leaves it open. WrongUsage naming
/// the input for one that the model does not have, or with other extents, expected and got, and when an extent stays open.
absl::StatusOr<std::vector<Shape>> ShapesForBatch(const Signature& signature, int64_t batch,
                                                  const GivenShapes& given = {});

/// Extents that the model leaves open.
class ShapeOptions {
 public:
  /// --shape NAME=EXTENTxEXTENT..., once per input; extents from 1 on, or "?" as the first one for the batch.
  CLI::Option* AddTo(CLI::App& verb);
  /// Errors: as ShapesForBatch; WrongUsage for an input that is given twice.
  absl::StatusOr<std::vector<Shape>> ForBatch(const Signature& signature, int64_t batch) const;

 private:
  std::vector<std::string> given_;
};

}  // namespace octet::cli
