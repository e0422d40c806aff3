// What ScatterElements and ScatterND are told, for their reference kernels and for their fast forms.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/step.h"
#include "engine/tensor/shape.h"

namespace octet {

/// What becomes of an element that is written to; ONNX calls the first one "none".
enum class ScatterReduction : uint8_t { kOverwrite, kAdd, kMul, kMax, kMin };

absl::StatusOr<ScatterReduction> ScatterReductionOf(const Node& node);

/// y = data; y[.., indices[.., i, ..], ..] <- updates[.., i, ..]
struct ElementScatter {
  Shape data;
  Shape updates;  ///< And indices.
  int axis = 0;
};
/// INVALID_ARGUMENT naming the node where the shapes do not fit.
absl::StatusOr<ElementScatter> ReadElementScatter(const Node& node, const Shape& data,
                                                  const Shape& indices, const Shape& updates);

/// y = data; y[indices[i..., :], ...] <- updates[i..., ...]
struct BlockScatter {
  Shape data;
  int depth = 0;  ///< Numbers of a tuple, the coordinates of a block.
  int64_t tuples = 0;
  int64_t block = 0;  ///< Elements that a tuple names.
};
absl::StatusOr<BlockScatter> ReadBlockScatter(const Node& node, const Shape& data,
                                              const Shape& indices, const Shape& updates);

/// The fast forms: they write into the data where nobody reads it any more, and each thread into rows (or columns of blocks) of its own, so
/// that what is written twice is written in order. Elements that are only replaced may be of any type, stored alike in data, updates and
/// result; the others are numbers. UNIMPLEMENTED for all else.
absl::StatusOr<std::unique_ptr<Step>> LowerScatterElements(const LowerContext& context);
absl::StatusOr<std::unique_ptr<Step>> LowerScatterND(const LowerContext& context);

}  // namespace octet
