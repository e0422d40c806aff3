#include "server/repository/variant_loader.h"

#include <exception>
#include <map>
#include <new>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "engine/tensor/status.h"
#include "server/repository/golden.h"
#include "server/repository/model_files.h"
#include "server/scheduling/batch_policy.h"

namespace octet {
namespace {

/// The input shapes of `rows` rows; nullopt when another extent is open, or an input's rank.
std::optional<std::vector<Shape>> ShapesFor(const Signature& signature, int64_t rows) {
  std::vector<Shape> shapes;
  for (const TensorInfo& input : signature.inputs) {
    if (!input.rank_known) return std::nullopt;
    shapes.push_back(input.shape);
    if (signature.batches) shapes.back()[0] = rows;
    if (!shapes.back().is_static()) return std::nullopt;
  }
  return shapes;
}

/// A loop may take zeros for a reason to go on and on.
constexpr std::chrono::seconds kWarmUpTime{2};

/// What is spent on finding out how long a row takes.
constexpr std::chrono::milliseconds kTimingTime{10};
constexpr int kLeastRuns = 2;

/// Runs the plan on zeros. What it answers does not matter: zeros may be no sensible input.
void WarmUp(const Plan& plan, Workspace& workspace) {
  std::vector<Tensor> tensors;
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
  for (const TensorSpec& spec : plan.inputs()) {
    Tensor& tensor = tensors.emplace_back(spec.dtype, spec.shape);
    std::memset(tensor.mutable_data(), 0, tensor.bytes());
    inputs.push_back(tensor.data());
  }
  if (!plan.has_static_outputs()) {
    std::vector<Datum> data;
    for (const Tensor& tensor : tensors) data.push_back(Datum::Of(tensor));
    (void)plan.RunDynamic(workspace, data, {.deadline = Clock::Real().Now() + kWarmUpTime});
    return;
  }
  for (const TensorSpec& spec : plan.outputs()) {
    outputs.push_back(tensors.emplace_back(spec.dtype, spec.shape).mutable_data());
  }
  (void)plan.Run(workspace, inputs, outputs);
}

/// The least of a few runs: others may be at work meanwhile.
Nanoseconds TimeOf(const Plan& plan, Workspace& workspace) {
  const TimePoint begin = Clock::Real().Now();
  Nanoseconds least = Nanoseconds::max();
  TimePoint before = begin;
  for (int run = 0; run < kLeastRuns || before < begin + kTimingTime; ++run) {
    WarmUp(plan, workspace);
    const TimePoint after = Clock::Real().Now();
    least = std::min(least, after - before);
    before = after;
  }
  return least;
}

absl::Status CheckTensorsOnly(std::span<const TensorInfo> infos) {
  for (const TensorInfo& info : infos) {
    if (info.kind == ValueKind::kTensor) continue;
    return Unimplemented("requests carry tensors, but the model's '{}' is of kind {}", info.name,
                         ValueKindName(info.kind));
  }
  return absl::OkStatus();
}

absl::StatusOr<LoadedVariant> Load(const std::string& path, const LoadOptions& options,
                                   const GoldenRule& golden) {
  const FlushToZero while_it_runs;  // the thread may be a caller's
  ConfigureWorkerThread(options.threads);
  const TimePoint start = Clock::Real().Now();
  LoadedVariant loaded;
  loaded.max_batch = options.max_batch;
  OCTET_ASSIGN_OR_RETURN(loaded.model, Model::Load(path, options));
  const Signature& signature = loaded.model->signature();
  OCTET_RETURN_IF_ERROR(CheckTensorsOnly(signature.inputs));
  OCTET_RETURN_IF_ERROR(CheckTensorsOnly(signature.outputs));
  const int64_t most = signature.batches ? options.max_batch : 1;
  Workspace workspace;
  for (int64_t rows = 1; rows <= most; ++rows) {
    rows = BucketFor(rows, most);
    const auto shapes = ShapesFor(signature, rows);
    if (!shapes) break;
    OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, loaded.model->PlanFor(*shapes));
    WarmUp(*plan, workspace);
    if (rows > 1) continue;
    loaded.certificate = plan->certificate();
    loaded.run_time = TimeOf(*plan, workspace);
    loaded.steady = plan->has_static_outputs();
  }
  if (StampOf(golden.file)) {
    OCTET_RETURN_IF_ERROR(CheckGolden(golden.file, *loaded.model, golden.floor));
    loaded.held_to_golden = true;
  }
  loaded.load_time = Clock::Real().Now() - start;
  return loaded;
}

absl::Status CheckSameTensors(std::string_view kind, const std::vector<TensorInfo>& expected,
                              const std::vector<TensorInfo>& got, bool open_fits) {
  if (expected.size() != got.size()) {
    return InvalidArgument("expected {} {}s, got {}", expected.size(), kind, got.size());
  }
  for (size_t i = 0; i < got.size(); ++i) {
    const TensorInfo& a = expected[i];
    const TensorInfo& b = got[i];
    if (a.name != b.name) {
      return InvalidArgument("{} {}: expected name '{}', got '{}'", kind, i, a.name, b.name);
    }
    if (a.dtype != b.dtype) {
      return InvalidArgument("{} '{}': expected {}, got {}", kind, a.name, DTypeName(a.dtype),
                             DTypeName(b.dtype));
    }
    const bool ranks_known = a.rank_known && b.rank_known;
    bool same =
        ranks_known ? a.shape.rank() == b.shape.rank() : a.rank_known == b.rank_known || open_fits;
    for (int axis = 0; same && ranks_known && axis < a.shape.rank(); ++axis) {
      const bool open = a.shape[axis] == kUnknownDim || b.shape[axis] == kUnknownDim;
      same = a.shape[axis] == b.shape[axis] || (open && open_fits);
    }
    if (!same) {
      return InvalidArgument("{} '{}': expected shape {}, got {}", kind, a.name, a.shape.ToString(),
                             b.shape.ToString());
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<double> Int8MacRatio(const Certificate& certificate) {
  const std::map<std::string, double> share = certificate.MacShare();
  if (share.empty()) return std::nullopt;
  const auto int8 = share.find("int8");
  return int8 == share.end() ? 0 : int8->second;
}

absl::StatusOr<LoadedVariant> LoadVariant(const std::string& path, const LoadOptions& options,
                                          const GoldenRule& golden) {
  absl::StatusOr<LoadedVariant> loaded;
  // On a thread of its own: the team size and the floating-point mode that plans want are a
  // thread's, and the caller's stay as they are.
  const auto load = [&] {
    try {
      loaded = Load(path, options, golden);
    } catch (const std::bad_alloc&) {
      loaded = MakeError(absl::StatusCode::kResourceExhausted,
                         "out of memory to load the model: '{}'", path);
    } catch (const std::exception& error) {
      // Whatever it is: other models are served on.
      loaded = Internal("cannot load the model: {}: '{}'", error.what(), path);
    }
  };
  try {
    std::jthread(load).join();
  } catch (const std::exception& error) {
    loaded = MakeError(absl::StatusCode::kResourceExhausted,
                       "no thread to load the model: {}: '{}'", error.what(), path);
  }
  if (!loaded.ok() && Message(loaded.status()).find(path) == std::string_view::npos) {
    return Annotate(loaded.status(), path);
  }
  return loaded;
}

absl::Status CheckSameSignature(const Signature& expected, const Signature& got) {
  OCTET_RETURN_IF_ERROR(CheckSameTensors("input", expected.inputs, got.inputs, false));
  return CheckSameTensors("output", expected.outputs, got.outputs, true);
}

}  // namespace octet
