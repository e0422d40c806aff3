// Octet's engine: load an ONNX model in a precision, open a session, run it. The only header of engine/
// that server/ and cli/ include.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/graph/precision.h"
#include "engine/onnx/onnx_file.h"
#include "engine/ops/step.h"
#include "engine/passes/bisection.h"
#include "engine/passes/pass.h"
#include "engine/quantize/layer_comparison.h"
#include "engine/quantize/quantizer.h"
#include "engine/tensor/datum.h"
#include "engine/tensor/npz.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/real_format.h"
#include "engine/tensor/tensor.h"
#include "engine/tensor/wire_mapping.h"
#include "engine/train/train.h"

namespace octet {

/// How coarse an output is: its elements are `scale` apart before a Softmax (if there is one) made shares of the output's rows,
/// which lie along its last axis.
struct OutputStep {
  float scale = 0;
  bool softmax = false;
};

/// One input or output of a model: what a request must bring, what an answer holds.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kUndefined;
  Shape shape;  ///< kUnknownDim where requests, or the data, may differ.
  /// Outputs that are dequantized from 8 bits, or are such integers.
  std::optional<OutputStep> step = std::nullopt;
  ValueKind kind = ValueKind::kTensor;
  bool rank_known = true;  ///< False: `shape` is empty and says nothing.
  /// Of an input whose reals plans read in this format instead of `dtype` (LoadOptions::narrow_inputs).
  std::optional<RealFormat> narrow = std::nullopt;
};

/// The interface of a model, from its file.
struct Signature {
  std::vector<TensorInfo> inputs;
  std::vector<TensorInfo> outputs;
  /// True when extent 0 of every input and output is unknown: requests may be stacked along it. Never for a model whose
  /// shapes follow from its data, or with control flow: what one sample does there may be another one's matter; and not where
  /// samples are seen to meet.
  bool batches = false;
  /// The node or output in which samples meet, where that is why the model does not batch; else "" (plan/row_mixing.h).
  std::string samples_meet_in;
};

/// Told how long compiling one plan took, by the thread that compiled it; several threads may at once.
using CompileObserver = std::function<void(std::chrono::nanoseconds)>;

struct LoadOptions {
  /// Nullopt: what the file says (metadata "octet.precision", else from its operators and types).
  std::optional<Precision> precision;
  int threads = 1;  ///< OpenMP team size of the workers that will run it.
  int max_batch =
      1;  ///< Plans for batches 1, 2, 4, ... max_batch are compiled at load when the other
          ///< extents are known. Ignored for models that do not batch.
  std::vector<std::string> disabled_passes;
  /// The graph passes that run: all of them, or the first few (what they name must outlive the model).
  std::span<const Pass> passes = AllPasses();
  /// INVALID_ARGUMENT at load when a smaller share (per cent) of multiply-adds would run in int8.
  double require_int8_percent = 0;
  /// Compiled plans kept per model for shapes that were not compiled at load, and shapes that were refused; least recently
  /// used out. Where shapes follow from the data, so many for each segment of each plan, too (plan/program.h).
  int max_cached_plans = 32;
  CompileObserver on_compile;  ///< May be empty.
  uint64_t max_file_bytes = uint64_t{2} << 30;
  /// Plans read FP32 inputs as what the model makes of them first, where that is BF16 or 8-bit integers
  /// (TensorInfo::narrow): whoever writes a batch rounds then, in the pass that he makes over the elements anyway.
  bool narrow_inputs = false;
  /// Iterations that all loops of one run may have together.
  int64_t max_loop_iterations = int64_t{1} << 18;
};

/// What runs, layer by layer, and the proof of it. Made with a plan, for its shapes.
struct Certificate {
  Precision requested = Precision::kFp32;
  std::string isa;
  std::vector<LayerRecord> layers;
  /// Share (0..1) of the model's multiply-adds per element type that runs: {"int8": 0.99, "f32": 0.01}.
  std::map<std::string, double> MacShare() const;
  int64_t total_macs() const;
};

/// The shortest times of one layer.
struct LayerTime {
  std::chrono::nanoseconds in_order{};  ///< Within runs of the whole plan, caches as they are then.
  /// Run again and again by itself, when it is a oneDNN primitive or the kernel in place of one, else 0. The sum over all
  /// layers is the floor that the whole plan is held against.
  std::chrono::nanoseconds alone{};
};

/// Memory of one plan.
struct PlanMemory {
  size_t arena_bytes = 0;  ///< Intermediates and scratch, per worker.
  size_t live_peak_bytes =
      0;  ///< Largest sum of simultaneously live intermediates: the arena's floor.
};

/// When a run gives up. Looked at before each iteration of a loop; what has no loops runs to its end.
struct RunLimits {
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  /// Set when nobody waits for the answer any more; read until the run returns. Null = never.
  const std::atomic<bool>* cancelled = nullptr;

  /// CANCELLED or DEADLINE_EXCEEDED once the run is to give up.
  absl::Status Check() const;
};

/// A model compiled for one set of input shapes. Immutable, shared between workers.
class Plan;

