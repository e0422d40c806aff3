// ModelProto -> Graph.
#pragma once

#include "absl/status/statusor.h"
#include <onnx/onnx_pb.h>

#include "engine/graph/graph.h"
#include "engine/onnx/tensor_proto.h"

namespace octet {

/// Builds a graph from a parsed model and releases the model's parts on the way. Names become ids; nodes
/// are sorted where the file does not have them in order.
/// Errors: as ReadOnnxBytes.
absl::StatusOr<Graph> GraphFromModel(onnx::ModelProto& model, TensorReader& tensors);

}  // namespace octet
