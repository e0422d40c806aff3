// A calibration set wherever its samples lie: in memory, or in files that are read batch by batch.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/tensor/tensor.h"

namespace octet {

/// Real-valued model inputs by name, in memory; each with one sample per index of axis 0.
using CalibrationSet = std::map<std::string, Tensor>;

/// Samples of one input along axis 0, in the model's element type, wherever they lie. Where a sample is all that a run takes
/// (CalibrationData::whole_inputs), the input's own axes come behind it.
class SampleSource {
 public:
  virtual ~SampleSource() = default;
  virtual const TensorSpec& spec() const = 0;
  /// Writes samples [first, first + rows); strings point into the source. Errors: those of what holds them.
  virtual absl::Status Read(int64_t first, int64_t rows, void* to) const = 0;
};

/// Samples in an order, 16 bytes each beside what their sources take; samples of several shapes where the model leaves extents open.
/// What is drawn of it shares its sources. Not thread-safe.
class CalibrationData {
 public:
  /// By the name of the model's input; samples at the same place belong together.
  using Sources = std::map<std::string, std::shared_ptr<const SampleSource>>;

  CalibrationData() = default;
  CalibrationData(const CalibrationSet& in_memory);  // NOLINT(google-explicit-constructor)
  CalibrationData(std::initializer_list<CalibrationSet::value_type> in_memory)
      : CalibrationData(CalibrationSet(in_memory)) {}

  /// No samples yet, each of which is all that a run takes of every input: of models whose inputs have no axis 0 in common to stack
  /// samples along.
  static CalibrationData OfWholeInputs();
  bool whole_inputs() const { return whole_inputs_; }

  /// Adds samples behind those that are there. They may disagree about their number: CheckCounts will say so.
  void Add(Sources sources);

  /// INVALID_ARGUMENT naming an input that has not as many samples as another; what reads samples requires that there is none.
  absl::Status CheckCounts() const;
  /// No sources at all.
  bool empty() const { return parts_.empty(); }
  int64_t count() const { return std::ssize(order_); }
  bool HasOneShape() const;
  /// The sources added, whatever was drawn of them.
  std::vector<const Sources*> sources() const;
  /// Those that hold a sample. Requires: there is such a sample, as wherever one is asked for below.
  const Sources& SourcesOf(int64_t sample) const {
    return parts_[order_[static_cast<size_t>(sample)].part]->sources;
  }
  /// Type and shape of the array that holds a sample; null where the input, or the sample, is none.
  const TensorSpec* SpecOf(const std::string& input, int64_t sample) const;
  /// What a run of samples [first, first + rows) takes of an input. Requires: they are alike; of whole inputs, one row.
  Shape RunShape(const std::string& input, int64_t first, int64_t rows) const;
  /// How many samples from `first` on have its shapes, `most` at most.
  int64_t Alike(int64_t first, int64_t most) const;
  /// Writes samples [first, first + rows) of an input. Requires: they are alike, and the input is known. Errors: the sources'.
  absl::Status Read(const std::string& input, int64_t first, int64_t rows, void* to) const;
  /// Shows samples [first, first + rows) of an input, some at a time: the first of them, and their elements. Errors: as Read, and those
  /// of `see`. Requires: as Read.
  using See = std::function<absl::Status(int64_t at, ConstTensorView samples)>;
  absl::Status Pass(const std::string& input, int64_t first, int64_t rows, const See& see) const;
  /// The same of all inputs, as RunShape has them. Errors: as Read, and INVALID_ARGUMENT for samples that one run does not take.
  absl::StatusOr<CalibrationSet> InMemory(int64_t first, int64_t rows) const;
  /// Where a sample is in all that was added.
  int64_t PlaceOf(int64_t sample) const;

  /// The samples at these indices, in this order.
  CalibrationData Drawn(std::span<const int64_t> samples) const;
  /// The same samples, each shape's together, in their order.
  CalibrationData Grouped() const;

 private:
  struct Part {
    Sources sources;
    int64_t before = 0;  ///< Samples in the parts before.
    size_t kind = 0;     ///< Equal where types and shapes of samples are.
  };
  struct Place {
    size_t part;
    int64_t row;
  };

  size_t KindOf(int64_t sample) const {
    return parts_[order_[static_cast<size_t>(sample)].part]->kind;
  }

  std::vector<std::shared_ptr<const Part>> parts_;
  std::map<std::string, size_t> kinds_;  ///< By what is equal in them.
  std::vector<Place> order_;
  bool whole_inputs_ = false;
};

}  // namespace octet
