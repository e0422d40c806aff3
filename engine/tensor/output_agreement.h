// How far a model's outputs are from those of a reference: noise, agreement on classes, divergence.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "engine/tensor/tensor.h"

namespace octet {

/// Sums over pairs of an element y and its reference x. A pair that holds a NaN, or an infinity on one side alone, is
/// counted as non-finite and enters nothing else; equal infinities are no difference.
struct NoiseSums {
  double signal = 0;       ///< sum x^2
  double noise = 0;        ///< sum (y - x)^2
  double max_abs = 0;      ///< max |y - x|
  int64_t non_finite = 0;  ///< Pairs that have no difference.
  int64_t lost = 0;        ///< Of these, with a finite reference: the noise is without bound.

  /// Requires: equal sizes.
  void Add(std::span<const float> got, std::span<const float> reference);
  /// Adds the sums over other pairs.
  void Merge(const NoiseSums& other);
  /// 10 log10(signal / noise), the ratio of signal to (quantization) noise; infinity where nothing differs, minus infinity
  /// where all of the reference is zero and something differs.
  double SqnrDb() const;
  /// sqrt(noise / signal); 0 where nothing differs, infinity where the reference alone is zero.
  double RelativeL2() const;
};

/// The index of the largest score, the first of equal ones; nullopt of none, and when one is a NaN.
std::optional<size_t> TopClass(std::span<const float> scores);

/// True when fewer than `k` scores come before scores[index] in falling order, equal ones by index.
/// Requires: index < scores.size(), no NaN.
bool IsAmongTop(std::span<const float> scores, size_t index, size_t k);

/// How many classes each row of a floating-point output of this shape has a score for; 0: none. Rows lie along axis 0, their
/// scores along axis 1: [N, C], C > 1, or [N, C, 1, ...]. Who knows how many rows were computed also has [C] as the scores of a
/// single one, [N, 1, ..., C] as those of N, and none where axis 0 is no such N.
int64_t ClassesOf(const Shape& shape, std::optional<int64_t> rows = std::nullopt);

/// How often two outputs rank the classes alike. A row with a NaN on either side never agrees.
struct ClassAgreement {
  static constexpr size_t kTop = 5;
  int64_t rows = 0;
  int64_t top1 = 0;  ///< Rows whose best class is the reference's.
  int64_t top5 = 0;  ///< Rows whose kTop best classes hold the reference's best.
};

/// What CompareOutputs finds out; what does not apply is absent.
struct OutputComparison {
  bool same_shape = false;  ///< Else element type or extents differ, and nothing else was compared.
  int64_t elements = 0;     ///< Of integers, truth values and strings.
  int64_t equal = 0;        ///< How many of these are equal.
  std::optional<NoiseSums> noise;         ///< Of floating point.
  std::optional<ClassAgreement> classes;  ///< With a class axis.
  /// Mean over the rows of sum x ln(x / y) in nats, when the rows of both are distributions: >= 0, with a sum of 1 to a
  /// thousandth. Where y is below 2^-24, which an 8-bit or 16-bit softmax rounds to zero, it counts as 2^-24.
  std::optional<double> kl;
};

/// Compares an output with the reference's. Floating point of any width is compared as float. Classes are those of ClassesOf, of
/// rows that nobody has counted, and where these have none, of the `rows` that were computed.
/// Source of kl: Kullback and Leibler, 1951.
OutputComparison CompareOutputs(ConstTensorView got, ConstTensorView reference,
                                std::optional<int64_t> rows = std::nullopt);

}  // namespace octet
