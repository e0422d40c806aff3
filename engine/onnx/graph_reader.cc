#include "engine/onnx/graph_reader.h"

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "engine/onnx/attribute_proto.h"
#include "engine/onnx/four_bits.h"
#include "engine/onnx/model_functions.h"
#include "engine/onnx/moved_attributes.h"
#include "engine/onnx/names.h"
#include "engine/onnx/onnx_file.h"
#include "engine/onnx/value_info.h"
#include "engine/tensor/status.h"
#include "engine/tensor/utf8.h"

namespace octet {
namespace {

// What passes and this reader write into nodes: in a file it would be a way around their checks. No operator of any domain has
// attributes of these names,
constexpr std::array<std::string_view, 3> kReserved = {"dynamic_quant", kCaptures, "trans_b"};
// and none of ONNX's this one; com.microsoft has operators that have.
constexpr std::string_view kReservedInOnnx = "channels_last";

bool IsReserved(const Node& node, std::string_view attribute) {
  return std::ranges::contains(kReserved, attribute) ||
         (node.domain == kOnnxDomain && attribute == kReservedInOnnx);
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

// What names mean where they are read: in a graph, or in a function that a node of it calls, whose nodes become nodes of the
// graph.
struct Scope {
  const Opsets* opsets = nullptr;
  const CallAttributes* attributes =
      nullptr;  // Of the function around it, null outside of functions.
  // "call/" for each call around it: what is read has names that tell whose call made it.
  std::string prefix;
  std::unordered_map<std::string, ValueId> values;  // kNone: an input that the call leaves out.
  // Outputs of a function that the call hands out, until the node is found that makes them.
  std::unordered_set<std::string> awaited;
};

// Reads a graph, and for a sub-graph what it captures of the graphs around it: a captured constant is copied (its elements
// are shared), any other value becomes an input behind the sub-graph's own.
class GraphReader {
 public:
  GraphReader(onnx::GraphProto& proto, ModelFunctions& functions, TensorReader& tensors)
      : proto_(proto), functions_(functions), tensors_(tensors) {
    own_.opsets = &functions.opsets();
  }
  // A sub-graph of a node that `outer` reads.
  GraphReader(onnx::GraphProto& proto, GraphReader& outer)
      : proto_(proto), functions_(outer.functions_), tensors_(outer.tensors_), outer_(&outer) {
    own_.opsets = outer.scope_->opsets;
    own_.attributes = outer.scope_->attributes;
    own_.prefix = outer.scope_->prefix;
  }

  absl::StatusOr<Graph> Read(std::span<const std::optional<ByteRange>> left_out = {}) {
    OCTET_RETURN_IF_ERROR(CheckName(proto_.name(), "graph"));
    graph_.name = proto_.name();
    if (proto_.sparse_initializer_size() > 0) return Unimplemented("sparse initializers");
    OCTET_RETURN_IF_ERROR(ReadDeclarations());
    OCTET_RETURN_IF_ERROR(ReadInitializers(left_out));
    OCTET_RETURN_IF_ERROR(ReadInputs());
    OCTET_RETURN_IF_ERROR(DefineNodeOutputs(proto_.node()));
    for (onnx::NodeProto& node : *proto_.mutable_node()) {
      OCTET_RETURN_IF_ERROR(ReadNode(node));
      node = onnx::NodeProto();
    }
    OCTET_RETURN_IF_ERROR(ReadOutputs());
    OCTET_RETURN_IF_ERROR(CheckMaps());
    OCTET_RETURN_IF_ERROR(graph_.Sort());
    OCTET_RETURN_IF_ERROR(four_bits_.Rewrite(graph_, is_body(), OnnxOpset()));
    OCTET_RETURN_IF_ERROR(Verify(graph_));
    return std::move(graph_);
  }

 private:
  using Nodes = google::protobuf::RepeatedPtrField<onnx::NodeProto>;

  // A sub-graph of a node that is being read.
  struct Body {
    std::string attribute;
    Graph graph;
    size_t own_inputs = 0;
    std::vector<std::pair<ValueId, ValueId>> captured;  // Value around it, input of the body.
  };

  bool is_body() const { return outer_ != nullptr; }
  bool in_call() const { return scope_ != &own_; }

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
    const auto value = own_.values.find(info.name());
    if (value != own_.values.end() && graph_.producer(value->second) != kNone) {
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

  // The value of that name in this scope or, in a graph, captured of the graphs around; kNone for an input that the call of a
  // function leaves out, nullopt when there is none.
  std::optional<ValueId> Find(const std::string& name) {
    if (const auto found = scope_->values.find(name); found != scope_->values.end())
      return found->second;
    if (!is_body() || in_call()) return std::nullopt;
    const std::optional<ValueId> outside = outer_->Find(name);
    if (outside.value_or(kNone) == kNone) return outside;
    const ValueId id = Captured(*outside, name);
    scope_->values.emplace(name, id);
    return id;
  }

  // In a function two names may be one value outside.
  ValueId Captured(ValueId outside, const std::string& name) {
    const auto [at, added] = inside_.emplace(outside, graph_.value_count());
    if (!added) return at->second;
    const Value& seen = outer_->graph_.value(outside);
    Value value;
    value.name = graph_.UniqueName(scope_->prefix + name);
    value.kind = seen.kind;
    value.dtype = seen.dtype;
    value.constant = seen.constant;
    const bool captured = !value.is_constant();
    const ValueId id = graph_.AddValue(std::move(value));
    if (const auto held_as = outer_->four_bits_.HeldAs(outside)) four_bits_.Mark(id, *held_as);
    if (!captured) return id;
    graph_.inputs.push_back(id);
    captured_.emplace_back(outside, id);
    return id;
  }

  // Adds a value under a name that must be new (every value is assigned once).
  absl::StatusOr<ValueId> Define(const std::string& name, Value value) {
    std::string full = scope_->prefix + name;
    OCTET_RETURN_IF_ERROR(CheckName(full, "value"));
    if (name.empty()) return InvalidArgument("value without a name");
    const auto [at, added] = scope_->values.emplace(name, graph_.value_count());
    if (!added) return InvalidArgument("value is defined twice: '{}'", full);
    // The graph may have a name that looks like one of a call.
    value.name = in_call() ? graph_.UniqueName(full) : std::move(full);
    return graph_.AddValue(std::move(value));
  }

  absl::Status ReadInitializers(std::span<const std::optional<ByteRange>> left_out) {
    size_t index = 0;
    for (onnx::TensorProto& proto : *proto_.mutable_initializer()) {
      const std::optional<ByteRange> elements =
          index < left_out.size() ? left_out[index] : std::nullopt;
      ++index;
      OCTET_RETURN_IF_ERROR(CheckName(proto.name(), "initializer"));
      const bool four_bits = IsFourBits(proto.data_type());
      Value value;
      OCTET_ASSIGN_OR_RETURN(value.constant, tensors_.Read(proto, elements));
      OCTET_ASSIGN_OR_RETURN(const ValueId id, Define(proto.name(), std::move(value)));
      if (four_bits) four_bits_.Mark(id, graph_.value(id).constant.dtype());
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
      if (const auto found = own_.values.find(info.name()); found != own_.values.end()) {
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
      if (declared.four_bits) four_bits_.Mark(id, declared.dtype);
      graph_.inputs.push_back(id);
    }
    return absl::OkStatus();
  }

  // Before any node is read, so that a file need not have its nodes in order.
  absl::Status DefineNodeOutputs(const Nodes& nodes) {
    for (const onnx::NodeProto& node : nodes) {
      for (const std::string& name : node.output()) {
        if (name.empty() || scope_->awaited.erase(name) > 0) continue;
        Value value;
        const auto found = declarations_.find(name);
        const bool is_declared = found != declarations_.end() && !in_call();
        if (is_declared) {
          value.kind = found->second.kind;
          value.dtype = found->second.dtype;
          // A body runs many times, and what exporters say of its shapes is often true of the first time only.
          if (!is_body()) value.shape = found->second.shape;
        }
        OCTET_ASSIGN_OR_RETURN(const ValueId id, Define(name, std::move(value)));
        if (is_declared && found->second.four_bits) four_bits_.Mark(id, found->second.dtype);
      }
    }
    return absl::OkStatus();
  }

  // Name, operator and opset of a node.
  absl::StatusOr<Node> Identify(const onnx::NodeProto& proto) const {
    Node node;
    OCTET_RETURN_IF_ERROR(CheckName(proto.op_type(), "operator"));
    OCTET_RETURN_IF_ERROR(CheckName(proto.domain(), "domain"));
    node.name = proto.name();
    // Every message and every certificate names nodes: one without a name goes by its first output.
    for (int i = 0; i < proto.output_size() && node.name.empty(); ++i) node.name = proto.output(i);
    node.name.insert(0, scope_->prefix);
    OCTET_RETURN_IF_ERROR(CheckName(node.name, "node"));
    node.op = proto.op_type();
    node.domain = NormalDomain(proto.domain());
    if (node.op.empty()) return InvalidArgument("node '{}' has no operator", node.name);
    const auto import = scope_->opsets->find(node.domain);
    if (import != scope_->opsets->end()) {
      node.version = import->second;
    } else if (functions_.Find(proto) == nullptr) {  // A function needs no version.
      return InvalidArgument("no opset import for domain '{}' of {} '{}'", node.domain, node.op,
                             node.name);
    }
    return node;
  }

  absl::Status ReadNode(onnx::NodeProto& proto) {
    OCTET_ASSIGN_OR_RETURN(Node node, Identify(proto));
    if (ModelFunction* function = functions_.Find(proto)) return ReadCall(proto, node, *function);
    if (node.domain == kOctetDomain) {
      return Unimplemented("{}: unsupported operator, of the domain that only passes write",
                           Describe(node));
    }
    if (!proto.overload().empty()) {
      OCTET_RETURN_IF_ERROR(CheckName(proto.overload(), "overload"));
      return Unimplemented("{}: unsupported operator, the model has no function of overload '{}'",
                           Describe(node), proto.overload());
    }
    const absl::Status filled = FillNode(proto, node);
    if (!filled.ok()) return Annotate(filled, Describe(node));
    graph_.AddNode(std::move(node));
    return absl::OkStatus();
  }

  // The nodes of the function become nodes of this graph.
  absl::Status ReadCall(const onnx::NodeProto& proto, Node& call, ModelFunction& function) {
    Scope scope;
    scope.opsets = &function.opsets;
    scope.prefix = call.name + "/";
    CallAttributes attributes;
    const auto bind = [&]() -> absl::Status {
      OCTET_RETURN_IF_ERROR(FillEdges(proto, call));
      OCTET_ASSIGN_OR_RETURN(attributes, ModelFunctions::Bind(function, proto, scope_->attributes));
      OCTET_RETURN_IF_ERROR(BindValues(*function.proto, call, scope));
      return functions_.Open(function, scope.prefix);
    };
    if (const absl::Status bound = bind(); !bound.ok()) return Annotate(bound, Describe(call));
    scope.attributes = &attributes;
    Scope* const around = std::exchange(scope_, &scope);
    const absl::Status read = ReadFunction(*function.proto, call);
    scope_ = around;
    functions_.Close(function);
    return read;
  }

  // The call's inputs under the function's names, and its outputs as far as they are no inputs and no other outputs.
  static absl::Status BindValues(const onnx::FunctionProto& function, const Node& call,
                                 Scope& scope) {
    const auto check = [](std::string_view what, size_t given, int most) -> absl::Status {
      if (given <= static_cast<size_t>(most)) return absl::OkStatus();
      return InvalidArgument("the function has {} {}, the call {}", most, what, given);
    };
    OCTET_RETURN_IF_ERROR(check("inputs", call.inputs.size(), function.input_size()));
    OCTET_RETURN_IF_ERROR(check("outputs", call.outputs.size(), function.output_size()));
    for (int i = 0; i < function.input_size(); ++i) {
      const std::string& name = function.input(i);
      if (scope.values.emplace(name, call.input(static_cast<size_t>(i))).second) continue;
      OCTET_RETURN_IF_ERROR(CheckName(name, "input"));
      return InvalidArgument("input of the function is declared twice: '{}'", name);
    }
    for (int i = 0; i < function.output_size(); ++i) {
      const ValueId id = call.output(static_cast<size_t>(i));
      if (id != kNone && scope.values.emplace(function.output(i), id).second)
        scope.awaited.insert(function.output(i));
    }
    return absl::OkStatus();
  }

  absl::Status ReadFunction(const onnx::FunctionProto& function, const Node& call) {
    const absl::Status defined = DefineNodeOutputs(function.node());
    if (!defined.ok()) return Annotate(defined, Describe(call));
    for (const std::string& name : function.output()) {
      if (!scope_->awaited.contains(name)) continue;
      OCTET_RETURN_IF_ERROR(CheckName(name, "output"));
      return InvalidArgument("{}: output of the function is defined nowhere: '{}'", Describe(call),
                             name);
    }
    for (const onnx::NodeProto& node : function.node()) {
      onnx::NodeProto copy = node;
      OCTET_RETURN_IF_ERROR(ReadNode(copy));
    }
    for (size_t i = 0; i < call.outputs.size(); ++i) {
      if (call.outputs[i] == kNone) continue;
      const ValueId made = scope_->values.at(function.output(static_cast<int>(i)));
      if (made == call.outputs[i]) continue;
      if (made == kNone) {
        return InvalidArgument("{}: output {} is an input that the call leaves out", Describe(call),
                               i);
      }
      AddIdentity(made, call.outputs[i]);
    }
    return absl::OkStatus();
  }

  absl::Status FillEdges(const onnx::NodeProto& proto, Node& node) {
    for (const std::string& name : proto.input()) {
      const std::optional<ValueId> id = name.empty() ? kNone : Find(name);
      if (!id) {
        OCTET_RETURN_IF_ERROR(CheckName(name, "input"));
        return InvalidArgument("input is defined nowhere: '{}'", name);
      }
      node.inputs.push_back(*id);
    }
    for (const std::string& name : proto.output()) {
      node.outputs.push_back(name.empty() ? kNone : scope_->values.at(name));
    }
    // Absent at the end is the same as not listed.
    while (!node.inputs.empty() && node.inputs.back() == kNone) node.inputs.pop_back();
    while (!node.outputs.empty() && node.outputs.back() == kNone) node.outputs.pop_back();
    return absl::OkStatus();
  }

  absl::Status FillNode(onnx::NodeProto& proto, Node& node) {
    OCTET_RETURN_IF_ERROR(FillEdges(proto, node));
    node.in_bf16 = std::ranges::any_of(proto.metadata_props(), [](const auto& entry) {
      return entry.key() == kComputeKey && entry.value() == kComputeBf16;
    });
    std::vector<Body> bodies;
    for (onnx::AttributeProto& attribute : *proto.mutable_attribute()) {
      if (!attribute.ref_attr_name().empty() && scope_->attributes != nullptr) {
        const auto found = scope_->attributes->find(attribute.ref_attr_name());
        if (found == scope_->attributes->end()) continue;
        OCTET_ASSIGN_OR_RETURN(attribute, functions_.Resolve(attribute, *found->second));
      }
      OCTET_RETURN_IF_ERROR(FillAttribute(attribute, node, bodies));
    }
    AddBodies(std::move(bodies), node);
    return absl::OkStatus();
  }

  absl::Status FillAttribute(onnx::AttributeProto& attribute, Node& node,
                             std::vector<Body>& bodies) {
    OCTET_RETURN_IF_ERROR(CheckName(attribute.name(), "attribute"));
    if (attribute.name().empty()) return InvalidArgument("attribute without a name");
    if (IsReserved(node, attribute.name()))
      return InvalidArgument("attribute is not ONNX's: '{}'", attribute.name());
    OCTET_RETURN_IF_ERROR(CheckNotMoved(node, attribute.name()));
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
    // Of a Constant or a ConstantOfShape.
    const bool four_bits = attribute.has_t() && IsFourBits(attribute.t().data_type());
    OCTET_ASSIGN_OR_RETURN(AttributeValue value, ReadAttribute(attribute, tensors_));
    if (four_bits && node.output(0) != kNone)
      four_bits_.Mark(node.output(0), std::get<Tensor>(value).dtype());
    node.attributes.Set(attribute.name(), std::move(value));
    return absl::OkStatus();
  }

  absl::StatusOr<Body> ReadBody(onnx::AttributeProto& attribute) {
    OCTET_RETURN_IF_ERROR(CheckHoldsGraph(attribute));
    OCTET_RETURN_IF_ERROR(functions_.OpenBody());
    GraphReader reader(*attribute.mutable_g(), *this);
    Body body;
    body.attribute = attribute.name();
    OCTET_ASSIGN_OR_RETURN(body.graph, reader.Read());
    functions_.CloseBody();
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
      ValueId id = Find(info.name()).value_or(kNone);
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
        if (declared.four_bits) four_bits_.Mark(id, declared.dtype);
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
    const Value& value = graph_.value(of);
    return AddIdentity(
        of, graph_.AddValue(
                {.name = graph_.UniqueName(value.name), .kind = value.kind, .dtype = value.dtype}));
  }

  ValueId AddIdentity(ValueId from, ValueId to) {
    Node copy;
    copy.name = graph_.value(to).name;
    copy.op = "Identity";
    copy.version = OnnxOpset();
    copy.inputs = {from};
    copy.outputs = {to};
    graph_.AddNode(std::move(copy));
    return to;
  }

  // Of nodes that the file does not have.
  int OnnxOpset() const {
    const auto import = scope_->opsets->find(std::string(kOnnxDomain));
    return import == scope_->opsets->end() ? kMaxOpset : import->second;
  }

  onnx::GraphProto& proto_;
  ModelFunctions& functions_;
  TensorReader& tensors_;
  GraphReader* const outer_ = nullptr;  // Of a sub-graph.
  Graph graph_;
  std::vector<std::pair<ValueId, ValueId>> captured_;  // Value around this graph, input of it.
  std::unordered_map<ValueId, ValueId> inside_;        // The same, and constants.
  Scope own_;
  Scope* scope_ = &own_;
  std::unordered_map<std::string, Declaration> declarations_;
  FourBits four_bits_;
};

}  // namespace

absl::StatusOr<Graph> GraphFromModel(onnx::ModelProto& model, TensorReader& tensors,
                                     std::span<const std::optional<ByteRange>> left_out) {
  OCTET_ASSIGN_OR_RETURN(ModelFunctions functions, ModelFunctions::Read(model));
  OCTET_ASSIGN_OR_RETURN(Graph graph,
                         GraphReader(*model.mutable_graph(), functions, tensors).Read(left_out));
  OCTET_RETURN_IF_ERROR(ReadMetadata(model, graph));
  return graph;
}

}  // namespace octet
