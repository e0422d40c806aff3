// WriteOnnxFile, WriteOnnxBytes: Graph -> ModelProto.

#include <algorithm>
#include <exception>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <onnx/onnx_pb.h>

#include "engine/onnx/attribute_proto.h"
#include "engine/onnx/external_data.h"
#include "engine/onnx/onnx_file.h"
#include "engine/onnx/tensor_proto.h"
#include "engine/onnx/value_info.h"
#include "engine/tensor/pending_file.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Room below protobuf's 2 GiB for everything that is not the elements of tensors.
constexpr uint64_t kMaxTensorBytes = std::numeric_limits<int>::max() - (uint64_t{64} << 20);

// The first IR version whose nodes have metadata. Source: ONNX, onnx.proto.
constexpr int64_t kIrOfNodeMetadata = 10;

// The oldest IR version that knows every type of this opset's operators. Source: ONNX, Versioning.md.
int64_t IrVersionFor(int opset) { return opset >= 21 ? 10 : opset >= 19 ? 9 : 8; }

// Names of values by id. A sub-graph's captures go by the names of what they capture, its own values by names that no
// graph around it has.
using Names = std::vector<std::string>;

Names OwnNames(const Graph& graph) {
  Names names;
  for (ValueId id = 0; id < graph.value_count(); ++id) names.push_back(graph.value(id).name);
  return names;
}

// Of one graph. Passes give several nodes the name of the one that they replace, and ONNX Runtime refuses a graph in which two have the
// same.
class NodeNames {
 public:
  std::string Take(const std::string& wanted) {
    int& next = next_[wanted];
    std::string name = wanted;
    while (!taken_.insert(name).second) name = Format("{}_{}", wanted, next++);
    return name;
  }

 private:
  std::set<std::string> taken_;
  std::map<std::string, int> next_;  // What the next one of a name adds to it.
};

class ModelWriter {
 public:
  explicit ModelWriter(const Graph& graph) : graph_(graph) {}

  absl::StatusOr<onnx::ModelProto> Write() {
    OCTET_RETURN_IF_ERROR(CheckGraph(graph_));
    OCTET_RETURN_IF_ERROR(WriteOpsets());
    const Names names = OwnNames(graph_);
    taken_.insert(names.begin(), names.end());
    WriteGraph(graph_, names, 0, *model_.mutable_graph());
    for (const auto& [key, value] : graph_.metadata)
      AddEntry(key, value, *model_.add_metadata_props());
    return std::move(model_);
  }

 private:
  static void AddEntry(std::string_view key, std::string_view value,
                       onnx::StringStringEntryProto& entry) {
    entry.set_key(std::string(key));
    entry.set_value(std::string(value));
  }

  // True for what nodes or the interface refer to; rewrites leave values behind that nobody does.
  static bool InUse(const Graph& graph, ValueId id) {
    return graph.producer(id) != kNone || !graph.consumers(id).empty() ||
           graph.is_graph_input(id) || graph.is_graph_output(id);
  }

  // Values and nodes of a graph and its sub-graphs.
  absl::Status CheckGraph(const Graph& graph) {
    OCTET_RETURN_IF_ERROR(CheckValues(graph));
    for (const NodeId id : graph.order()) {
      OCTET_RETURN_IF_ERROR(CheckNode(graph.node(id)));
      for (const auto& [name, value] : graph.node(id).attributes) {
        if (const Subgraph* body = std::get_if<Subgraph>(&value))
          OCTET_RETURN_IF_ERROR(CheckGraph(**body));
      }
    }
    if (bytes_ <= kMaxTensorBytes) return absl::OkStatus();
    return MakeError(absl::StatusCode::kResourceExhausted,
                     "initializers do not fit an ONNX file: at most {} bytes, got {}",
                     kMaxTensorBytes, bytes_);
  }

