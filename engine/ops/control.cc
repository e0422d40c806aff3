// Shape inference of the operators that run sub-graphs: If, Loop, Scan, SequenceMap. engine/plan/ runs them.
#include "engine/ops/control.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr std::array<std::string_view, 2> kBranches = {"then_branch", "else_branch"};
constexpr std::array<std::string_view, 1> kBody = {"body"};

// Rounds after which nothing is said of a state's shape: each round makes one extent unknown or ends.
constexpr int kMaxRounds = 2 * kMaxRank;

// The loops inside a body are inferred anew in each of its rounds: rounds to the power of the depth, were there no
// bound. Below a node that lies in no other's body, inference visits what the bodies hold this many times on average.
// More than kMaxRounds, so that a body without others has all of them; nine loops in each other may take two rounds
// each, or five three.
constexpr size_t kMaxVisits = 128;
static_assert(kMaxVisits > kMaxRounds + 2);

/// Values and nodes of a body, without those of the bodies inside it.
size_t OwnSize(const Graph& body) {
  return static_cast<size_t>(body.value_count()) + body.order().size();
}

/// OwnSize of a body and of all inside it.
size_t WholeSize(const Graph& body) {
  size_t size = OwnSize(body);
  for (const NodeId id : body.order()) {
    const Node& node = body.node(id);
    const OpDef* def = FindOp(node);
    if (def == nullptr || !def->traits.control) continue;
    for (const std::string_view name : BodyNames(node)) {
      // What is no graph is refused where it is inferred.
      const absl::StatusOr<Subgraph> inner = node.attributes.GraphOrNull(name);
      if (inner.ok() && *inner != nullptr) size += WholeSize(**inner);
    }
  }
  return size;
}

/// What may still be visited below the outermost control node whose body this thread infers. Once it is spent, nothing
/// is said of states' shapes any more, and each body takes one inference, or one more where it has begun.
class VisitBudget {
 public:
  /// Begins a budget, unless there is one of a node around this one.
  explicit VisitBudget(const Graph& body) : outermost_(!begun_) {
    if (!outermost_) return;
    begun_ = true;
    left_ = kMaxVisits * WholeSize(body);
  }
  ~VisitBudget() {
    if (outermost_) begun_ = false;
  }
  VisitBudget(const VisitBudget&) = delete;
  VisitBudget& operator=(const VisitBudget&) = delete;

  static void Visit(const Graph& body) { left_ -= std::min(left_, OwnSize(body)); }
  static bool IsSpent() { return left_ == 0; }

 private:
  static thread_local bool begun_;
  static thread_local size_t left_;
  const bool outermost_;
};
thread_local bool VisitBudget::begun_ = false;
thread_local size_t VisitBudget::left_ = 0;

absl::StatusOr<Subgraph> BodyOf(const Node& node, std::string_view name) {
  OCTET_ASSIGN_OR_RETURN(Subgraph body, node.attributes.GraphOrNull(name));
  if (body == nullptr) return InvalidArgument("{}: lacks its attribute '{}'", Describe(node), name);
  return body;
}

absl::Status CheckCount(const Node& node, std::string_view what, size_t expected, size_t got) {
  if (expected == got) return absl::OkStatus();
  return InvalidArgument("{}: {}: expected {}, got {}", Describe(node), what, expected, got);
}

absl::Status CheckAtLeast(const Node& node, std::string_view what, size_t least, size_t got) {
  if (got >= least) return absl::OkStatus();
  return InvalidArgument("{}: {}: expected at least {}, got {}", Describe(node), what, least, got);
}

/// What a body's input is given.
struct Given {
  ValueType type;
  std::optional<Shape> shape;
};

Given GivenBy(const Graph& graph, ValueId id) {
  if (id == kNone) return {};
  const Value& value = graph.value(id);
  return {{value.kind, value.dtype}, value.shape};
}

std::optional<Shape> WithoutLeading(const std::optional<Shape>& shape, int count) {
  if (!shape || shape->rank() < count) return std::nullopt;
  return Shape(shape->dims().subspan(count));
}

