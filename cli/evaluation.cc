#include "cli/evaluation.h"

#include <algorithm>
#include <chrono>

#include "cli/progress.h"

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

// The output's index; 0 where none holds reals.
size_t JudgedOutput(const Signature& signature) {
  const auto first = std::ranges::find_if(
      signature.outputs, [](const TensorInfo& output) { return IsFloat(output.dtype); });
  return first == signature.outputs.end() ? 0
                                          : static_cast<size_t>(first - signature.outputs.begin());
}

// Of the reference the one of that name, if it has it.
size_t JudgedOutput(const Signature& reference, const std::string& name) {
  const auto same = std::ranges::find(reference.outputs, name, &TensorInfo::name);
  return same == reference.outputs.end() ? JudgedOutput(reference)
                                         : static_cast<size_t>(same - reference.outputs.begin());
}

// Reals of 16 or 64 bits are converted into `converted`.
std::span<const float> RealsOf(ConstTensorView output, Tensor& converted) {
  if (output.dtype() == DType::kF32) return output.span<float>();
  converted = Tensor(DType::kF32, output.shape());
  ConvertTensor(output, converted.mutable_view());
  return converted.span<float>();
}

// The samples are the model's: what a reference reads of them has to mean the same there. The name of one input alone need not, other
// tools choose their own.
absl::Status CheckReferenceInputs(const Signature& reference, const Samples& samples) {
  const auto& expected = samples.inputs();
  if (reference.inputs.size() != expected.size()) {
    return InvalidArgument("the reference takes other inputs than the model: expected {}, got {}",
                           expected.size(), reference.inputs.size());
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    const TensorInfo& a = expected[i].info;
    const TensorInfo& b = reference.inputs[i];
    const bool same_type = a.dtype == b.dtype || (IsFloat(a.dtype) && IsFloat(b.dtype));
    if (same_type && (expected.size() == 1 || a.name == b.name)) continue;
    return InvalidArgument(
        "the reference takes another input {} than the model: expected '{}' {}, got '{}' {}", i,
        a.name, DTypeName(a.dtype), b.name, DTypeName(b.dtype));
  }
  return absl::OkStatus();
}

class Evaluation {
 public:
  Evaluation(Session& session, Session* reference, const Samples& samples)
      : session_(session), reference_(reference), samples_(samples) {
    const Signature& signature = session.model().signature();
    output_ = JudgedOutput(signature);
    tally_.output = signature.outputs[output_].name;
    tally_.reals = IsFloat(signature.outputs[output_].dtype);
    if (reference != nullptr)
      expected_output_ = JudgedOutput(reference->model().signature(), tally_.output);
  }

  absl::StatusOr<Tally> Run(int64_t batch) {
    const int64_t own = samples_.OwnBatch(session_.model().signature());
    if (own != kUnknownDim) batch = own;
    if (own != kUnknownDim && samples_.count() < own) {
      return InvalidArgument("too few samples: the model's own batch is {}, got {}", own,
                             samples_.count());
    }
    ProgressBar progress("evaluating", samples_.count());
    for (int64_t first = 0; first < samples_.count(); first += batch) {
      const int64_t rows = std::min(batch, samples_.count() - first);
      if (own != kUnknownDim && rows < own) break;
      OCTET_RETURN_IF_ERROR(RunRows(first, rows));
      progress.Update(first + rows);
    }
    return tally_;
  }

 private:
  absl::Status RunRows(int64_t first, int64_t rows) {
    OCTET_RETURN_IF_ERROR(Feed(session_, first, rows));
    const auto started = std::chrono::steady_clock::now();
    OCTET_RETURN_IF_ERROR(session_.Run());
    tally_.seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    if (reference_ != nullptr) {
      OCTET_RETURN_IF_ERROR(Feed(*reference_, first, rows));
      OCTET_RETURN_IF_ERROR(reference_->Run());
    }
    tally_.count += rows;
    return tally_.reals ? JudgeReals(first, rows) : CountEqual();
  }

