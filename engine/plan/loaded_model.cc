#include "engine/plan/loaded_model.h"

#include <omp.h>
#include <xmmintrin.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <set>
#include <stdexcept>

#include "engine/onednn/cache_sizes.h"
#include "engine/onednn/isa.h"
#include "engine/onednn/runtime.h"
#include "engine/onnx/onnx_file.h"
#include "engine/ops/op.h"
#include "engine/passes/pass.h"
#include "engine/plan/compiler.h"
#include "engine/plan/cut.h"
#include "engine/plan/narrow_inputs.h"
#include "engine/plan/precision_detection.h"
#include "engine/plan/program_plan.h"
#include "engine/plan/row_mixing.h"
#include "engine/plan/signature.h"
#include "engine/plan/sliced_plan.h"
#include "engine/plan/slicing.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

size_t ConstantBytes(const Graph& graph) {
  std::set<const void*> seen;
  size_t bytes = 0;
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    const Value& value = graph.value(id);
    if (value.is_constant() && seen.insert(value.constant.data()).second)
      bytes += MemoryBytes(value.constant.view());
  }
  return bytes;
}

// What a core can keep beside it: its own cache of level 2, and its share of level 3.
size_t CacheBytes() { return onednn::PerCoreCacheBytes(2, 0) + onednn::PerCoreCacheBytes(3, 0); }

// Runs `make`; a shape or a model that no memory holds is an error of the caller, whatever the limits say.
template <typename Fn>
auto WithinMemory(const Fn& make) -> decltype(make()) {
  try {
    return make();
  } catch (const std::bad_alloc&) {
    return MakeError(absl::StatusCode::kResourceExhausted, "out of memory");
  } catch (const std::length_error& e) {
    return InvalidArgument("impossible size: {}", e.what());
  }
}

absl::Status CheckOptions(const LoadOptions& options) {
  if (options.threads < 1)
    return InvalidArgument("threads: expected at least 1, got {}", options.threads);
  if (options.max_batch < 1)
    return InvalidArgument("max_batch: expected at least 1, got {}", options.max_batch);
  if (options.max_cached_plans < 1) {
    return InvalidArgument("max_cached_plans: expected at least 1, got {}",
                           options.max_cached_plans);
  }
  return CheckPassNames(options.disabled_passes);
}

std::shared_ptr<const ProgramContext> MakeContext(const LoadOptions& options, Precision precision,
                                                  const Target& target) {
  auto context = std::make_shared<ProgramContext>();
  context->precision = precision;
  context->target = target;
  context->weights = std::make_shared<onednn::WeightCache>();
  context->disabled_passes = options.disabled_passes;
  context->passes = options.passes;
  context->max_cached_plans = options.max_cached_plans;
  context->on_compile = options.on_compile;
  context->max_loop_iterations = options.max_loop_iterations;
  return context;
}

absl::StatusOr<std::shared_ptr<const Model>> MakeModel(Graph graph, std::vector<SourceFile> files,
                                                       const LoadOptions& options) {
  OCTET_ASSIGN_OR_RETURN(const Precision detected, DetectPrecision(graph));
  auto model = std::make_shared<LoadedModel>(std::move(graph), std::move(files), options,
                                             options.precision.value_or(detected));
  OCTET_RETURN_IF_ERROR(model->Prepare());
  return std::shared_ptr<const Model>(std::move(model));
}

/// Denormals cost a hundred cycles each and carry nothing.
void SetFlushToZero() {
  _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
  _mm_setcsr(_mm_getcsr() | 0x0040);  // Denormals are zero on input, too.
}

}  // namespace

LoadedModel::LoadedModel(Graph graph, std::vector<SourceFile> files, LoadOptions options,
                         Precision precision)
    : files_(std::move(files)),
      options_(std::move(options)),
      precision_(precision),
      target_(onednn::DetectTarget(options_.threads)),
      context_(MakeContext(options_, precision_, target_)),
      metadata_(graph.metadata),
      plans_(options_.max_cached_plans, options_.on_compile),
      graph_(std::make_shared<const Graph>(std::move(graph))) {}