/// Forgets of a shape what does not hold of `other`, or everything. True when that was something.
bool Weaken(std::optional<Shape>& shape, const std::optional<Shape>& other, bool everything) {
  if (!shape) return false;
  if (everything || !other || other->rank() != shape->rank()) {
    shape.reset();
    return true;
  }
  bool changed = false;
  for (int i = 0; i < shape->rank(); ++i) {
    if ((*shape)[i] == kUnknownDim || (*shape)[i] == (*other)[i]) continue;
    (*shape)[i] = kUnknownDim;
    changed = true;
  }
  return changed;
}

absl::StatusOr<Graph> Infer(const Node& node, const Graph& body, std::span<const Given> given) {
  OCTET_RETURN_IF_ERROR(
      CheckCount(node, "inputs of its sub-graph", given.size(), body.inputs.size()));
  VisitBudget::Visit(body);
  Graph inferred = body;
  for (ValueId id = 0; id < inferred.value_count(); ++id) {
    // What another run of the body found of its shapes.
    if (inferred.producer(id) != kNone) inferred.mutable_value(id).shape = std::nullopt;
  }
  for (size_t i = 0; i < given.size(); ++i) {
    Value& value = inferred.mutable_value(body.inputs[i]);
    // An absent input leaves what the body declares.
    if (given[i].type.dtype != DType::kUndefined) {
      value.kind = given[i].type.kind;
      value.dtype = given[i].type.dtype;
    }
    value.shape = given[i].shape;
  }
  OCTET_RETURN_IF_ERROR(InferShapes(inferred));
  return inferred;
}

/// Input `in` of the body is what its output `out` was in the iteration before.
struct Carried {
  size_t in;
  size_t out;
};

bool IsSequence(ValueKind kind) {
  return kind == ValueKind::kSequence || kind == ValueKind::kOptionalSequence;
}

/// INVALID_ARGUMENT unless one value can stand where the other does; either may be optional.
absl::Status CheckSameType(const Node& node, std::string_view what, const Value& a,
                           const Value& b) {
  if (a.dtype == b.dtype && IsSequence(a.kind) == IsSequence(b.kind)) return absl::OkStatus();
  return InvalidArgument("{}: {} '{}' and '{}' differ in type: {} of {} and {} of {}",
                         Describe(node), what, a.name, b.name, ValueKindName(a.kind),
                         DTypeName(a.dtype), ValueKindName(b.kind), DTypeName(b.dtype));
}

absl::StatusOr<Graph> InferCarried(const Node& node, const Graph& body, std::vector<Given> given,
                                   std::span<const Carried> carried) {
  if (VisitBudget::IsSpent()) {
    for (const Carried& state : carried) given[state.in].shape.reset();
  }
  for (int round = 0;; ++round) {
    OCTET_ASSIGN_OR_RETURN(Graph inferred, Infer(node, body, given));
    const bool give_up = round >= kMaxRounds || VisitBudget::IsSpent();
    bool changed = false;
    for (const auto [in, out] : carried) {
      const Value& next = inferred.value(inferred.outputs[out]);
      const Value& state = inferred.value(inferred.inputs[in]);
      OCTET_RETURN_IF_ERROR(CheckSameType(node, "a state and what follows it,", state, next));
      changed |= Weaken(given[in].shape, next.shape, give_up);
    }
    if (!changed) return inferred;
  }
}

// ---- The bodies

std::vector<Given> CapturesOf(const Graph& graph, const Node& node, const ControlSlots& slots) {
  std::vector<Given> given;
  for (size_t i = 0; i < slots.captures; ++i)
    given.push_back(GivenBy(graph, node.input(slots.own + i)));
  return given;
}

absl::StatusOr<Graph> LoopBody(const Graph& graph, const Node& node, const ControlSlots& slots,
                               const Graph& body) {
  std::vector<Given> given = {{{ValueKind::kTensor, DType::kI64}, Shape{}},
                              {{ValueKind::kTensor, DType::kBool}, Shape{}}};
  if (node.input(1) != kNone) given[1].shape = graph.value(node.input(1)).shape;
  std::vector<Carried> carried = {{1, 0}};
  for (size_t i = 0; i < slots.states; ++i) {
    given.push_back(GivenBy(graph, node.input(2 + i)));
    carried.push_back({2 + i, 1 + i});
  }
  std::ranges::move(CapturesOf(graph, node, slots), std::back_inserter(given));
  return InferCarried(node, body, std::move(given), carried);
}

