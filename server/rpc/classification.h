// The protocol's classification extension: the best classes of an output instead of its elements.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "engine/engine.h"

namespace octet {

/// Classifies an output: row by row when `batches`, else as one. Returns the shape of the result,
/// [rows, k] or [k] with k = min(count, classes), and writes its elements, BYTES, to `bytes`: of each row the k largest
/// scores, largest first (equal ones by index; NaN comes last), as "score:index" or, where there is a label,
/// "score:index:label". Scores are compared and written as they are: whole numbers with all their digits.
Shape Classify(ConstTensorView output, bool batches, int64_t count,
               std::span<const std::string> labels, std::string& bytes);

}  // namespace octet
