#include "cli/evaluation.h"

#include <algorithm>
#include <chrono>

#include "cli/progress.h"

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

// Scores of 16 bits are widened into `wide`.
absl::StatusOr<std::span<const float>> FirstOutput(const Session& session, Tensor& wide) {
  const ConstTensorView output = session.output(0);
  if (output.dtype() == DType::kF32) return output.span<float>();
  if (output.dtype() != DType::kF16 && output.dtype() != DType::kBF16) {
    return InvalidArgument("output '{}': expected FP32, FP16 or BF16 scores, got {}",
                           session.model().signature().outputs[0].name, DTypeName(output.dtype()));
  }
  wide = Tensor(DType::kF32, output.shape());
  ConvertTensor(output, wide.mutable_view());
  return wide.span<float>();
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
    const bool same_type = a.dtype == b.dtype || (IsFloat(a.dtype) && IsFloat(b.dtype) &&
                                                  !(expected[i].mapped && b.dtype == DType::kF64));
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
      : session_(session), reference_(reference), samples_(samples) {}

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
    OCTET_ASSIGN_OR_RETURN(const std::span<const float> scores, FirstOutput(session_, scores_));
    std::span<const float> expected;
    if (reference_ != nullptr) {
      OCTET_RETURN_IF_ERROR(Feed(*reference_, first, rows));
      OCTET_RETURN_IF_ERROR(reference_->Run());
      OCTET_ASSIGN_OR_RETURN(expected, FirstOutput(*reference_, expected_));
      if (expected.size() != scores.size()) {
        return InvalidArgument("the reference's output has {} elements, the model's {}",
                               expected.size(), scores.size());
      }
      tally_.noise.Add(scores, expected);
    }
    tally_.count += rows;
    const auto classes = static_cast<size_t>(ClassesOf(session_.output(0).shape(), rows));
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
  Tally tally_;
  Tensor scores_;    ///< Of a model that answers in 16 bits.
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

nlohmann::ordered_json ToJson(const Tally& tally, bool labels, bool reference) {
  const auto percent = [&](bool measured, int64_t hits) {
    return measured && tally.class_rows > 0 ? nlohmann::json(100.0 * static_cast<double>(hits) /
                                                             static_cast<double>(tally.class_rows))
                                            : nlohmann::json();
  };
  return {
      {"count", tally.count},
      {"top1", percent(labels, tally.correct)},
      {"agreement", percent(reference, tally.agree)},
      {"sqnr_db", tally.noise.noise > 0 ? nlohmann::json(tally.noise.SqnrDb()) : nlohmann::json()},
      {"non_finite", reference ? nlohmann::json(tally.noise.non_finite) : nlohmann::json()},
      {"items_per_second", static_cast<double>(tally.count) / tally.seconds}};
}

}  // namespace octet::cli