absl::StatusOr<std::vector<int64_t>> AxesOf(const Node& node, std::string_view name, size_t count) {
  OCTET_ASSIGN_OR_RETURN(std::vector<int64_t> axes, node.attributes.Ints(name, {}));
  if (axes.empty()) axes.assign(count, 0);
  OCTET_RETURN_IF_ERROR(CheckCount(node, name, count, axes.size()));
  return axes;
}

absl::StatusOr<Graph> ScanBody(const Graph& graph, const Node& node, const ControlSlots& slots,
                               const Graph& body) {
  // Before opset 9 a list of lengths comes first, and everything has a batch in front.
  const bool batched = node.version < 9;
  const size_t first = batched ? 1 : 0;
  std::vector<Given> given;
  std::vector<Carried> carried;
  for (size_t i = 0; i < slots.states; ++i) {
    Given& state = given.emplace_back(GivenBy(graph, node.input(first + i)));
    if (batched) state.shape = WithoutLeading(state.shape, 1);
    carried.push_back({i, i});
  }
  OCTET_ASSIGN_OR_RETURN(const auto axes, AxesOf(node, "scan_input_axes", slots.scanned));
  for (size_t i = 0; i < slots.scanned; ++i) {
    Given& scanned = given.emplace_back(GivenBy(graph, node.input(first + slots.states + i)));
    if (batched) {
      scanned.shape = WithoutLeading(scanned.shape, 2);
    } else if (scanned.shape) {
      OCTET_ASSIGN_OR_RETURN(const int axis,
                             NormalizeNodeAxis(node, axes[i], scanned.shape->rank()));
      Shape slice;
      for (int d = 0; d < scanned.shape->rank(); ++d) {
        if (d != axis) slice.push_back((*scanned.shape)[d]);
      }
      scanned.shape = std::move(slice);
    }
  }
  std::ranges::move(CapturesOf(graph, node, slots), std::back_inserter(given));
  return InferCarried(node, body, std::move(given), carried);
}

absl::StatusOr<Graph> MapBody(const Graph& graph, const Node& node, const ControlSlots& slots,
                              const Graph& body) {
  std::vector<Given> given;
  for (size_t i = 0; i < slots.own; ++i) {
    Given& element = given.emplace_back(GivenBy(graph, node.input(i)));
    if (element.type.kind == ValueKind::kSequence) element.type.kind = ValueKind::kTensor;
  }
  std::ranges::move(CapturesOf(graph, node, slots), std::back_inserter(given));
  return Infer(node, body, given);
}

// ---- The nodes

absl::Status ExpectCondition(const InferContext& context, size_t i) {
  OCTET_RETURN_IF_ERROR(ExpectDType(context, i, kBools));
  return ExpectScalar(context, i);
}

absl::Status InferIf(InferContext& context) {
  OCTET_RETURN_IF_ERROR(SlotsOf(context.node()).status());
  OCTET_RETURN_IF_ERROR(ExpectCondition(context, 0));
  // The bodies are the node's: copied, since the outputs that are set lie in the same graph.
  const Node node = context.node();
  const auto yes = InferredBody(context.graph(), node, kBranches[0]);
  const auto no = InferredBody(context.graph(), node, kBranches[1]);
  // A branch may not fit the shapes for which it is never taken: the other one speaks for both.
  for (const auto* branch : {&yes, &no}) {
    const bool excused = absl::IsInvalidArgument(branch->status()) && (yes.ok() || no.ok());
    if (!branch->ok() && !excused) return branch->status();
  }
  const Graph& first = yes.ok() ? *yes : *no;
  const Graph& second = no.ok() ? *no : *yes;
  for (size_t i = 0; i < first.outputs.size(); ++i) {
    const Value& a = first.value(first.outputs[i]);
    const Value& b = second.value(second.outputs[i]);
    OCTET_RETURN_IF_ERROR(CheckSameType(node, "outputs of its branches,", a, b));
    // One branch may be sure of what is optional in the other.
    const ValueKind kind = std::max(a.kind, b.kind);
    std::optional<Shape> shape = a.shape;
    Weaken(shape, b.shape, !yes.ok() || !no.ok());
    OCTET_RETURN_IF_ERROR(context.SetOutput(i, {kind, a.dtype}, shape));
  }
  return absl::OkStatus();
}

