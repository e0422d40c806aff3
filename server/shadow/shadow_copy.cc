#include "server/shadow/shadow_copy.h"

#include <algorithm>
#include <new>
#include <optional>
#include <utility>

#include "engine/tensor/bytes_elements.h"
#include "engine/tensor/output_agreement.h"
#include "engine/tensor/status.h"
#include "server/logging/event_log.h"
#include "server/routing/shadow.h"

namespace octet {
namespace {

/// Where a histogram's sum would otherwise become infinite.
constexpr double kMostDecibels = 150;  // equal; a float's rounding is at 144
constexpr double kMostRelative = 1000;

/// Why a copy has not run, or not to its end.
ShadowDrop DropOf(absl::StatusCode code) {
  if (code == absl::StatusCode::kCancelled) return ShadowDrop::kUnloaded;
  if (code == absl::StatusCode::kUnavailable) return ShadowDrop::kDraining;
  return ShadowDrop::kQueueFull;
}

/// `real`: of floating point, which has a ratio.
void Count(const OutputComparison& comparison, bool real, ShadowMetrics& metrics) {
  if (!comparison.same_shape) metrics.shape_mismatches.Add();
  if (!comparison.same_shape && real) {
    metrics.lost_outputs.Add();
    metrics.sqnr.Observe(-kMostDecibels);
  }
  metrics.exact_elements.Add(static_cast<uint64_t>(comparison.elements));
  metrics.exact_equal.Add(static_cast<uint64_t>(comparison.equal));
  if (comparison.kl) metrics.kl_divergence.Observe(*comparison.kl);
}

void Count(const NoiseSums& noise, int64_t elements, ShadowMetrics& metrics) {
  metrics.non_finite.Add(static_cast<uint64_t>(noise.non_finite));
  if (noise.lost > 0) {  // what the others are apart says nothing of it
    metrics.lost_outputs.Add();
    metrics.sqnr.Observe(-kMostDecibels);
    metrics.relative_l2.Observe(kMostRelative);
    return;
  }
  if (noise.non_finite == elements) return;  // no difference is known
  metrics.sqnr.Observe(std::clamp(noise.SqnrDb(), -kMostDecibels, kMostDecibels));
  metrics.max_abs.Observe(noise.max_abs);
  metrics.relative_l2.Observe(std::min(noise.RelativeL2(), kMostRelative));
}

void Count(const ClassAgreement& classes, ShadowMetrics& metrics) {
  metrics.class_rows.Add(static_cast<uint64_t>(classes.rows));
  metrics.top1_agreed.Add(static_cast<uint64_t>(classes.top1));
  metrics.top5_agreed.Add(static_cast<uint64_t>(classes.top5));
}

/// The rows of a request by its first input, whether its model batches or not.
std::optional<int64_t> RowsOf(const AnsweredRequest& request) {
  if (request.inputs.empty() || request.inputs[0].shape().rank() == 0) return std::nullopt;
  return request.inputs[0].shape()[0];
}

/// The copy of one request: takes its outputs, compares them, and is gone.
class ShadowCopy final : public OutputSink {
 public:
  ShadowCopy(std::shared_ptr<ServedShadow> shadow, AnsweredRequest original)
      : shadow_(std::move(shadow)),
        original_(std::move(original)),
        rows_(RowsOf(original_)),
        outputs_(original_.outputs.size()) {}

  static std::unique_ptr<InferenceRequest> Request(std::unique_ptr<ShadowCopy> copy);

  void* Reserve(size_t index, const TensorSpec& spec) override {
    if (!original_.outputs[index]) return nullptr;
    outputs_[index] = Tensor(spec.dtype, spec.shape);
    return outputs_[index].mutable_data();
  }
  absl::Status TakeStrings(size_t index, ConstTensorView strings) override {
    if (!original_.outputs[index]) return absl::OkStatus();
    outputs_[index] = Tensor::Strings(strings.shape(), strings.span<std::string_view>());
    return absl::OkStatus();
  }