/// Memory that one worker runs plans in: an arena that grows to the largest plan it has met. Not
/// thread-safe: one per worker thread.
class Workspace {
 public:
  Workspace();
  ~Workspace();
  Workspace(Workspace&&) noexcept;
  Workspace& operator=(Workspace&&) noexcept;
  size_t bytes() const;

 private:
  friend class Plan;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A loaded variant. Thread-safety: all const functions may be called from several threads.
class Model {
 public:
  virtual ~Model() = default;

  /// Reads, optimises and compiles. Errors: as ReadOnnxFile; UNIMPLEMENTED naming node, operator and opset
  /// for an unsupported operator; NOT_FOUND for unknown pass names; INVALID_ARGUMENT for an unmet
  /// require_int8_percent.
  static absl::StatusOr<std::shared_ptr<const Model>> Load(const std::string& path,
                                                           const LoadOptions& options);

  /// The same from a graph that is already in memory (its constants stay referenced, no file is re-read):
  /// for calibration, training and tests.
  static absl::StatusOr<std::shared_ptr<const Model>> FromGraph(Graph graph,
                                                                const LoadOptions& options);

  virtual const Signature& signature() const = 0;
  virtual Precision precision() const = 0;
  virtual const std::map<std::string, std::string>& metadata() const = 0;
  /// Bytes of weights held in memory for all plans together, packed forms included.
  virtual size_t resident_weight_bytes() const = 0;
  /// What each pass did at load, in order.
  virtual const std::vector<PassTrace>& pass_trace() const = 0;
  /// Text dump of the optimised graph, for inspection and bug reports.
  virtual std::string DumpGraph() const = 0;

  /// The plan for these input shapes (one per signature input, in order): cached, or compiled now (0.1 to
  /// seconds; concurrent callers for one shape wait for one compilation). INVALID_ARGUMENT naming the input,
  /// expected and got, when a shape or the agreement between inputs contradicts the signature; FAILED_PRECONDITION naming
  /// the file when a new shape needs the model's files and one of them is not what it was at load.
  virtual absl::StatusOr<std::shared_ptr<const Plan>> PlanFor(
      std::span<const Shape> input_shapes) const = 0;

  /// PlanFor with every input's extent 0 set to `batch`. Requires: all other extents known.
  absl::StatusOr<std::shared_ptr<const Plan>> PlanForBatch(int64_t batch) const;
};

class Plan {
 public:
  virtual ~Plan() = default;
  virtual std::span<const TensorSpec> inputs() const = 0;
  /// Extents that only the data decide are kUnknownDim.
  virtual std::span<const TensorSpec> outputs() const = 0;
  /// True when Run writes the outputs into the caller's buffers. Else only RunDynamic answers: the data decide extents, how
  /// often something runs, or what a sequence holds.
  virtual bool has_static_outputs() const { return true; }
  virtual const Certificate& certificate() const = 0;
  virtual PlanMemory memory() const = 0;
  virtual std::chrono::nanoseconds compile_time() const = 0;
  /// What each pass still did once these shapes were known, in order.
  virtual const std::vector<PassTrace>& pass_trace() const = 0;

  /// Computes outputs from inputs. `inputs[i]` and `outputs[i]` point at dense row-major elements of
  /// inputs()[i] and outputs()[i]; output buffers are written once and may not overlap anything.
  /// Call on a thread whose OpenMP team is LoadOptions::threads (ConfigureWorkerThread).
  virtual absl::Status Run(Workspace& workspace, std::span<const void* const> inputs,
                           std::span<void* const> outputs) const = 0;

  /// Computes outputs that it owns, of the extents that the data decide; the inputs' elements may be somebody else's.
  /// Errors: INVALID_ARGUMENT naming input or node for data that do not fit; RESOURCE_EXHAUSTED for loops and values over
  /// the limits of LoadOptions; as RunLimits::Check.
  virtual absl::StatusOr<std::vector<Datum>> RunDynamic(Workspace& workspace,
                                                        std::span<const Datum> inputs,
                                                        const RunLimits& limits) const;

  /// Times the layers, `repeats` runs of each kind, on inputs that are made up: one row per row of certificate().layers.
  virtual absl::StatusOr<std::vector<LayerTime>> LayerTimes(Workspace& workspace,
                                                            int repeats) const = 0;

 protected:
  /// For the implementation, which defines Workspace::Impl.
  static Workspace::Impl& Internals(Workspace& workspace);
};

/// Sets the calling thread's OpenMP team size and flush-to-zero mode, once per worker before it runs its
/// first plan. Plans must be run with the team size that they were loaded for.
void ConfigureWorkerThread(int threads);

/// Puts the calling thread into flush-to-zero mode while it lives, and then back into the mode it was in: for a thread that
/// runs a plan and then goes on with work that must keep denormals, such as reading and writing numbers as text.
class FlushToZero {
 public:
  FlushToZero();
  ~FlushToZero();
  FlushToZero(const FlushToZero&) = delete;
  FlushToZero& operator=(const FlushToZero&) = delete;

 private:
  const unsigned mode_before_;
};

/// The instruction sets that oneDNN uses here, and what they make possible.
Target DetectTarget(int threads);

/// The oneDNN version in use, "3.7.2".
std::string OneDnnVersion();

}  // namespace octet