absl::Status SetStates(InferContext& context, const Graph& body, const ControlSlots& slots,
                       size_t first_in, size_t first_out, int batch_axes) {
  for (size_t i = 0; i < slots.states; ++i) {
    const Value& state = body.value(body.inputs[first_in + i]);
    const Value& next = body.value(body.outputs[first_out + i]);
    std::optional<Shape> shape = state.shape;
    if (shape && batch_axes > 0) {
      Shape batched{kUnknownDim};
      for (const int64_t extent : *shape) batched.push_back(extent);
      shape = std::move(batched);
    }
    OCTET_RETURN_IF_ERROR(context.SetOutput(i, {next.kind, next.dtype}, std::move(shape)));
  }
  return absl::OkStatus();
}

/// Results of all runs: the body's shape with unknown extents before or, of one axis, among its own.
absl::Status SetResult(InferContext& context, size_t i, const Value& result,
                       const std::optional<Shape>& shape) {
  if (!result.is_tensor()) {
    return context.Error(Format("result '{}' must be a tensor, it is of kind {}", result.name,
                                ValueKindName(result.kind)));
  }
  return context.SetOutput(i, result.dtype, shape);
}

absl::Status InferLoop(InferContext& context) {
  OCTET_ASSIGN_OR_RETURN(const ControlSlots slots, SlotsOf(context.node()));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, {DType::kI64}));
  OCTET_RETURN_IF_ERROR(ExpectScalar(context, 0));
  OCTET_RETURN_IF_ERROR(ExpectCondition(context, 1));
  const Node node = context.node();
  OCTET_ASSIGN_OR_RETURN(const Graph body, InferredBody(context.graph(), node, kBody[0]));
  OCTET_RETURN_IF_ERROR(SetStates(context, body, slots, 2, 1, 0));
  for (size_t k = 0; k < slots.results; ++k) {
    const Value& result = body.value(body.outputs[1 + slots.states + k]);
    std::optional<Shape> shape;
    if (result.shape) {
      shape = Shape{kUnknownDim};
      for (const int64_t extent : *result.shape) shape->push_back(extent);
    }
    OCTET_RETURN_IF_ERROR(SetResult(context, slots.states + k, result, shape));
  }
  return absl::OkStatus();
}

absl::Status InferScan(InferContext& context) {
  OCTET_ASSIGN_OR_RETURN(const ControlSlots slots, SlotsOf(context.node()));
  const Node node = context.node();
  const bool batched = node.version < 9;
  OCTET_ASSIGN_OR_RETURN(const Graph body, InferredBody(context.graph(), node, kBody[0]));
  OCTET_RETURN_IF_ERROR(SetStates(context, body, slots, 0, 0, batched ? 1 : 0));
  OCTET_ASSIGN_OR_RETURN(const auto axes, AxesOf(node, "scan_output_axes", slots.results));
  for (size_t k = 0; k < slots.results; ++k) {
    const Value& result = body.value(body.outputs[slots.states + k]);
    std::optional<Shape> shape;
    if (result.shape) {
      std::vector<int64_t> extents(result.shape->begin(), result.shape->end());
      if (batched) extents.insert(extents.begin(), kUnknownDim);
      const int rank = static_cast<int>(extents.size()) + 1;
      OCTET_ASSIGN_OR_RETURN(const int axis, NormalizeNodeAxis(node, batched ? 1 : axes[k], rank));
      extents.insert(extents.begin() + axis, kUnknownDim);
      shape = Shape(extents);
    }
    OCTET_RETURN_IF_ERROR(SetResult(context, slots.states + k, result, shape));
  }
  return absl::OkStatus();
}

absl::Status InferSequenceMap(InferContext& context) {
  OCTET_RETURN_IF_ERROR(SlotsOf(context.node()).status());
  if (!context.has_input(0) || context.input(0).kind != ValueKind::kSequence)
    return context.Error("input 0 must be a sequence");
  const Node node = context.node();
  OCTET_ASSIGN_OR_RETURN(const Graph body, InferredBody(context.graph(), node, kBody[0]));
  for (size_t i = 0; i < body.outputs.size(); ++i) {
    const Value& result = body.value(body.outputs[i]);
    OCTET_RETURN_IF_ERROR(context.SetOutput(i, {ValueKind::kSequence, result.dtype}, std::nullopt));
  }
  return absl::OkStatus();
}