absl::StatusOr<std::vector<PassTrace>> LoadedModel::Optimise(Graph& graph) const {
  // A graph that will be cut is optimised piece by piece.
  return RunPasses(graph, needs_stages_ ? PassesBeforeCut(*context_) : AllPassesOf(*context_));
}

// Whether the model can have static plans: as it stands, or once decided conditions and what constants select are folded. And
// whether its samples stay apart.
absl::Status LoadedModel::Examine(const Graph& read) {
  Graph graph = read;
  OCTET_RETURN_IF_ERROR(InferShapes(graph));
  rows_meet_ = WhereRowsMeet(graph);
  OCTET_ASSIGN_OR_RETURN(needs_stages_, NeedsStages(graph));
  if (!needs_stages_) return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(RunPasses(graph, PassesBeforeCut(*context_)).status());
  OCTET_ASSIGN_OR_RETURN(needs_stages_, NeedsStages(graph));
  return absl::OkStatus();
}

absl::Status LoadedModel::Prepare() {
  const onednn::TeamSizeScope team(options_.threads);
  {
    absl::MutexLock lock(&mutex_);
    Graph graph = *graph_;
    graph_.reset();
    OCTET_RETURN_IF_ERROR(Examine(graph));
    OCTET_ASSIGN_OR_RETURN(pass_trace_, Optimise(graph));
    signature_ = MakeSignature(graph);
    signature_.batches = signature_.batches && !needs_stages_;
    if (signature_.batches && rows_meet_) {
      signature_.batches = false;
      signature_.samples_meet_in = *rows_meet_;
    }
    if (narrows_inputs()) {
      const std::vector<std::optional<RealFormat>> formats = NarrowInputs(graph);
      for (size_t i = 0; i < formats.size(); ++i) signature_.inputs[i].narrow = formats[i];
    }
    dump_ = Dump(graph);
    graph_ = std::make_shared<const Graph>(std::move(graph));
  }
  const std::vector<std::vector<Shape>> known = ShapesAtLoad();
  for (const std::vector<Shape>& shapes : known) {
    const bool last = &shapes == &known.back();
    OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, plans_.Get(shapes, true, [&] {
      // A program's segments hold on to the constants anyway.
      const bool release = last && !files_.empty() && !needs_stages_;
      return Compile(shapes, release ? TakeGraph() : OptimisedGraph());
    }));
    if (&shapes == &known.front()) OCTET_RETURN_IF_ERROR(CheckInt8Share(*plan));
  }
  context_->weights->Trim();
  if (known.empty() && options_.require_int8_percent > 0) {
    return InvalidArgument(
        "int8 share cannot be required: the model's input shapes are known only at run time");
  }
  return absl::OkStatus();
}

std::shared_ptr<const Graph> LoadedModel::TakeGraph() {
  absl::MutexLock lock(&mutex_);
  return std::move(graph_);
}

// One set of input shapes per batch bucket; none when an extent besides the batch is open.
std::vector<std::vector<Shape>> LoadedModel::ShapesAtLoad() const {
  std::vector<int64_t> batches{1};
  if (signature_.batches) {
    while (batches.back() * 2 < options_.max_batch) batches.push_back(batches.back() * 2);
    if (batches.back() < options_.max_batch) batches.push_back(options_.max_batch);
  }
  std::vector<std::vector<Shape>> sets;
  for (const int64_t batch : batches) {
    std::vector<Shape>& shapes = sets.emplace_back();
    for (const TensorInfo& input : signature_.inputs) {
      Shape shape = input.shape;
      if (signature_.batches) shape[0] = batch;
      if (!input.rank_known || !shape.is_static()) return {};
      shapes.push_back(std::move(shape));
    }
  }
  return sets;
}

