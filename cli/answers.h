// Answers of a server as tensors, and how far two answers to the same requests are apart.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/engine.h"
#include "engine/tensor/output_agreement.h"
#include "proto/inference.pb.h"

namespace octet::cli {

/// Outputs by name. What they point at is the response's, or the archive's that they were cut out of.
struct Answer {
  std::map<std::string, ConstTensorView> outputs;
  std::list<std::vector<std::string_view>> strings;  ///< The elements of BYTES outputs.
};

/// The outputs of a response, which outlives them. INTERNAL naming the output for what is no tensor: an unknown datatype,
/// contents that are not raw or not of the shape's size, BYTES that end before their lengths do.
absl::StatusOr<Answer> ReadAnswer(const inference::ModelInferResponse& response);

/// Rows [first, first + rows) of every array, which outlives them. INVALID_ARGUMENT naming the array that has fewer.
absl::StatusOr<Answer> RowsOf(const NpzArrays& arrays, int64_t first, int64_t rows);

/// What comparisons of one output add up to.
struct OutputTally {
  NoiseSums noise;         ///< Of floating point.
  int64_t floats = 0;      ///< Elements that `noise` is about.
  ClassAgreement classes;  ///< Of outputs with a class axis.
  int64_t exact = 0;       ///< Elements of integers, truth values and strings.
  int64_t equal = 0;       ///< How many of these are equal.
  int64_t incomparable =
      0;  ///< Answers in which its type or shape is another, or that have it on one side alone.

  void Merge(const OutputTally& other);
};

/// Compares every output of both to a request of so many rows, into the tallies by name.
void CompareAnswers(const Answer& got, const Answer& reference, int64_t rows,
                    std::map<std::string, OutputTally>& tallies);

}  // namespace octet::cli
