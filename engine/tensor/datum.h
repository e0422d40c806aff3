// What flows between the parts of a model with control flow: a tensor, a sequence of tensors, or nothing.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "engine/tensor/tensor.h"

namespace octet {

/// A tensor, a sequence of tensors of one element type, or an optional that is empty. An optional that is not empty is
/// what it holds. Copying shares the elements.
struct Datum {
  enum class Kind : uint8_t { kEmpty, kTensor, kSequence };

  Kind kind = Kind::kEmpty;
  Tensor tensor;                 ///< Of kTensor.
  std::vector<Tensor> sequence;  ///< Of kSequence.

  static Datum Of(Tensor tensor) { return {Kind::kTensor, std::move(tensor), {}}; }
  static Datum Sequence(std::vector<Tensor> tensors) {
    return {Kind::kSequence, {}, std::move(tensors)};
  }
  bool is_tensor() const { return kind == Kind::kTensor; }
  bool is_sequence() const { return kind == Kind::kSequence; }
  /// What it holds in memory: of a sequence also what goes with each tensor.
  uint64_t bytes() const {
    uint64_t sum = is_tensor() ? MemoryBytes(tensor.view()) : 0;
    for (const Tensor& element : sequence) sum += MemoryBytes(element.view()) + sizeof(Tensor);
    return sum;
  }
};

}  // namespace octet