  absl::Status CheckValues(const Graph& graph) {
    std::set<std::string_view> names;
    for (ValueId id = 0; id < graph.value_count(); ++id) {
      if (!InUse(graph, id)) continue;
      const Value& value = graph.value(id);
      if (value.name.empty()) return InvalidArgument("a value without a name cannot be written");
      if (!names.insert(value.name).second) {
        return InvalidArgument("two values of one name cannot be written: '{}'", value.name);
      }
      if (value.quant) {
        return InvalidArgument("ONNX has no typed int8 values: '{}' needs Q/DQ nodes", value.name);
      }
      if (value.is_constant()) bytes_ += MemoryBytes(value.constant.view());
    }
    return absl::OkStatus();
  }

  absl::Status CheckNode(const Node& node) {
    if (node.domain == kOctetDomain) {
      return InvalidArgument("ONNX has no such operator: {}", Describe(node));
    }
    if (!node.post_ops.empty()) return InvalidArgument("ONNX has no post-ops: {}", Describe(node));
    const int64_t captures = node.attributes.IntOr(kCaptures, 0);
    if (captures < 0 || captures > std::ssize(node.inputs)) {
      return InvalidArgument("sub-graphs capture {} of {} inputs: {}", captures, node.inputs.size(),
                             Describe(node));
    }
    const auto [at, added] = first_.emplace(node.domain, &node);
    if (added || at->second->version == node.version) return absl::OkStatus();
    return InvalidArgument("two opsets of one domain cannot be written: {} and {}",
                           Describe(*at->second), Describe(node));
  }

  absl::Status WriteOpsets() {
    const auto onnx = first_.find(kOnnxDomain);
    const int opset = onnx == first_.end() ? kMaxOpset : onnx->second->version;
    AddImport(kOnnxDomain, opset);
    for (const auto& [domain, node] : first_) {
      if (domain != kOnnxDomain) AddImport(domain, node->version);
    }
    model_.set_ir_version(IrVersionFor(opset));
    model_.set_producer_name("octet");
    return absl::OkStatus();
  }

  void AddImport(std::string_view domain, int version) {
    onnx::OperatorSetIdProto& import = *model_.add_opset_import();
    import.set_domain(std::string(domain));
    import.set_version(version);
  }

  // `captures`: the last inputs of a sub-graph, which are no inputs in a file.
  void WriteGraph(const Graph& graph, const Names& names, size_t captures,
                  onnx::GraphProto& proto) {
    proto.set_name(graph.name.empty() ? "graph" : graph.name);
    const std::set<ValueId> captured(graph.inputs.end() - static_cast<ptrdiff_t>(captures),
                                     graph.inputs.end());
    const auto describe = [&](ValueId id, onnx::ValueInfoProto& info) {
      WriteValueInfo(graph.value(id), info);
      info.set_name(names[id]);
    };
    for (const ValueId id : graph.inputs) {
      if (!captured.contains(id)) describe(id, *proto.add_input());
    }
    for (const ValueId id : graph.outputs) describe(id, *proto.add_output());
    for (ValueId id = 0; id < graph.value_count(); ++id) {
      const Value& value = graph.value(id);
      if (!InUse(graph, id)) continue;
      if (value.is_constant()) {
        onnx::TensorProto& tensor = *proto.add_initializer();
        tensor.set_name(names[id]);
        WriteTensor(value.constant, tensor);
      } else if (value.dtype != DType::kUndefined && !graph.is_graph_input(id) &&
                 !graph.is_graph_output(id)) {
        describe(id, *proto.add_value_info());
      }
    }
    NodeNames taken;
    for (const NodeId id : graph.order())
      WriteNode(graph.node(id), names, taken, *proto.add_node());
  }

