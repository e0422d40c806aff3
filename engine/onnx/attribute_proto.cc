#include "engine/onnx/attribute_proto.h"

#include <array>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/onnx/value_info.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using onnx::AttributeProto;
using Type = AttributeProto::AttributeType;

// Which field belongs to which type, and whether `proto` has something in it.
struct FieldInUse {
  Type type;
  bool in_use;
};

std::array<FieldInUse, 14> Fields(const AttributeProto& proto) {
  return {{
      {AttributeProto::FLOAT, proto.has_f()},
      {AttributeProto::INT, proto.has_i()},
      {AttributeProto::STRING, proto.has_s()},
      {AttributeProto::TENSOR, proto.has_t()},
      {AttributeProto::GRAPH, proto.has_g()},
      {AttributeProto::SPARSE_TENSOR, proto.has_sparse_tensor()},
      {AttributeProto::TYPE_PROTO, proto.has_tp()},
      {AttributeProto::FLOATS, proto.floats_size() > 0},
      {AttributeProto::INTS, proto.ints_size() > 0},
      {AttributeProto::STRINGS, proto.strings_size() > 0},
      {AttributeProto::TENSORS, proto.tensors_size() > 0},
      {AttributeProto::GRAPHS, proto.graphs_size() > 0},
      {AttributeProto::SPARSE_TENSORS, proto.sparse_tensors_size() > 0},
      {AttributeProto::TYPE_PROTOS, proto.type_protos_size() > 0},
  }};
}

// The declared type, or what is filled in where a file declares none. A field of the declared type may be
// absent: writers leave out zeros and empty lists.
absl::StatusOr<Type> TypeOf(const AttributeProto& proto) {
  Type type = proto.type();
  for (const FieldInUse& field : Fields(proto)) {
    if (!field.in_use) continue;
    if (type == AttributeProto::UNDEFINED) type = field.type;
    if (field.type != type) {
      return InvalidArgument("declared as {}, but holds {}",
                             AttributeProto::AttributeType_Name(type),
                             AttributeProto::AttributeType_Name(field.type));
    }
  }
  if (type == AttributeProto::UNDEFINED) return InvalidArgument("without type and value");
  return type;
}

absl::StatusOr<AttributeValue> ReadValue(AttributeProto& proto, TensorReader& tensors) {
  if (!proto.ref_attr_name().empty()) {
    return InvalidArgument("refers to a function's attribute outside of a function");
  }
  OCTET_ASSIGN_OR_RETURN(const Type type, TypeOf(proto));
  switch (type) {
    case AttributeProto::FLOAT:
      return AttributeValue(proto.f());
    case AttributeProto::INT:
      return AttributeValue(int64_t{proto.i()});
    case AttributeProto::STRING:
      return AttributeValue(std::move(*proto.mutable_s()));
    case AttributeProto::FLOATS:
      return AttributeValue(std::vector<float>(proto.floats().begin(), proto.floats().end()));
    case AttributeProto::INTS:
      return AttributeValue(std::vector<int64_t>(proto.ints().begin(), proto.ints().end()));
    case AttributeProto::STRINGS:
      return AttributeValue(
          std::vector<std::string>(proto.strings().begin(), proto.strings().end()));
    case AttributeProto::TENSOR: {
      OCTET_ASSIGN_OR_RETURN(Tensor tensor, tensors.Read(*proto.mutable_t()));
      return AttributeValue(std::move(tensor));
    }
    case AttributeProto::TYPE_PROTO: {
      OCTET_ASSIGN_OR_RETURN(const Declaration declared, ReadTypeProto(proto.tp()));
      return AttributeValue(ValueType{declared.kind, declared.dtype});
    }
    default:
      return Unimplemented("unsupported attribute type: {}",
                           AttributeProto::AttributeType_Name(type));
  }
}

}  // namespace

absl::StatusOr<AttributeValue> ReadAttribute(AttributeProto& proto, TensorReader& tensors) {
  absl::StatusOr<AttributeValue> value = ReadValue(proto, tensors);
  if (!value.ok()) return Annotate(value.status(), Format("attribute '{}'", proto.name()));
  return value;
}

absl::Status CheckHoldsGraph(const AttributeProto& proto) {
  if (!proto.ref_attr_name().empty()) {
    return InvalidArgument("refers to a function's attribute outside of a function");
  }
  OCTET_ASSIGN_OR_RETURN(const Type type, TypeOf(proto));
  if (type == AttributeProto::GRAPH) return absl::OkStatus();
  return InvalidArgument("declared as {}, but holds GRAPH",
                         AttributeProto::AttributeType_Name(type));
}

void WriteAttribute(const std::string& name, const AttributeValue& value, AttributeProto& proto) {
  proto.set_name(name);
  struct Writer {
    AttributeProto& proto;
    void operator()(int64_t v) {
      proto.set_type(AttributeProto::INT);
      proto.set_i(v);
    }
    void operator()(float v) {
      proto.set_type(AttributeProto::FLOAT);
      proto.set_f(v);
    }
    void operator()(const std::string& v) {
      proto.set_type(AttributeProto::STRING);
      proto.set_s(v);
    }
    void operator()(const std::vector<int64_t>& v) {
      proto.set_type(AttributeProto::INTS);
      proto.mutable_ints()->Assign(v.begin(), v.end());
    }
    void operator()(const std::vector<float>& v) {
      proto.set_type(AttributeProto::FLOATS);
      proto.mutable_floats()->Assign(v.begin(), v.end());
    }
    void operator()(const std::vector<std::string>& v) {
      proto.set_type(AttributeProto::STRINGS);
      proto.mutable_strings()->Assign(v.begin(), v.end());
    }
    void operator()(const Subgraph& /*v*/) { proto.set_type(AttributeProto::GRAPH); }
    void operator()(const ValueType& v) {
      proto.set_type(AttributeProto::TYPE_PROTO);
      WriteTypeProto(v, *proto.mutable_tp());
    }
    void operator()(const Tensor& v) {
      proto.set_type(AttributeProto::TENSOR);
      WriteTensor(v, *proto.mutable_t());
    }
  };
  std::visit(Writer{proto}, value);
}

}  // namespace octet
