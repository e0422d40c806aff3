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

absl::StatusOr<Declaration> ReadType(const onnx::ValueInfoProto& proto) {
  Declaration declared;
  if (!proto.has_type() || proto.type().value_case() == onnx::TypeProto::VALUE_NOT_SET) {
    return declared;
  }
  if (!proto.type().has_tensor_type()) return Unimplemented("unsupported type: no tensor");
  const onnx::TypeProto::Tensor& tensor = proto.type().tensor_type();
  if (tensor.elem_type() != onnx::TensorProto::UNDEFINED) {
    OCTET_ASSIGN_OR_RETURN(declared.dtype, DTypeFromOnnx(tensor.elem_type()));
  }
  if (tensor.has_shape()) {
    OCTET_ASSIGN_OR_RETURN(declared.shape, ReadShape(tensor.shape()));
  }
  return declared;
}

}  // namespace

absl::StatusOr<Declaration> ReadValueInfo(const onnx::ValueInfoProto& proto) {
  absl::StatusOr<Declaration> declared = ReadType(proto);
  if (!declared.ok()) return Annotate(declared.status(), Format("value '{}'", proto.name()));
  return declared;
}

absl::Status CheckAgainst(const Declaration& declared, const std::string& name,
                          const TensorSpec& tensor) {
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
  onnx::TypeProto::Tensor& tensor = *proto.mutable_type()->mutable_tensor_type();
  tensor.set_elem_type(DTypeToOnnx(value.dtype));
  if (!value.shape) return;
  onnx::TensorShapeProto& shape = *tensor.mutable_shape();
  for (const int64_t d : value.shape->dims()) {
    onnx::TensorShapeProto::Dimension& dim = *shape.add_dim();
    if (d != kUnknownDim) dim.set_dim_value(d);
  }
}

}  // namespace octet
