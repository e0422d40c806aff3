#include "engine/onnx/graph_reader.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <format>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/onnx/attribute_proto.h"
#include "engine/onnx/onnx_file.h"
#include "engine/onnx/value_info.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Longer names are no names, and would make messages of any size.
constexpr size_t kMaxNameBytes = 1 << 12;
// No domain counts its versions so high.
constexpr int64_t kMaxVersion = 1 << 20;
// What passes write into nodes of ONNX's domain: in a file it would be a way around their checks.
constexpr std::array<std::string_view, 4> kReserved = {"channels_last", "dynamic_quant", kCaptures,
                                                       "trans_b"};

// The length of the UTF-8 sequence that starts `text`, 0 when there is none. Source: RFC 3629.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool overlong = (lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xf0 && byte(1) < 0x90);
  const bool surrogate = lead == 0xed && byte(1) > 0x9f;
  const bool beyond = lead == 0xf4 && byte(1) > 0x8f;
  return overlong || surrogate || beyond ? 0 : length;
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

// Names end up in messages, replies, logs and metrics: none may carry what those cannot.
absl::Status CheckName(std::string_view name, std::string_view what) {
  if (name.size() > kMaxNameBytes) {
    return InvalidArgument("{} name is too long: {} bytes", what, name.size());
  }
  if (!IsUtf8(name)) return InvalidArgument("{} name is not UTF-8", what);
  return absl::OkStatus();
}

std::string NormalDomain(const std::string& domain) {
  return domain == "ai.onnx" ? std::string(kOnnxDomain) : domain;
}

// What holds in every graph of a model.
struct Imports {
  std::map<std::string, int> opsets;  // By normal domain.
  std::set<std::pair<std::string, std::string>> functions;
};

absl::StatusOr<Imports> ReadImports(const onnx::ModelProto& model) {
  if (model.opset_import_size() == 0) return InvalidArgument("no opset import: not an ONNX model");
  Imports imports;
  for (const onnx::OperatorSetIdProto& import : model.opset_import()) {
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
    const auto [at, added] = imports.opsets.emplace(domain, static_cast<int>(version));
    if (!added && at->second != version) {
      return InvalidArgument("two opsets of domain '{}': {} and {}", domain, at->second, version);
    }
  }
  for (const onnx::FunctionProto& function : model.functions()) {
    imports.functions.emplace(NormalDomain(function.domain()), function.name());
  }
  return imports;
}

absl::Status ReadMetadata(const onnx::ModelProto& model, Graph& graph) {
  for (const onnx::StringStringEntryProto& entry : model.metadata_props()) {
    OCTET_RETURN_IF_ERROR(CheckName(entry.key(), "metadata"));
    if (!IsUtf8(entry.value())) {
      return InvalidArgument("metadata value of '{}' is not UTF-8", entry.key());
    }
    graph.metadata[entry.key()] = entry.value();
  }
  return absl::OkStatus();
}

// Reads a graph, and for a sub-graph what it captures of the graphs around it: a captured constant is copied (its elements
// are shared), any other value becomes an input behind the sub-graph's own.
class GraphReader {
 public:
  GraphReader(onnx::GraphProto& proto, const Imports& imports, TensorReader& tensors,
              GraphReader* outer)
      : proto_(proto), imports_(imports), tensors_(tensors), outer_(outer) {}

  absl::StatusOr<Graph> Read(std::span<const std::optional<ByteRange>> left_out = {}) {
    OCTET_RETURN_IF_ERROR(CheckName(proto_.name(), "graph"));
    graph_.name = proto_.name();
    if (proto_.sparse_initializer_size() > 0) return Unimplemented("sparse initializers");
    OCTET_RETURN_IF_ERROR(ReadDeclarations());
    OCTET_RETURN_IF_ERROR(ReadInitializers(left_out));
    OCTET_RETURN_IF_ERROR(ReadInputs());
    OCTET_RETURN_IF_ERROR(DefineNodeOutputs());
    for (onnx::NodeProto& node : *proto_.mutable_node()) {
      OCTET_RETURN_IF_ERROR(ReadNode(node));
      node = onnx::NodeProto();
    }
    OCTET_RETURN_IF_ERROR(ReadOutputs());
    OCTET_RETURN_IF_ERROR(CheckMaps());
    OCTET_RETURN_IF_ERROR(graph_.Sort());
    OCTET_RETURN_IF_ERROR(Verify(graph_));
    return std::move(graph_);
  }