absl::Status LoadedModel::CheckInt8Share(const Plan& plan) const {
  if (options_.require_int8_percent <= 0) return absl::OkStatus();
  const std::map<std::string, double> share = plan.certificate().MacShare();
  const auto int8 = share.find("int8");
  const double percent = int8 == share.end() ? 0 : 100 * int8->second;
  if (percent >= options_.require_int8_percent) return absl::OkStatus();
  return InvalidArgument(
      "too few multiply-adds run in int8: expected at least {:.1f} per cent, got {:.1f}",
      options_.require_int8_percent, percent);
}

// What is wrong with the files by now is no fault of whoever asks for a plan.
absl::StatusOr<Graph> LoadedModel::ReadAgain() const {
  const auto needed = [](const absl::Status& status) {
    if (status.ok() || absl::IsResourceExhausted(status)) return status;
    return absl::FailedPreconditionError(
        Format("a plan for a new shape needs the model's files: {}", Message(status)));
  };
  OCTET_RETURN_IF_ERROR(needed(CheckUnchanged(files_)));
  absl::StatusOr<Graph> graph =
      ReadOnnxFile(files_.front().path, {.max_file_bytes = options_.max_file_bytes});
  OCTET_RETURN_IF_ERROR(needed(graph.status()));
  // They may have been written in the meantime.
  OCTET_RETURN_IF_ERROR(needed(CheckUnchanged(files_)));
  return graph;
}

absl::StatusOr<std::shared_ptr<const Graph>> LoadedModel::OptimisedGraph() const {
  {
    absl::MutexLock lock(&mutex_);
    if (graph_) return graph_;
  }
  OCTET_ASSIGN_OR_RETURN(Graph graph, ReadAgain());
  OCTET_RETURN_IF_ERROR(Optimise(graph).status());
  if (narrows_inputs()) NarrowInputs(graph);
  return std::make_shared<const Graph>(std::move(graph));
}

absl::StatusOr<BoundGraph> LoadedModel::Bind(const Graph& optimised,
                                             std::span<const Shape> input_shapes) const {
  BoundGraph bound{optimised, {}};
  BindShapes(bound.graph, input_shapes);
  OCTET_ASSIGN_OR_RETURN(bound.trace, Optimise(bound.graph));
  return bound;
}

// The graph of fewer rows, where `whole` is better run in slices.
std::optional<BoundGraph> LoadedModel::Slice(const Graph& whole, const Graph& optimised,
                                             std::span<const Shape> input_shapes) const {
  const int64_t rows = input_shapes.front()[0];
  if (!RowsAreIndependent(whole, rows)) return std::nullopt;
  const int64_t rows_per_slice =
      RowsPerSlice(whole, rows, {options_.threads, CacheBytes(), context_->max_bytes});
  if (rows_per_slice == rows) return std::nullopt;
  std::vector<Shape> shapes(input_shapes.begin(), input_shapes.end());
  for (Shape& shape : shapes) shape[0] = rows_per_slice;
  // The model may take no other number of rows, or an extent have been it by chance.
  Graph open = optimised;
  if (!signature_.batches) OpenRows(open, rows);
  absl::StatusOr<BoundGraph> slice = Bind(open, shapes);
  if (!slice.ok() || !RowsAreIndependent(slice->graph, rows_per_slice) ||
      !DifferInRowsAlone(whole, slice->graph)) {
    return std::nullopt;
  }
  return *std::move(slice);
}

