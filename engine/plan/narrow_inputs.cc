#include "engine/plan/narrow_inputs.h"

#include <algorithm>
#include <utility>

#include "engine/graph/stored_value.h"

namespace octet {
namespace {

/// What all readers of the input make of it; nullopt when one reads the reals.
std::optional<RealFormat> FormatOfReaders(const Graph& graph, ValueId input) {
  const Value& value = graph.value(input);
  if (!value.is_tensor() || value.quant || value.dtype != DType::kF32 ||
      std::ranges::find(graph.outputs, input) != graph.outputs.end()) {
    return std::nullopt;
  }
  std::optional<RealFormat> format;
  for (const NodeId reader : graph.consumers(input)) {
    if (!graph.node(reader).is("Convert", kOctetDomain)) return std::nullopt;
    const Value& made = graph.value(graph.node(reader).output(0));
    if (!HasRealFormat(made) || (format && *format != RealFormatOf(made))) return std::nullopt;
    format = RealFormatOf(made);
  }
  return format;
}

}  // namespace

std::vector<std::optional<RealFormat>> NarrowInputs(Graph& graph) {
  std::vector<std::optional<RealFormat>> formats;
  for (const ValueId input : graph.inputs) {
    const std::optional<RealFormat>& format = formats.emplace_back(FormatOfReaders(graph, input));
    if (!format) continue;
    Value& value = graph.mutable_value(input);
    value.dtype = format->stored;
    value.quant = format->quant;
  }
  return formats;
}

}  // namespace octet
