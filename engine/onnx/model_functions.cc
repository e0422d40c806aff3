#include "engine/onnx/model_functions.h"

#include <algorithm>
#include <utility>

#include "engine/graph/graph.h"
#include "engine/onnx/names.h"
#include "engine/onnx/onnx_file.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// No domain counts its versions so high.
constexpr int64_t kMaxVersion = 1 << 20;

using Imports = google::protobuf::RepeatedPtrField<onnx::OperatorSetIdProto>;

absl::StatusOr<Opsets> ReadOpsets(const Imports& imports) {
  Opsets opsets;
  for (const onnx::OperatorSetIdProto& import : imports) {
    OCTET_RETURN_IF_ERROR(CheckName(import.domain(), "domain"));
    const std::string domain = NormalDomain(import.domain());
    const int64_t version = import.version();
    if (domain == kOnnxDomain && (version < kMinOpset || version > kMaxOpset)) {
      return Unimplemented("unsupported opset: expected {} to {}, got {}", kMinOpset, kMaxOpset,
                           version);
    }
    if (version < 1 || version > kMaxVersion) {
      return InvalidArgument("impossible opset of domain '{}': {}", domain, version);
    }
    const auto [at, added] = opsets.emplace(domain, static_cast<int>(version));
    if (!added && at->second != version) {
      return InvalidArgument("two opsets of domain '{}': {} and {}", domain, at->second, version);
    }
  }
  return opsets;
}

void Count(const onnx::GraphProto& graph, ModelFunction& function);

void Count(const onnx::NodeProto& node, ModelFunction& function) {
  ++function.nodes;
  // A body names what it captures, too.
  function.names += 1 + node.output_size() + node.input_size();
  for (const onnx::AttributeProto& attribute : node.attribute()) {
    if (attribute.has_g()) Count(attribute.g(), function);
  }
}

void Count(const onnx::GraphProto& graph, ModelFunction& function) {
  function.names += 1 + graph.input_size() + graph.initializer_size() + graph.output_size();
  for (const onnx::NodeProto& node : graph.node()) Count(node, function);
}

bool HasAttribute(const onnx::FunctionProto& function, const std::string& name) {
  return std::ranges::contains(function.attribute(), name) ||
         std::ranges::contains(function.attribute_proto(), name, &onnx::AttributeProto::name);
}

}  // namespace

absl::StatusOr<ModelFunctions> ModelFunctions::Read(const onnx::ModelProto& model) {
  if (model.opset_import_size() == 0) return InvalidArgument("no opset import: not an ONNX model");
  ModelFunctions functions;
  OCTET_ASSIGN_OR_RETURN(functions.opsets_, ReadOpsets(model.opset_import()));
  for (const onnx::FunctionProto& proto : model.functions()) {
    for (const std::string* name : {&proto.domain(), &proto.name(), &proto.overload()})
      OCTET_RETURN_IF_ERROR(CheckName(*name, "function"));
    const Key key{NormalDomain(proto.domain()), proto.name(), proto.overload()};
    if (!functions.functions_.emplace(key, ModelFunction{.proto = &proto}).second) {
      return InvalidArgument("function is defined twice: '{}' of domain '{}'", proto.name(),
                             proto.domain());
    }
  }
  return functions;
}

ModelFunction* ModelFunctions::Find(const onnx::NodeProto& node) {
  if (functions_.empty()) return nullptr;
  const auto found =
      functions_.find(Key{NormalDomain(node.domain()), node.op_type(), node.overload()});
  return found == functions_.end() ? nullptr : &found->second;
}

absl::Status ModelFunctions::Charge(int64_t nodes, uint64_t bytes) {
  added_nodes_ += nodes;
  added_bytes_ += bytes;
  if (added_nodes_ <= kMaxAddedNodes && added_bytes_ <= kMaxAddedBytes) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted,
                   "calls of the model's functions add too much: at most {} nodes and {} bytes",
                   kMaxAddedNodes, kMaxAddedBytes);
}

absl::Status ModelFunctions::Descend() {
  if (depth_ == kMaxDepth) {
    return InvalidArgument("functions and sub-graphs nest too deep: at most {}", kMaxDepth);
  }
  ++depth_;
  return absl::OkStatus();
}

absl::Status ModelFunctions::OpenBody() { return Descend(); }

absl::Status ModelFunctions::Open(ModelFunction& function, std::string_view prefix) {
  if (function.open) return InvalidArgument("the function calls itself");
  const bool again = function.read;
  if (!again) {
    OCTET_ASSIGN_OR_RETURN(function.opsets, ReadOpsets(function.proto->opset_import()));
    for (const onnx::NodeProto& node : function.proto->node()) Count(node, function);
    function.bytes = function.proto->ByteSizeLong();
    function.read = true;
  }
  // The first call takes what the file holds; names are new in each.
  const uint64_t names = static_cast<uint64_t>(function.names) * prefix.size();
  OCTET_RETURN_IF_ERROR(
      Charge(again ? function.nodes + 1 : 0, names + (again ? function.bytes : 0)));
  OCTET_RETURN_IF_ERROR(Descend());
  function.open = true;
  return absl::OkStatus();
}

void ModelFunctions::Close(ModelFunction& function) {
  function.open = false;
  --depth_;
}

absl::StatusOr<CallAttributes> ModelFunctions::Bind(const ModelFunction& function,
                                                    const onnx::NodeProto& call,
                                                    const CallAttributes* outer) {
  CallAttributes bound;
  for (const onnx::AttributeProto& attribute : call.attribute()) {
    OCTET_RETURN_IF_ERROR(CheckName(attribute.name(), "attribute"));
    if (!HasAttribute(*function.proto, attribute.name()))
      return InvalidArgument("the function has no attribute '{}'", attribute.name());
    const onnx::AttributeProto* value = &attribute;
    if (!attribute.ref_attr_name().empty()) {
      if (outer == nullptr) {
        return InvalidArgument(
            "attribute '{}': refers to a function's attribute outside of a function",
            attribute.name());
      }
      const auto found = outer->find(attribute.ref_attr_name());
      if (found == outer->end()) continue;
      value = found->second;
    }
    if (!bound.emplace(attribute.name(), value).second)
      return InvalidArgument("attribute is given twice: '{}'", attribute.name());
  }
  for (const onnx::AttributeProto& attribute : function.proto->attribute_proto())
    bound.emplace(attribute.name(), &attribute);
  return bound;
}

absl::StatusOr<onnx::AttributeProto> ModelFunctions::Resolve(const onnx::AttributeProto& attribute,
                                                             const onnx::AttributeProto& value) {
  using onnx::AttributeProto;
  OCTET_RETURN_IF_ERROR(CheckName(attribute.name(), "attribute"));
  if (value.type() == AttributeProto::GRAPH || value.has_g()) {
    return Unimplemented("unsupported attribute '{}', a sub-graph that a function is called with",
                         attribute.name());
  }
  const bool typed =
      attribute.type() != AttributeProto::UNDEFINED && value.type() != AttributeProto::UNDEFINED;
  if (typed && attribute.type() != value.type()) {
    return InvalidArgument("attribute '{}' is declared as {}, but the function is called with {}",
                           attribute.name(), AttributeProto::AttributeType_Name(attribute.type()),
                           AttributeProto::AttributeType_Name(value.type()));
  }
  OCTET_RETURN_IF_ERROR(Charge(0, value.ByteSizeLong()));
  AttributeProto resolved = value;
  resolved.set_name(attribute.name());
  return resolved;
}

}  // namespace octet