absl::Status CheckOutputCount(const Node& node, size_t most) {
  if (node.outputs.size() <= most) return absl::OkStatus();
  return InvalidArgument("{}: outputs: expected at most {}, got {}", Describe(node), most,
                         node.outputs.size());
}

}  // namespace

std::span<const std::string_view> BodyNames(const Node& node) {
  if (node.op == "If") return kBranches;
  return kBody;
}

absl::StatusOr<ControlSlots> SlotsOf(const Node& node) {
  ControlSlots slots;
  OCTET_ASSIGN_OR_RETURN(const int64_t captures, node.attributes.Int(kCaptures, 0));
  slots.captures = static_cast<size_t>(captures);
  slots.own = node.inputs.size() - slots.captures;
  OCTET_ASSIGN_OR_RETURN(const Subgraph body, BodyOf(node, BodyNames(node).front()));
  const size_t answers = body->outputs.size();
  if (node.op == "If") {
    OCTET_RETURN_IF_ERROR(CheckCount(node, "inputs", 1, slots.own));
    OCTET_ASSIGN_OR_RETURN(const Subgraph other, BodyOf(node, kBranches[1]));
    OCTET_RETURN_IF_ERROR(
        CheckCount(node, "outputs of its other branch", answers, other->outputs.size()));
    OCTET_RETURN_IF_ERROR(CheckOutputCount(node, answers));
    return slots;
  }
  if (node.op == "Loop") {
    OCTET_RETURN_IF_ERROR(CheckAtLeast(node, "inputs", 2, slots.own));
    slots.states = slots.own - 2;
    OCTET_RETURN_IF_ERROR(
        CheckAtLeast(node, "outputs of its sub-graph", 1 + slots.states, answers));
    slots.results = answers - 1 - slots.states;
  } else if (node.op == "Scan") {
    OCTET_ASSIGN_OR_RETURN(const int64_t scanned, node.attributes.Int("num_scan_inputs", 0));
    const size_t first = node.version < 9 ? 1 : 0;
    if (scanned < 1 || static_cast<size_t>(scanned) + first > slots.own) {
      return InvalidArgument("{}: 'num_scan_inputs': expected 1 to {}, got {}", Describe(node),
                             slots.own - std::min(first, slots.own), scanned);
    }
    slots.scanned = static_cast<size_t>(scanned);
    slots.states = slots.own - first - slots.scanned;
    OCTET_RETURN_IF_ERROR(CheckAtLeast(node, "outputs of its sub-graph", slots.states, answers));
    slots.results = answers - slots.states;
  } else {
    OCTET_RETURN_IF_ERROR(CheckAtLeast(node, "inputs", 1, slots.own));
    slots.results = answers;
  }
  OCTET_RETURN_IF_ERROR(CheckOutputCount(node, slots.states + slots.results));
  return slots;
}

absl::StatusOr<Graph> InferredBody(const Graph& graph, const Node& node, std::string_view name) {
  OCTET_ASSIGN_OR_RETURN(const ControlSlots slots, SlotsOf(node));
  OCTET_ASSIGN_OR_RETURN(const Subgraph body, BodyOf(node, name));
  const VisitBudget budget(*body);
  if (node.op == "Loop") return LoopBody(graph, node, slots, *body);
  if (node.op == "Scan") return ScanBody(graph, node, slots, *body);
  if (node.op == "SequenceMap") return MapBody(graph, node, slots, *body);
  return Infer(node, *body, CapturesOf(graph, node, slots));
}

std::span<const OpDef> ControlOps() {
  constexpr OpTraits kControl = {
      .any_types = true, .no_fold = true, .any_kind = true, .strings = true, .control = true};
  static constexpr OpDef kOps[] = {
      {.domain = kOnnxDomain, .name = "If", .infer = InferIf, .traits = kControl},
      {.domain = kOnnxDomain, .name = "Loop", .infer = InferLoop, .traits = kControl},
      // With a batch, and lengths of its sequences.
      {.domain = kOnnxDomain,
       .name = "Scan",
       .since = 8,
       .until = 8,
       .infer = InferScan,
       .traits = kControl},
      {.domain = kOnnxDomain, .name = "Scan", .since = 9, .infer = InferScan, .traits = kControl},
      {.domain = kOnnxDomain,
       .name = "SequenceMap",
       .since = 17,
       .infer = InferSequenceMap,
       .traits = kControl},
  };
  return kOps;
}

}  // namespace octet