 private:
  ShadowMetrics& metrics() const { return *shadow_->pairs.at(original_.precision); }
  void Finish(const absl::Status& status, bool ran);
  absl::Status Compare();

  const std::shared_ptr<ServedShadow> shadow_;
  AnsweredRequest original_;  ///< But for its inputs, which the copy's request takes.
  const std::optional<int64_t> rows_;
  std::vector<Tensor> outputs_;  ///< In the signature's order.
};

std::unique_ptr<InferenceRequest> ShadowCopy::Request(std::unique_ptr<ShadowCopy> copy) {
  auto request = std::make_unique<InferenceRequest>();
  request->inputs = std::move(copy->original_.inputs);
  request->rows = copy->original_.rows;
  request->received = copy->original_.received;
  request->cancelled = &copy->shadow_->retired;
  // What is kept has the inputs as well, which the queue counts itself.
  const size_t inputs = request->bytes();
  size_t outputs = 0;
  for (const auto& output : copy->original_.outputs) {
    if (output) outputs += output->bytes;
  }
  request->held_bytes = std::max(inputs + outputs, copy->original_.kept_bytes) - inputs;
  request->outputs = copy.get();
  request->done = [copy = std::move(copy)](const absl::Status& status,
                                           const RequestTimings& timings) {
    copy->Finish(status, timings.ran);
  };
  return request;
}

void ShadowCopy::Finish(const absl::Status& status, bool ran) {
  if (!status.ok() && (!ran || absl::IsCancelled(status))) {
    metrics().dropped.Add(static_cast<size_t>(DropOf(status.code())));
    return;
  }
  absl::Status outcome = status;
  try {
    if (outcome.ok()) outcome = Compare();
  } catch (const std::bad_alloc&) {
    outcome = absl::ResourceExhaustedError("out of memory for a comparison");
  }
  if (outcome.ok()) return metrics().compared.Add();
  metrics().failed.Add();
  if (shadow_->failure_logged.exchange(true)) return;
  LogEvent(LogLevel::kWarn, "shadow_failed",
           {{"variant", shadow_->name}, {"error", Message(outcome)}});
}

absl::Status ShadowCopy::Compare() {
  bool classified = false;
  for (size_t i = 0; i < outputs_.size(); ++i) {
    if (!original_.outputs[i]) continue;
    const AnsweredOutput& answer = *original_.outputs[i];
    ConstTensorView reference = {answer.data, answer.spec};
    std::vector<std::string_view> strings;
    if (answer.spec.dtype == DType::kString && answer.tensor.empty_handle()) {
      const std::string_view wire(static_cast<const char*>(answer.data), answer.bytes);
      OCTET_RETURN_IF_ERROR(
          ReadBytesElements(wire, static_cast<uint64_t>(answer.spec.shape.elements()), strings));
      reference.data = strings.data();
    }
    const OutputComparison comparison = CompareOutputs(outputs_[i].view(), reference, rows_);
    Count(comparison, IsFloat(answer.spec.dtype), metrics());
    if (comparison.noise) Count(*comparison.noise, reference.elements(), metrics());
    if (!comparison.classes || classified) continue;
    Count(*comparison.classes, metrics());
    classified = true;
  }
  return absl::OkStatus();
}

}  // namespace

void SubmitShadow(std::shared_ptr<ServedShadow> shadow, AnsweredRequest request,
                  Dispatcher& dispatcher) {
  ShadowMetrics& metrics = *shadow->pairs.at(request.precision);
  const std::shared_ptr<VariantQueue> queue = shadow->queue;
  if (queue == nullptr) {
    return metrics.dropped.Add(static_cast<size_t>(ShadowDrop::kNotReady));
  }
  std::unique_ptr<InferenceRequest> copy;
  try {
    copy = ShadowCopy::Request(std::make_unique<ShadowCopy>(shadow, std::move(request)));
  } catch (const std::bad_alloc&) {
    return metrics.dropped.Add(static_cast<size_t>(ShadowDrop::kQueueFull));
  }
  dispatcher.Submit(queue, std::move(copy));
}

}  // namespace octet