 private:
  // A sub-graph of a node that is being read.
  struct Body {
    std::string attribute;
    Graph graph;
    size_t own_inputs = 0;
    std::vector<std::pair<ValueId, ValueId>> captured;  // Value around it, input of the body.
  };

  bool is_body() const { return outer_ != nullptr; }

  // Types of intermediate values. What they say of types that no operator here has is left to the operator
  // that makes such a value.
  absl::Status ReadDeclarations() {
    for (const onnx::ValueInfoProto& info : proto_.value_info()) {
      absl::StatusOr<Declaration> declared = ReadValueInfo(info);
      if (declared.ok()) {
        declarations_[info.name()] = *std::move(declared);
      } else if (declared.status().code() != absl::StatusCode::kUnimplemented) {
        OCTET_RETURN_IF_ERROR(CheckName(info.name(), "value"));
        return declared.status();
      }
    }
    proto_.clear_value_info();
    return absl::OkStatus();
  }

  // The type of an input or output. One that Octet does not know is told as a fault of the first node that meets it:
  // it is the operator that Octet would have to have.
  absl::StatusOr<Declaration> ReadInterface(const onnx::ValueInfoProto& info) const {
    absl::StatusOr<Declaration> declared = ReadValueInfo(info);
    if (declared.ok() || declared.status().code() != absl::StatusCode::kUnimplemented)
      return declared;
    // An output is told when its node has been read, an input before that. Where no node meets it, the first one stands in.
    const auto value = values_.find(info.name());
    if (value != values_.end() && graph_.producer(value->second) != kNone) {
      const Node& producer = graph_.node(graph_.producer(value->second));
      if (MakesMaps(producer)) return Declaration();
      return Annotate(declared.status(), Describe(producer));
    }
    const auto meets = [&](const onnx::NodeProto& node) {
      return std::ranges::contains(node.input(), info.name());
    };
    auto found = std::ranges::find_if(proto_.node(), meets);
    if (found == proto_.node().end()) found = proto_.node().begin();
    if (found == proto_.node().end()) return declared;
    const absl::StatusOr<Node> node = Identify(*found);
    return Annotate(declared.status(), node.ok() ? Describe(*node) : Message(node.status()));
  }

  // The value of that name here or, captured, in the graphs around; kNone when there is none.
  ValueId Find(const std::string& name) {
    if (const auto found = values_.find(name); found != values_.end()) return found->second;
    const ValueId outside = is_body() ? outer_->Find(name) : kNone;
    if (outside == kNone) return kNone;
    const Value& seen = outer_->graph_.value(outside);
    Value value;
    value.name = name;
    value.kind = seen.kind;
    value.dtype = seen.dtype;
    value.constant = seen.constant;
    const bool captured = !value.is_constant();
    const ValueId id = graph_.AddValue(std::move(value));
    values_.emplace(name, id);
    if (!captured) return id;
    graph_.inputs.push_back(id);
    captured_.emplace_back(outside, id);
    return id;
  }

  // Adds a value under a name that must be new (every value is assigned once).
  absl::StatusOr<ValueId> Define(const std::string& name, Value value) {
    OCTET_RETURN_IF_ERROR(CheckName(name, "value"));
    if (name.empty()) return InvalidArgument("value without a name");
    const auto [at, added] = values_.emplace(name, graph_.value_count());
    if (!added) return InvalidArgument("value is defined twice: '{}'", name);
    value.name = name;
    return graph_.AddValue(std::move(value));
  }

