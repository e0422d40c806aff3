// Raising a model's opset: quantization per channel needs the definitions of opset 13.
#pragma once

#include "absl/status/status.h"

#include "engine/graph/graph.h"

namespace octet {

/// The first opset whose QuantizeLinear and DequantizeLinear take an axis.
inline constexpr int kQuantizeOpset = 13;

/// The opset of ONNX's own operators, in sub-graphs, too: the highest, where functions of the model brought their own; kQuantizeOpset
/// for a graph without any.
int OnnxOpset(const Graph& graph);

/// Whether an ONNX node of the graph, or of a sub-graph, is below `version`.
bool IsBelowOpset(const Graph& graph, int version);

/// Sets every ONNX node below `version`, in sub-graphs, too, to it, rewriting the forms that changed: attributes that became inputs
/// (Clip, Squeeze, Unsqueeze, Split, the reductions, Pad, Slice, Dropout), names and defaults (RoiAlign, Split, GridSample), and
/// Softmax along the last axis. UNIMPLEMENTED naming the node whose meaning would change otherwise.
absl::Status RaiseOpset(Graph& graph, int version);

}  // namespace octet