  void WriteNode(const Node& node, const Names& names, NodeNames& taken, onnx::NodeProto& proto) {
    // ONNX Runtime makes initializers of Constants first: their names may repeat, and do.
    const bool may_repeat = node.is("Constant");
    if (!node.name.empty()) proto.set_name(may_repeat ? node.name : taken.Take(node.name));
    // Its output is a tensor by now (ops/zip_map.cc), which no other runtime takes a ZipMap's for.
    const bool is_map = node.is("ZipMap", kMlDomain);
    proto.set_op_type(is_map ? "Identity" : node.op);
    if (!node.domain.empty() && !is_map) proto.set_domain(node.domain);
    const auto captures = static_cast<size_t>(node.attributes.IntOr(kCaptures, 0));  // Checked.
    const std::span<const ValueId> inputs = node.inputs;
    for (const ValueId id : inputs.first(inputs.size() - captures))
      proto.add_input(id == kNone ? "" : names[id]);
    for (const ValueId id : node.outputs) proto.add_output(id == kNone ? "" : names[id]);
    if (node.in_bf16) {
      AddEntry(kComputeKey, kComputeBf16, *proto.add_metadata_props());
      model_.set_ir_version(std::max(model_.ir_version(), kIrOfNodeMetadata));
    }
    for (const auto& [key, value] : node.attributes) {
      if (key == kCaptures || is_map) continue;
      onnx::AttributeProto& attribute = *proto.add_attribute();
      WriteAttribute(key, value, attribute);
      const Subgraph* body = std::get_if<Subgraph>(&value);
      if (body == nullptr) continue;
      WriteGraph(**body, BodyNames(**body, inputs.last(captures), names), captures,
                 *attribute.mutable_g());
      if (node.is("Loop")) DeclareScalars(*attribute.mutable_g());
    }
  }

  // The number of the iteration, and the condition: ONNX Runtime runs no Loop whose body leaves their shape open.
  static void DeclareScalars(onnx::GraphProto& body) {
    for (int i = 0; i < std::min(body.input_size(), 2); ++i) {
      onnx::TypeProto& type = *body.mutable_input(i)->mutable_type();
      if (type.has_tensor_type()) (void)type.mutable_tensor_type()->mutable_shape();
    }
  }

  Names BodyNames(const Graph& body, std::span<const ValueId> captures, const Names& outer) {
    Names names = OwnNames(body);
    const size_t own = body.inputs.size() - captures.size();
    const std::set<ValueId> captured(body.inputs.begin() + static_cast<ptrdiff_t>(own),
                                     body.inputs.end());
    for (ValueId id = 0; id < body.value_count(); ++id) {
      if (captured.contains(id) || !InUse(body, id)) continue;
      const std::string wanted = names[id];
      for (int i = 0; !taken_.insert(names[id]).second; ++i) names[id] = Format("{}_{}", wanted, i);
    }
    for (size_t i = 0; i < captures.size(); ++i) names[body.inputs[own + i]] = outer[captures[i]];
    return names;
  }

  const Graph& graph_;
  onnx::ModelProto model_;
  uint64_t bytes_ = 0;
  std::map<std::string_view, const Node*> first_;  // By domain.
  std::set<std::string> taken_;                    // Names of the model's values.
};

absl::Status WriteModel(const onnx::ModelProto& model, const std::string& path) {
  PendingFile file(path);
  OCTET_RETURN_IF_ERROR(file.Open());
  google::protobuf::io::FileOutputStream stream(file.fd());
  const bool written = model.SerializeToZeroCopyStream(&stream) && stream.Flush();
  if (!written) return SystemError("write", path, stream.GetErrno());
  return file.Commit();
}

}  // namespace

absl::Status WriteOnnxFile(const Graph& graph, const std::string& path) {
  try {
    OCTET_ASSIGN_OR_RETURN(const onnx::ModelProto model, ModelWriter(graph).Write());
    return WriteModel(model, path);
  } catch (const std::exception& e) {
    return MakeError(absl::StatusCode::kResourceExhausted, "cannot write {}: {}", path, e.what());
  }
}

absl::StatusOr<std::string> WriteOnnxBytes(const Graph& graph) {
  try {
    OCTET_ASSIGN_OR_RETURN(const onnx::ModelProto model, ModelWriter(graph).Write());
    return model.SerializeAsString();
  } catch (const std::exception& e) {
    return MakeError(absl::StatusCode::kResourceExhausted, "cannot write a model: {}", e.what());
  }
}

}  // namespace octet