  absl::Status ReadInitializers(std::span<const std::optional<ByteRange>> left_out) {
    size_t index = 0;
    for (onnx::TensorProto& proto : *proto_.mutable_initializer()) {
      const std::optional<ByteRange> elements =
          index < left_out.size() ? left_out[index] : std::nullopt;
      ++index;
      OCTET_RETURN_IF_ERROR(CheckName(proto.name(), "initializer"));
      Value value;
      OCTET_ASSIGN_OR_RETURN(value.constant, tensors_.Read(proto, elements));
      OCTET_RETURN_IF_ERROR(Define(proto.name(), std::move(value)).status());
    }
    proto_.clear_initializer();
    return absl::OkStatus();
  }

  absl::Status ReadInputs() {
    std::set<std::string_view> seen;
    for (const onnx::ValueInfoProto& info : proto_.input()) {
      OCTET_RETURN_IF_ERROR(CheckName(info.name(), "input"));
      if (!seen.insert(info.name()).second) {
        return InvalidArgument("input is declared twice: '{}'", info.name());
      }
      OCTET_ASSIGN_OR_RETURN(const Declaration declared, ReadInterface(info));
      // Before IR version 4 every initializer was declared as an input, too.
      if (const auto found = values_.find(info.name()); found != values_.end()) {
        const Tensor& constant = graph_.value(found->second).constant;
        OCTET_RETURN_IF_ERROR(CheckAgainst(declared, info.name(), constant.spec()));
        continue;
      }
      // The types and shapes of a body's inputs are those of what the node hands it.
      if (declared.dtype == DType::kUndefined && !is_body()) {
        return InvalidArgument("input without an element type: '{}'", info.name());
      }
      Value value;
      value.kind = declared.kind;
      value.dtype = declared.dtype;
      if (!is_body()) value.shape = declared.shape;
      OCTET_ASSIGN_OR_RETURN(const ValueId id, Define(info.name(), std::move(value)));
      graph_.inputs.push_back(id);
    }
    return absl::OkStatus();
  }

  // Before any node is read, so that a file need not have its nodes in order.
  absl::Status DefineNodeOutputs() {
    for (const onnx::NodeProto& node : proto_.node()) {
      for (const std::string& name : node.output()) {
        if (name.empty()) continue;
        Value value;
        if (const auto found = declarations_.find(name); found != declarations_.end()) {
          value.kind = found->second.kind;
          value.dtype = found->second.dtype;
          // A body runs many times, and what exporters say of its shapes is often true of the first time only.
          if (!is_body()) value.shape = found->second.shape;
        }
        OCTET_RETURN_IF_ERROR(Define(name, std::move(value)).status());
      }
    }
    return absl::OkStatus();
  }

  // Name, operator and opset of a node.
  absl::StatusOr<Node> Identify(const onnx::NodeProto& proto) const {
    Node node;
    OCTET_RETURN_IF_ERROR(CheckName(proto.name(), "node"));
    OCTET_RETURN_IF_ERROR(CheckName(proto.op_type(), "operator"));
    OCTET_RETURN_IF_ERROR(CheckName(proto.domain(), "domain"));
    node.name = proto.name();
    // Every message and every certificate names nodes: one without a name goes by its first output.
    for (int i = 0; i < proto.output_size() && node.name.empty(); ++i) node.name = proto.output(i);
    node.op = proto.op_type();
    node.domain = NormalDomain(proto.domain());
    if (node.op.empty()) return InvalidArgument("node '{}' has no operator", node.name);
    const auto import = imports_.opsets.find(node.domain);
    if (import == imports_.opsets.end()) {
      return InvalidArgument("no opset import for domain '{}' of {} '{}'", node.domain, node.op,
                             node.name);
    }
    node.version = import->second;
    return node;
  }

  absl::Status ReadNode(onnx::NodeProto& proto) {
    OCTET_ASSIGN_OR_RETURN(Node node, Identify(proto));
    if (node.domain == kOctetDomain) {
      return Unimplemented("{}: unsupported operator, of the domain that only passes write",
                           Describe(node));
    }
    if (!proto.overload().empty() || imports_.functions.contains({node.domain, node.op})) {
      return Unimplemented("{}: unsupported operator, a function of the model", Describe(node));
    }
    const absl::Status filled = FillNode(proto, node);
    if (!filled.ok()) return Annotate(filled, Describe(node));
    graph_.AddNode(std::move(node));
    return absl::OkStatus();
  }

