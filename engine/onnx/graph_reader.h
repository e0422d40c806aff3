// ModelProto -> Graph.
#pragma once

#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include <onnx/onnx_pb.h>

#include "engine/graph/graph.h"
#include "engine/onnx/tensor_proto.h"

namespace octet {

/// Builds a graph from a parsed model and releases the model's parts on the way. Names become ids; nodes
/// are sorted where the file does not have them in order. `left_out`: of each initializer of the model's graph, where its
/// raw_data is, if it came without; fewer for none.
/// Errors: as ReadOnnxBytes.
absl::StatusOr<Graph> GraphFromModel(onnx::ModelProto& model, TensorReader& tensors,
                                     std::span<const std::optional<ByteRange>> left_out);

}  // namespace octet
