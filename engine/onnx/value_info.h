// ONNX ValueInfoProto <-> element type and shape of a Value.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <onnx/onnx_pb.h>

#include "engine/graph/graph.h"

namespace octet {

/// What a model declares of a value.
struct Declaration {
  ValueKind kind = ValueKind::kTensor;
  DType dtype = DType::kUndefined;
  std::optional<Shape> shape;  ///< nullopt: not even the rank.
  bool four_bits = false;      ///< INT4 or UINT4, held in `dtype` (onnx/four_bits.h).
};

/// Reads a declared type. Named, missing and negative extents become kUnknownDim.
/// Errors, naming the value: UNIMPLEMENTED for maps, sparse tensors, deeper nesting, unknown element types and sequences of 4-bit ones; INVALID_ARGUMENT for impossible shapes.
absl::StatusOr<Declaration> ReadValueInfo(const onnx::ValueInfoProto& proto);

/// The same of a bare type: kind, element type and, of a tensor, the shape.
absl::StatusOr<Declaration> ReadTypeProto(const onnx::TypeProto& proto);
void WriteTypeProto(ValueType type, onnx::TypeProto& proto);

/// INVALID_ARGUMENT naming the value when type or shape of `tensor` contradict `declared`.
absl::Status CheckAgainst(const Declaration& declared, const std::string& name,
                          const TensorSpec& tensor);

/// Writes name, element type and, where known, shape; unknown extents stay anonymous.
void WriteValueInfo(const Value& value, onnx::ValueInfoProto& proto);

}  // namespace octet