  absl::Status FillNode(onnx::NodeProto& proto, Node& node) {
    for (const std::string& name : proto.input()) {
      const ValueId id = name.empty() ? kNone : Find(name);
      if (id == kNone && !name.empty()) {
        OCTET_RETURN_IF_ERROR(CheckName(name, "input"));
        return InvalidArgument("input is defined nowhere: '{}'", name);
      }
      node.inputs.push_back(id);
    }
    for (const std::string& name : proto.output()) {
      node.outputs.push_back(name.empty() ? kNone : values_.at(name));
    }
    // Absent at the end is the same as not listed.
    while (!node.inputs.empty() && node.inputs.back() == kNone) node.inputs.pop_back();
    while (!node.outputs.empty() && node.outputs.back() == kNone) node.outputs.pop_back();
    node.in_bf16 = std::ranges::any_of(proto.metadata_props(), [](const auto& entry) {
      return entry.key() == kComputeKey && entry.value() == kComputeBf16;
    });
    std::vector<Body> bodies;
    for (onnx::AttributeProto& attribute : *proto.mutable_attribute()) {
      OCTET_RETURN_IF_ERROR(FillAttribute(attribute, node, bodies));
    }
    AddBodies(std::move(bodies), node);
    return absl::OkStatus();
  }

  absl::Status FillAttribute(onnx::AttributeProto& attribute, Node& node,
                             std::vector<Body>& bodies) {
    OCTET_RETURN_IF_ERROR(CheckName(attribute.name(), "attribute"));
    if (attribute.name().empty()) return InvalidArgument("attribute without a name");
    if (node.domain == kOnnxDomain && std::ranges::contains(kReserved, attribute.name())) {
      return InvalidArgument("attribute is not ONNX's: '{}'", attribute.name());
    }
    const auto same_name = [&](const Body& body) { return body.attribute == attribute.name(); };
    if (node.attributes.has(attribute.name()) || std::ranges::any_of(bodies, same_name)) {
      return InvalidArgument("attribute is given twice: '{}'", attribute.name());
    }
    if (attribute.has_t()) OCTET_RETURN_IF_ERROR(CheckName(attribute.t().name(), "tensor"));
    if (attribute.type() == onnx::AttributeProto::GRAPH || attribute.has_g()) {
      absl::StatusOr<Body> body = ReadBody(attribute);
      if (!body.ok()) return Annotate(body.status(), Format("attribute '{}'", attribute.name()));
      bodies.push_back(*std::move(body));
      return absl::OkStatus();
    }
    OCTET_ASSIGN_OR_RETURN(AttributeValue value, ReadAttribute(attribute, tensors_));
    node.attributes.Set(attribute.name(), std::move(value));
    return absl::OkStatus();
  }

  absl::StatusOr<Body> ReadBody(onnx::AttributeProto& attribute) {
    OCTET_RETURN_IF_ERROR(CheckHoldsGraph(attribute));
    GraphReader reader(*attribute.mutable_g(), imports_, tensors_, this);
    Body body;
    body.attribute = attribute.name();
    OCTET_ASSIGN_OR_RETURN(body.graph, reader.Read());
    body.captured = std::move(reader.captured_);
    body.own_inputs = body.graph.inputs.size() - body.captured.size();
    return body;
  }

  // Appends what any of the bodies captures to the node's inputs and, in the same order, to the inputs of each.
  void AddBodies(std::vector<Body> bodies, Node& node) {
    if (bodies.empty()) return;
    std::vector<ValueId> captures;
    for (const Body& body : bodies) {
      for (const auto& [outside, inside] : body.captured) {
        if (!std::ranges::contains(captures, outside)) captures.push_back(outside);
      }
    }
    for (Body& body : bodies) {
      // Inputs that were captured while it was read stand in the order of their first use.
      std::erase_if(body.graph.inputs, [&](ValueId id) {
        return std::ranges::contains(body.captured, id, &std::pair<ValueId, ValueId>::second);
      });
      for (const ValueId outside : captures) {
        const auto found =
            std::ranges::find(body.captured, outside, &std::pair<ValueId, ValueId>::first);
        const Value& value = graph_.value(outside);
        body.graph.inputs.push_back(
            found != body.captured.end()
                ? found->second
                : body.graph.AddValue({.name = body.graph.UniqueName(value.name),
                                       .kind = value.kind,
                                       .dtype = value.dtype}));
      }
      node.attributes.Set(body.attribute, std::make_shared<const Graph>(std::move(body.graph)));
    }
    // Loop: a number of times, a condition.
    if (node.op == "Loop") node.inputs.resize(std::max<size_t>(node.inputs.size(), 2), kNone);
    node.inputs.insert(node.inputs.end(), captures.begin(), captures.end());
    if (!captures.empty()) node.attributes.Set(std::string(kCaptures), std::ssize(captures));
  }