  absl::Status JudgeReals(int64_t first, int64_t rows) {
    const ConstTensorView output = session_.output(output_);
    const std::span<const float> scores = RealsOf(output, scores_);
    std::span<const float> expected;
    if (reference_ != nullptr) {
      const ConstTensorView other = reference_->output(expected_output_);
      if (!IsFloat(other.dtype())) return OtherKind(output, other);
      expected = RealsOf(other, expected_);
      if (expected.size() != scores.size()) {
        return InvalidArgument("the reference's output has {} elements, the model's {}",
                               expected.size(), scores.size());
      }
      tally_.noise.Add(scores, expected);
    }
    const auto classes = static_cast<size_t>(ClassesOf(output.shape(), rows));
    if (classes == 0) return absl::OkStatus();
    if (samples_.has_labels()) OCTET_RETURN_IF_ERROR(CheckLabels(first, rows, classes));
    tally_.class_rows += rows;
    for (int64_t row = 0; row < rows; ++row) {
      const size_t at = static_cast<size_t>(row) * classes;
      const std::optional<size_t> top = TopClass(scores.subspan(at, classes));
      if (!top) continue;  // no number: neither right nor in agreement
      if (samples_.has_labels()) {
        tally_.correct += std::cmp_equal(*top, samples_.labels()[static_cast<size_t>(first + row)]);
      }
      if (reference_ != nullptr) tally_.agree += top == TopClass(expected.subspan(at, classes));
    }
    return absl::OkStatus();
  }

  absl::Status CountEqual() {
    if (reference_ == nullptr) return absl::OkStatus();
    const ConstTensorView output = session_.output(output_);
    const ConstTensorView other = reference_->output(expected_output_);
    const OutputComparison comparison = CompareOutputs(output, other);
    if (!comparison.same_shape) return OtherKind(output, other);
    tally_.elements += comparison.elements;
    tally_.equal += comparison.equal;
    return absl::OkStatus();
  }

  absl::Status OtherKind(ConstTensorView output, ConstTensorView other) const {
    return InvalidArgument("output '{}' is {} of {}, the reference's '{}' {} of {}", tally_.output,
                           output.shape().ToString(), DTypeName(output.dtype()),
                           reference_->model().signature().outputs[expected_output_].name,
                           other.shape().ToString(), DTypeName(other.dtype()));
  }

  // Counted as mistakes, labels of another model's classes would say that this one is no good.
  absl::Status CheckLabels(int64_t first, int64_t rows, size_t classes) const {
    for (int64_t sample = first; sample < first + rows; ++sample) {
      const int64_t label = samples_.labels()[static_cast<size_t>(sample)];
      if (label >= 0 && std::cmp_less(label, classes)) continue;
      return InvalidArgument("label of sample {}: expected 0 to {}, got {}", sample, classes - 1,
                             label);
    }
    return absl::OkStatus();
  }

  absl::Status Feed(Session& session, int64_t first, int64_t rows) {
    OCTET_RETURN_IF_ERROR(session.Prepare(samples_.BatchShapes(first, rows)));
    return FillInputs(samples_, first, rows, session);
  }

  Session& session_;
  Session* reference_;
  const Samples& samples_;
  size_t output_ = 0;
  size_t expected_output_ = 0;  ///< The reference's.
  Tally tally_;
  Tensor scores_;    ///< Of a model that answers in other reals than FP32.
  Tensor expected_;  ///< The same of the reference.
};

}  // namespace

absl::Status FillInputs(const Samples& samples, int64_t first, int64_t rows, Session& session) {
  for (size_t i = 0; i < samples.inputs().size(); ++i)
    OCTET_RETURN_IF_ERROR(samples.Read(i, first, rows, session.input(i)));
  return absl::OkStatus();
}

absl::StatusOr<Tally> Evaluate(Session& session, Session* reference, const Samples& samples,
                               int64_t batch) {
  if (reference != nullptr)
    OCTET_RETURN_IF_ERROR(CheckReferenceInputs(reference->model().signature(), samples));
  return Evaluation(session, reference, samples).Run(batch);
}

std::optional<double> AgreementPercent(const Tally& tally) {
  const int64_t of = tally.reals ? tally.class_rows : tally.elements;
  const int64_t alike = tally.reals ? tally.agree : tally.equal;
  if (of == 0) return std::nullopt;
  return 100.0 * static_cast<double>(alike) / static_cast<double>(of);
}

nlohmann::ordered_json ToJson(const Tally& tally, bool labels, bool reference) {
  const std::optional<double> agreement =
      reference ? AgreementPercent(tally) : std::optional<double>();
  return {
      {"count", tally.count},
      {"output", tally.output},
      {"top1", labels && tally.class_rows > 0
                   ? nlohmann::json(100.0 * static_cast<double>(tally.correct) /
                                    static_cast<double>(tally.class_rows))
                   : nlohmann::json()},
      {"agreement", agreement ? nlohmann::json(*agreement) : nlohmann::json()},
      {"sqnr_db", tally.noise.noise > 0 ? nlohmann::json(tally.noise.SqnrDb()) : nlohmann::json()},
      {"non_finite",
       reference && tally.reals ? nlohmann::json(tally.noise.non_finite) : nlohmann::json()},
      {"items_per_second", static_cast<double>(tally.count) / tally.seconds}};
}

}  // namespace octet::cli
