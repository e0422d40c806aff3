// octet eval: accuracy on labelled samples, agreement with a reference model.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>

#include "cli/model_options.h"
#include "cli/progress.h"
#include "cli/samples.h"
#include "cli/session.h"
#include "cli/verb.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/output_agreement.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

struct EvalOptions {
  ModelOptions model;
  std::string data;
  std::string map;
  std::string reference;
  int64_t batch = 8;
  bool json = false;
};

// Sums over samples; the ratios are what is printed.
struct Tally {
  int64_t count = 0;
  int64_t correct = 0;
  int64_t agree = 0;
  NoiseSums noise;  ///< Of the outputs against the reference's.
  double seconds = 0;
};

absl::StatusOr<std::span<const float>> FirstOutput(const Session& session) {
  const ConstTensorView output = session.output(0);
  if (output.dtype() != DType::kF32) {
    return InvalidArgument("output '{}': expected FP32 scores, got {}",
                           session.model().signature().outputs[0].name, DTypeName(output.dtype()));
  }
  return output.span<float>();
}

class Evaluation {
 public:
  Evaluation(Session session, std::optional<Session> reference, Samples samples)
      : session_(std::move(session)),
        reference_(std::move(reference)),
        samples_(std::move(samples)) {}

  absl::StatusOr<Tally> Run(int64_t batch) {
    const int64_t own = session_.model().signature().inputs[0].shape[0];
    if (own != kUnknownDim) batch = own;
    if (own != kUnknownDim && samples_.count() < own) {
      return InvalidArgument("too few samples: the model's own batch is {}, got {}", own,
                             samples_.count());
    }
    ProgressBar progress("evaluating", samples_.count());
    // Samples that do not fill the last batch of a model with a fixed batch are left out.
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
    OCTET_ASSIGN_OR_RETURN(const std::span<const float> scores, FirstOutput(session_));
    std::span<const float> expected;
    if (reference_) {
      OCTET_RETURN_IF_ERROR(Feed(*reference_, first, rows));
      OCTET_RETURN_IF_ERROR(reference_->Run());
      OCTET_ASSIGN_OR_RETURN(expected, FirstOutput(*reference_));
      if (expected.size() != scores.size()) {
        return InvalidArgument("the reference's output has {} elements, the model's {}",
                               expected.size(), scores.size());
      }
      tally_.noise.Add(scores, expected);
    }
    const size_t classes = scores.size() / static_cast<size_t>(rows);
    for (int64_t row = 0; row < rows; ++row) {
      const size_t at = static_cast<size_t>(row) * classes;
      const std::optional<size_t> top = TopClass(scores.subspan(at, classes));
      if (!top) continue;  // no number: neither right nor in agreement
      if (samples_.has_labels()) {
        tally_.correct += std::cmp_equal(*top, samples_.labels()[static_cast<size_t>(first + row)]);
      }
      if (reference_) tally_.agree += top == TopClass(expected.subspan(at, classes));
    }
    tally_.count += rows;
    return absl::OkStatus();
  }

  absl::Status Feed(Session& session, int64_t first, int64_t rows) {
    OCTET_RETURN_IF_ERROR(session.Prepare(samples_.BatchShapes(rows)));
    for (size_t i = 0; i < samples_.inputs().size(); ++i)
      samples_.Fill(i, first, rows, session.input(i));
    return absl::OkStatus();
  }

  Session session_;
  std::optional<Session> reference_;
  Samples samples_;
  Tally tally_;
};

// null: not measured, for want of labels or a reference; and the SQNR of equal outputs, which have no noise. "non_finite":
// elements that differ by no number, because one is a NaN or infinite; the SQNR is that of the others.
nlohmann::ordered_json ToJson(const Tally& tally, bool labels, bool reference) {
  const auto percent = [&](bool measured, int64_t hits) {
    return measured ? nlohmann::json(100.0 * static_cast<double>(hits) /
                                     static_cast<double>(tally.count))
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

absl::Status Eval(const EvalOptions& options) {
  OCTET_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model, options.model.Load());
  OCTET_ASSIGN_OR_RETURN(Samples samples,
                         Samples::Load(model->signature(), options.data, options.map));
  std::optional<Session> reference;
  if (!options.reference.empty()) {
    LoadOptions load;
    load.threads = options.model.threads;
    OCTET_ASSIGN_OR_RETURN(std::shared_ptr<const Model> loaded,
                           Model::Load(options.reference, load));
    reference.emplace(std::move(loaded));
  }
  const bool has_labels = samples.has_labels();
  const bool has_reference = reference.has_value();
  Evaluation evaluation(Session(std::move(model)), std::move(reference), std::move(samples));
  OCTET_ASSIGN_OR_RETURN(const Tally tally, evaluation.Run(options.batch));
  const nlohmann::ordered_json json = ToJson(tally, has_labels, has_reference);
  if (options.json) {
    std::cout << json.dump(2) << '\n';
    return absl::OkStatus();
  }
  for (const auto& [name, value] : json.items()) {
    const bool equal = name == "sqnr_db" && has_reference && tally.noise.non_finite == 0;
    std::cout << Format("{:<17} {}\n", name,
                        !value.is_null() ? value.dump()
                        : equal          ? "equal outputs"
                                         : "not measured");
  }
  return absl::OkStatus();
}

}  // namespace

void AddEval(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* verb = app.add_subcommand(
      "eval", "Measure accuracy on labelled samples, and agreement with a reference");
  options->model.AddTo(*verb);
  verb->add_option("--data", options->data, ".npz with the inputs, and labels")->required();
  verb->add_option("--map", options->map,
                   "model.yaml that says how the samples' element type maps to the model's");
  verb->add_option("--reference", options->reference, "fp32 ONNX file to compare with");
  verb->add_option("--batch", options->batch, "Samples per run")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_flag("--json", options->json, "Print JSON");
  verb->callback([options, &outcome] {
    if (const absl::Status status = Eval(*options); !status.ok()) outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli
