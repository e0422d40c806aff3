// Accuracy over labelled samples, and how far a model's answers are from a reference's.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "cli/samples.h"
#include "cli/session.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/output_agreement.h"

namespace octet::cli {

/// Sums over samples; the ratios are what is printed.
struct Tally {
  int64_t count = 0;
  std::string output;  ///< The one that is judged.
  bool reals = true;   ///< Whether it holds such; of all else only what is equal is counted.
  int64_t elements = 0;
  int64_t equal = 0;  ///< Of these elements, to the reference's.
  int64_t class_rows =
      0;  ///< Samples whose answer is a score for each of several classes: what correct and agree are of.
  int64_t correct = 0;
  int64_t agree = 0;
  NoiseSums noise;  ///< Of the outputs against the reference's.
  double seconds = 0;
};

/// Writes samples [first, first + rows) to a session's inputs. Requires: it is prepared for them. Errors: as Samples::Read.
absl::Status FillInputs(const Samples& samples, int64_t first, int64_t rows, Session& session);

/// Runs the session's model over the samples, `batch` at a time or as many as the model's own batch, and the reference on the
/// same. Judges the first output of reals, class labels before it are passed over, or where there is none the first output; the reference's
/// of the same name, or which is found alike. Samples that do not fill the last batch of a model with a fixed batch are left out.
/// Errors: as the runs and Samples::Read; INVALID_ARGUMENT for a reference that takes other inputs (other names, where there are several, or other
/// element types, where not both are floating point), for outputs of another size or kind
/// than the reference's, for fewer samples than the model's own batch, and naming the sample for a label that is none of the classes.
absl::StatusOr<Tally> Evaluate(Session& session, Session* reference, const Samples& samples,
                               int64_t batch);

/// Per cent of the class rows where the best class is the reference's; of an output that holds no reals, of the elements that are equal.
/// nullopt where nothing was compared so.
std::optional<double> AgreementPercent(const Tally& tally);

/// count, output, top1, agreement, sqnr_db, non_finite, items_per_second. null: not measured, for want of labels, of a reference, of classes or of reals; and the
/// SQNR of equal outputs, which have no noise. "non_finite": elements that differ by no number, because one is a NaN or
/// infinite; the SQNR is that of the others.
nlohmann::ordered_json ToJson(const Tally& tally, bool labels, bool reference);

}  // namespace octet::cli
