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
/// UNIMPLEMENTED for sub-graphs, sparse tensors, lists of tensors and types.
absl::StatusOr<AttributeValue> ReadAttribute(onnx::AttributeProto& proto, TensorReader& tensors);

void WriteAttribute(const std::string& name, const AttributeValue& value,
                    onnx::AttributeProto& proto);

}  // namespace octet
