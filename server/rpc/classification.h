// The protocol's classification extension: the best classes of an output instead of its elements.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "engine/engine.h"

namespace octet {

/// Appends the `count` largest of `scores`, largest first (equal ones by index; NaN comes last), as
/// BYTES elements: "score:index" or, where there is a label, "score:index:label".
void AppendClasses(std::span<const float> scores, int64_t count,
                   std::span<const std::string> labels, std::string& bytes);

/// Classifies an output: row by row when `batches`, else as one. Returns the shape of the result,
/// [rows, k] or [k] with k = min(count, classes), and writes its elements to `bytes`.
Shape Classify(ConstTensorView output, bool batches, int64_t count,
               std::span<const std::string> labels, std::string& bytes);

}  // namespace octet
