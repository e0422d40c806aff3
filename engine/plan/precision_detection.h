// Which precision a file is in.
#pragma once

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"

namespace octet {

/// What the file says in its metadata "octet.precision", else what its operators and types show:
///   DynamicQuantizeLinear with ConvInteger or MatMulInteger   -> int8-dynamic
///   QuantizeLinear, or an operator on quantized tensors       -> int8
///   most elements of its real constants FLOAT16 or BFLOAT16   -> fp16, bf16     (without constants: most of its inputs)
///   else                                                      -> fp32
/// Requires: the graph as it was read. INVALID_ARGUMENT for an unknown name in the metadata.
absl::StatusOr<Precision> DetectPrecision(const Graph& graph);

}  // namespace octet
