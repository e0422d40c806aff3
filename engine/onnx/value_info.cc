#include "engine/onnx/value_info.h"

#include <algorithm>
#include <string>

#include "engine/onnx/tensor_proto.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

absl::StatusOr<Shape> ReadShape(const onnx::TensorShapeProto& proto) {
  if (proto.dim_size() > kMaxRank) {
    return InvalidArgument("rank {} is above {}", proto.dim_size(), kMaxRank);
  }
  Shape shape;
  for (const onnx::TensorShapeProto::Dimension& dim : proto.dim()) {
    const bool known = dim.has_dim_value() && dim.dim_value() >= 0;
    shape.push_back(known ? dim.dim_value() : kUnknownDim);
  }
  if (!IsPossible(shape)) return InvalidArgument("impossible shape: {}", shape.ToString());
  return shape;
}

absl::StatusOr<Declaration> ReadTensorType(const onnx::TypeProto::Tensor& tensor) {
  Declaration declared;
  if (tensor.elem_type() != onnx::TensorProto::UNDEFINED) {
    OCTET_ASSIGN_OR_RETURN(declared.dtype, DTypeFromOnnx(tensor.elem_type()));
    declared.four_bits = IsFourBits(tensor.elem_type());
  }
  if (tensor.has_shape()) {
    OCTET_ASSIGN_OR_RETURN(declared.shape, ReadShape(tensor.shape()));
  }
  return declared;
}

// A sequence, or what an optional holds. Tensors in a sequence may differ in shape: none is declared.
absl::StatusOr<Declaration> ReadElementType(const onnx::TypeProto& proto, ValueKind kind) {
  if (!proto.has_tensor_type()) return Unimplemented("unsupported type: no tensor inside");
  OCTET_ASSIGN_OR_RETURN(Declaration declared, ReadTensorType(proto.tensor_type()));
  if (declared.four_bits)
    return Unimplemented("unsupported element type: {}", FourBitName(declared.dtype));
  declared.kind = kind;
  declared.shape = std::nullopt;
  return declared;
}

}  // namespace

absl::StatusOr<Declaration> ReadTypeProto(const onnx::TypeProto& proto) {
  switch (proto.value_case()) {
    case onnx::TypeProto::VALUE_NOT_SET:
      return Declaration();
    case onnx::TypeProto::kTensorType:
      return ReadTensorType(proto.tensor_type());
    case onnx::TypeProto::kSequenceType:
      return ReadElementType(proto.sequence_type().elem_type(), ValueKind::kSequence);
    case onnx::TypeProto::kOptionalType: {
      const onnx::TypeProto& inner = proto.optional_type().elem_type();
      if (!inner.has_sequence_type()) return ReadElementType(inner, ValueKind::kOptionalTensor);
      return ReadElementType(inner.sequence_type().elem_type(), ValueKind::kOptionalSequence);
    }
    default:
      return Unimplemented("unsupported type: neither tensor, sequence nor optional");
  }
}

void WriteTypeProto(ValueType type, onnx::TypeProto& proto) {
  onnx::TypeProto* inner = &proto;
  if (type.kind == ValueKind::kOptionalTensor || type.kind == ValueKind::kOptionalSequence)
    inner = inner->mutable_optional_type()->mutable_elem_type();
  if (type.kind == ValueKind::kSequence || type.kind == ValueKind::kOptionalSequence)
    inner = inner->mutable_sequence_type()->mutable_elem_type();
  inner->mutable_tensor_type()->set_elem_type(DTypeToOnnx(type.dtype));
}

absl::StatusOr<Declaration> ReadValueInfo(const onnx::ValueInfoProto& proto) {
  absl::StatusOr<Declaration> declared = ReadTypeProto(proto.type());
  if (!declared.ok()) return Annotate(declared.status(), Format("value '{}'", proto.name()));
  return declared;
}

absl::Status CheckAgainst(const Declaration& declared, const std::string& name,
                          const TensorSpec& tensor) {
  if (declared.kind != ValueKind::kTensor) {
    return InvalidArgument("kind of '{}': declared {}, its initializer is a tensor", name,
                           ValueKindName(declared.kind));
  }
  if (declared.dtype != DType::kUndefined && declared.dtype != tensor.dtype) {
    return InvalidArgument("type of '{}': declared {}, its initializer has {}", name,
                           DTypeName(declared.dtype), DTypeName(tensor.dtype));
  }
  if (!declared.shape) return absl::OkStatus();
  const auto fits = [](int64_t expected, int64_t got) {
    return expected == kUnknownDim || expected == got;
  };
  if (!std::ranges::equal(declared.shape->dims(), tensor.shape.dims(), fits)) {
    return InvalidArgument("shape of '{}': declared {}, its initializer has {}", name,
                           declared.shape->ToString(), tensor.shape.ToString());
  }
  return absl::OkStatus();
}

void WriteValueInfo(const Value& value, onnx::ValueInfoProto& proto) {
  proto.set_name(value.name);
  if (value.dtype == DType::kUndefined) return;
  WriteTypeProto({value.kind, value.dtype}, *proto.mutable_type());
  if (!value.shape) return;
  onnx::TensorShapeProto& shape = *proto.mutable_type()->mutable_tensor_type()->mutable_shape();
  for (const int64_t d : value.shape->dims()) {
    onnx::TensorShapeProto::Dimension& dim = *shape.add_dim();
    if (d != kUnknownDim) dim.set_dim_value(d);
  }
}

}  // namespace octet
