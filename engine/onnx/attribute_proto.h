// ONNX AttributeProto <-> AttributeValue.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <onnx/onnx_pb.h>

#include "engine/graph/attributes.h"
#include "engine/onnx/tensor_proto.h"

namespace octet {

/// Reads an attribute and releases its tensor.
/// Errors, naming the attribute: INVALID_ARGUMENT when its fields contradict its type or it has none;
/// UNIMPLEMENTED for sparse tensors and lists of tensors, graphs and types. Requires: no sub-graph.
absl::StatusOr<AttributeValue> ReadAttribute(onnx::AttributeProto& proto, TensorReader& tensors);

/// INVALID_ARGUMENT unless the attribute is one graph and nothing else.
absl::Status CheckHoldsGraph(const onnx::AttributeProto& proto);

/// Of a sub-graph the name and type alone: its nodes refer to the graph around it.
void WriteAttribute(const std::string& name, const AttributeValue& value,
                    onnx::AttributeProto& proto);

}  // namespace octet