  absl::Status ReadOutputs() {
    for (const onnx::ValueInfoProto& info : proto_.output()) {
      OCTET_RETURN_IF_ERROR(CheckName(info.name(), "output"));
      ValueId id = Find(info.name());
      if (id == kNone) {
        return InvalidArgument("graph output is defined nowhere: '{}'", info.name());
      }
      OCTET_ASSIGN_OR_RETURN(const Declaration declared, ReadInterface(info));
      if (graph_.is_graph_output(id)) {
        if (!is_body()) return InvalidArgument("output is declared twice: '{}'", info.name());
        id = AddCopy(id);
      }
      Value& value = graph_.mutable_value(id);
      if (value.is_constant()) {
        OCTET_RETURN_IF_ERROR(CheckAgainst(declared, info.name(), value.constant.spec()));
      } else if (!graph_.is_graph_input(id)) {
        if (declared.dtype != DType::kUndefined) value.dtype = declared.dtype;
        value.kind = declared.kind;
        if (declared.shape && !is_body()) value.shape = declared.shape;
      }
      graph_.outputs.push_back(id);
    }
    if (graph_.outputs.empty()) return InvalidArgument("the graph has no outputs");
    return absl::OkStatus();
  }

  static bool MakesMaps(const Node& node) { return node.is("ZipMap", kMlDomain); }

  // There are no maps: what would be one is answered as the row of scores that it is made of, where the model ends.
  absl::Status CheckMaps() const {
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      if (!MakesMaps(node)) continue;
      for (const ValueId map : node.outputs) {
        if (map != kNone && !is_body() && graph_.is_graph_output(map) &&
            graph_.consumers(map).empty())
          continue;
        return Unimplemented(
            "{}: unsupported maps, but as an output of the model that no node reads",
            Describe(node));
      }
    }
    return absl::OkStatus();
  }

  // A body may hand the same value out twice (as the next state and as a result).
  ValueId AddCopy(ValueId of) {
    Node copy;
    copy.name = graph_.UniqueName(graph_.value(of).name);
    copy.op = "Identity";
    copy.version = imports_.opsets.at(std::string(kOnnxDomain));
    const Value& value = graph_.value(of);
    copy.inputs = {of};
    copy.outputs = {graph_.AddValue({.name = copy.name, .kind = value.kind, .dtype = value.dtype})};
    const ValueId output = copy.outputs.front();
    graph_.AddNode(std::move(copy));
    return output;
  }

  onnx::GraphProto& proto_;
  const Imports& imports_;
  TensorReader& tensors_;
  GraphReader* const outer_;  // Of a sub-graph.
  Graph graph_;
  std::vector<std::pair<ValueId, ValueId>> captured_;  // Value around this graph, input of it.
  std::unordered_map<std::string, ValueId> values_;
  std::unordered_map<std::string, Declaration> declarations_;
};

}  // namespace

absl::StatusOr<Graph> GraphFromModel(onnx::ModelProto& model, TensorReader& tensors,
                                     std::span<const std::optional<ByteRange>> left_out) {
  OCTET_ASSIGN_OR_RETURN(const Imports imports, ReadImports(model));
  OCTET_ASSIGN_OR_RETURN(
      Graph graph, GraphReader(*model.mutable_graph(), imports, tensors, nullptr).Read(left_out));
  OCTET_RETURN_IF_ERROR(ReadMetadata(model, graph));
  return graph;
}

}  // namespace octet
