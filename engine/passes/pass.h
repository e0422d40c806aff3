// Graph rewrites. One file per pass, one ordered list (pass_list.cc). Every pass accepts unknown extents:
// the list runs once when a model is loaded, and again on a copy when a plan is compiled for a shape, so a
// pass that finds nothing to do must cost little and change nothing.
#pragma once

#include <chrono>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/graph/precision.h"
#include "engine/ops/target.h"

namespace octet {

struct PassContext;

/// A named rewrite. `run` returns how many rewrites it made.
struct Pass {
  std::string_view name;     ///< "fold_batch_norm": what --disable-pass takes.
  std::string_view summary;  ///< One line for `octet inspect --passes`.
  absl::StatusOr<int> (*run)(Graph&, const PassContext&);
  /// Says what the file says in fewer words, and leaves values as ONNX has them: runs before a graph is cut into segments,
  /// each of which all passes run on.
  bool before_cut = false;
};

/// In the order in which they run. A name may appear twice: switching it off switches off both.
std::span<const Pass> AllPasses();

struct PassContext {
  Precision precision = Precision::kFp32;  ///< What the variant asks for.
  Target target;
  std::set<std::string, std::less<>> disabled;  ///< Pass names that are skipped.
  std::span<const Pass> passes = AllPasses();   ///< What runs: all, or as many as shall.
};

/// NOT_FOUND listing the known names when one of `names` is no pass.
absl::Status CheckPassNames(std::span<const std::string> names);

struct PassTrace {
  std::string_view name;
  int rewrites = 0;
  std::chrono::nanoseconds time{};
};

/// Infers shapes, runs every enabled pass of the context in order, removes dead nodes and verifies after each.
/// Errors: as the pass; INTERNAL naming the pass when the verifier objects.
absl::StatusOr<std::vector<PassTrace>> RunPasses(Graph& graph, const PassContext& context);

/// Runs those passes alone whose names are among `names`, and not among `disabled`. Errors: as RunPasses.
absl::Status RunNamedPasses(Graph& graph, std::span<const std::string_view> names,
                            std::span<const std::string> disabled);

}  // namespace octet