absl::StatusOr<std::shared_ptr<const Plan>> LoadedModel::Compile(
    std::span<const Shape> input_shapes,
    absl::StatusOr<std::shared_ptr<const Graph>> optimised) const {
  const onednn::TeamSizeScope team(options_.threads);
  OCTET_RETURN_IF_ERROR(optimised.status());
  OCTET_ASSIGN_OR_RETURN(BoundGraph bound, Bind(**optimised, input_shapes));
  if (needs_stages_) {
    optimised->reset();
    OCTET_ASSIGN_OR_RETURN(const bool still, NeedsStages(bound.graph));
    if (still) return ProgramPlan::Make(std::move(bound.graph), context_, std::move(bound.trace));
    OCTET_ASSIGN_OR_RETURN(bound.trace, RunPasses(bound.graph, AllPassesOf(*context_)));
  }
  std::optional<BoundGraph> slice;
  // What needed stages until its shapes were known has let go of the graph that a slice would be made of.
  if (!needs_stages_ && !input_shapes.empty() && input_shapes.front().rank() > 0)
    slice = Slice(bound.graph, **optimised, input_shapes);
  optimised->reset();
  CompileContext context{precision_, target_, *context_->weights, context_->max_bytes};
  if (!slice) {
    context.pass_trace = std::move(bound.trace);
    return CompilePlan(std::move(bound.graph), context);
  }
  bound.graph = Graph();  // Its constants are let go of while the slice is compiled.
  const onednn::TeamSizeScope alone(1);
  context.target.threads = 1;
  context.pass_trace = std::move(slice->trace);
  OCTET_ASSIGN_OR_RETURN(std::shared_ptr<const Plan> part,
                         CompilePlan(std::move(slice->graph), context));
  const int64_t slices = input_shapes.front()[0] / part->inputs().front().shape[0];
  return std::make_shared<const SlicedPlan>(std::move(part), slices, options_.threads);
}

absl::StatusOr<std::shared_ptr<const Plan>> LoadedModel::PlanFor(
    std::span<const Shape> input_shapes) const {
  OCTET_RETURN_IF_ERROR(CheckShapes(signature_, input_shapes));
  return plans_.Get(input_shapes, false, [&] {
    return WithinMemory([&] { return Compile(input_shapes, OptimisedGraph()); });
  });
}

size_t LoadedModel::resident_weight_bytes() const {
  absl::MutexLock lock(&mutex_);
  return context_->weights->resident_bytes() + (graph_ ? ConstantBytes(*graph_) : 0);
}

absl::StatusOr<std::shared_ptr<const Model>> Model::Load(const std::string& path,
                                                         const LoadOptions& options) {
  OCTET_RETURN_IF_ERROR(CheckOptions(options));
  std::vector<SourceFile> files;
  OCTET_ASSIGN_OR_RETURN(Graph graph,
                         ReadOnnxFile(path, {.max_file_bytes = options.max_file_bytes}, &files));
  return WithinMemory([&] { return MakeModel(std::move(graph), std::move(files), options); });
}

absl::StatusOr<std::shared_ptr<const Model>> Model::FromGraph(Graph graph,
                                                              const LoadOptions& options) {
  OCTET_RETURN_IF_ERROR(CheckOptions(options));
  return WithinMemory([&] { return MakeModel(std::move(graph), {}, options); });
}

absl::StatusOr<std::shared_ptr<const Plan>> Model::PlanForBatch(int64_t batch) const {
  std::vector<Shape> shapes;
  for (const TensorInfo& input : signature().inputs) {
    Shape shape = input.shape;
    if (shape.rank() > 0) shape[0] = batch;
    shapes.push_back(std::move(shape));
  }
  return PlanFor(shapes);
}

void ConfigureWorkerThread(int threads) {
  omp_set_num_threads(threads);
  // Every thread of the team has a mode of its own.
#pragma omp parallel num_threads(threads)
  SetFlushToZero();
}

FlushToZero::FlushToZero() : mode_before_(_mm_getcsr()) { SetFlushToZero(); }
FlushToZero::~FlushToZero() { _mm_setcsr(mode_before_); }

Target DetectTarget(int threads) { return onednn::DetectTarget(threads); }

std::string OneDnnVersion() { return onednn::Version(); }

}  // namespace octet
