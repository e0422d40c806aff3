// fuse_residual: the sum (or product) of a Conv's or octet:MatMul's result with another value is a post-op.
//
//   x:f32 -> Conv -> f32 --\                         x:f32 ---> Conv + add -> y:f32
//                           Add -> y:f32     =>      r:f32 --/  (an operand)
//   r:f32 ----------------/
//
// Mul alike. The Conv moves to the place of the Add, where r exists. r has the shape of the result, or is a constant or a
// value of its rank that broadcasts to it in a way that oneDNN's kernels know: of a mask per row or per pixel they would leave
// the whole product to its reference kernel. Axes of a product's stacks that are walked alike count as one. Of two candidates the
// later one takes the other in: it then runs last.
//
// A Mul carries the sum with a constant too: a normalization that no layer took in is one pass over its values.
//
//   x:f32 -> Mul(c) -> f32 -> Add(d:f32[C,1,1]) -> y     =>  x -> Mul(c) + add(d) -> y
#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "engine/ops/joined_axes.h"
#include "engine/ops/post_ops.h"
#include "engine/passes/batch_dims.h"
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

// A post-op costs a pass over its operand; more than this many are no gain over separate nodes.
constexpr size_t kMaxPostOps = 4;

bool FitsOutput(const Graph& graph, const BatchDims& dims, ValueId operand, ValueId output) {
  const Value& value = graph.value(operand);
  if (!value.shape || !graph.value(output).shape || !IsPlainReal(graph, operand)) return false;
  const Shape& out = *graph.value(output).shape;
  if (value.is_constant()) {
    if (value.constant.elements() == 1) return value.shape->rank() <= out.rank();
    const auto both = Broadcast(*value.shape, out);
    return both && *both == out && value.shape->rank() <= out.rank();
  }
  if (dims.SameShape(graph, operand, output)) return true;
  if (!value.has_static_shape() || value.shape->rank() != out.rank()) return false;
  // An unknown extent of the output may turn out as 1.
  for (int i = 0; i < out.rank(); ++i) {
    if ((*value.shape)[i] != 1 && (*value.shape)[i] != out[i]) return false;
  }
  return true;
}

// How an operand of lower or equal rank lies along an axis of the result.
enum class Along : uint8_t { kFollows, kRepeats, kOne };
Along AlongAxis(const Shape& operand, const Shape& out, int axis) {
  const int own = axis - (out.rank() - operand.rank());
  const int64_t extent = own < 0 ? 1 : operand[own];
  if (out[axis] == 1) return Along::kOne;
  return extent == 1 ? Along::kRepeats : Along::kFollows;
}

// An operand beside the result of a layer.
struct Beside {
  Shape own;
  Shape out;
};

// As the lowering of a product sees them: with the stacks' axes joined where there are many. Nullopt where it does not say.
std::optional<Beside> JoinedBeside(const Graph& graph, const Node& product, Beside shapes) {
  if (shapes.out.rank() <= kMostKernelAxes) return shapes;
  std::vector<Shape> walked = {shapes.own};
  const auto walk = [&](ValueId id) {
    const auto& shape = graph.value(id).shape;
    if (shape) walked.push_back(*shape);
    return shape.has_value();
  };
  bool known = walk(product.input(0)) && walk(product.input(1));
  for (const PostOp& op : product.post_ops) {
    if (HasOperand(op.kind)) known = known && walk(product.input(static_cast<size_t>(op.operand)));
  }
  if (!known) return std::nullopt;
  const JoinedAxes joined(shapes.out, walked, shapes.out.rank() - 2);
  return Beside{joined.Of(shapes.own), joined.Of(shapes.out)};
}

// Whether kernels of a layer repeat the operand as it asks for. Requires: FitsOutput. One element, all elements and, for each sample
// or for all, one per channel are known to every kernel. Products also take one matrix for all stacks of one leading axis.
bool RepeatsAsKernelsDo(const Graph& graph, const Node& layer, ValueId operand) {
  Beside beside{*graph.value(operand).shape, *graph.value(layer.output(0)).shape};
  if (beside.own.is_static() && beside.own.elements() == 1) return true;
  int channel = ChannelAxis(graph, layer);
  if (!IsConvolution(layer)) {
    auto joined = JoinedBeside(graph, layer, std::move(beside));
    if (!joined) return false;
    beside = *std::move(joined);
    channel = beside.out.rank() - 1;
  }
  const auto& [own, out] = beside;
  int repeats = 0;
  int follows = 0;
  for (int axis = 0; axis < out.rank(); ++axis) {
    const Along along = AlongAxis(own, out, axis);
    repeats += along == Along::kRepeats ? 1 : 0;
    follows += along == Along::kFollows ? 1 : 0;
  }
  if (repeats == 0) return true;
  if (!IsConvolution(layer) && out.rank() > kMostKernelAxes) return false;
  if (AlongAxis(own, out, channel) == Along::kRepeats) return false;
  const int channels = AlongAxis(own, out, channel) == Along::kFollows ? 1 : 0;
  const int samples = channel != 0 && AlongAxis(own, out, 0) == Along::kFollows ? 1 : 0;
  if (follows == channels + samples) return true;
  if (IsConvolution(layer)) return false;
  const int row = out.rank() - 2;
  return repeats == 1 && AlongAxis(own, out, row) != Along::kRepeats;
}

bool CarriesSum(const Graph& graph, const Node& node, const Node& sum, size_t slot) {
  if (IsMac(node)) return true;
  return node.is("Mul") && sum.is("Add") && graph.value(sum.input(1 - slot)).is_constant();
}

bool IsCandidate(const Graph& graph, const BatchDims& dims, NodeId sum, size_t slot) {
  const ValueId x = graph.node(sum).input(slot);
  const Node* host = ProducerOf(graph, x);
  if (host == nullptr || !CarriesSum(graph, *host, graph.node(sum), slot)) return false;
  if (host->post_ops.size() >= kMaxPostOps) return false;
  if (graph.SoleConsumer(x) != sum || !IsPlainReal(graph, x)) return false;
  const ValueId operand = graph.node(sum).input(1 - slot);
  if (!FitsOutput(graph, dims, operand, x)) return false;
  return !IsMac(*host) || RepeatsAsKernelsDo(graph, *host, operand);
}

void Fuse(Graph& graph, NodeId sum, size_t slot) {
  const Node add = graph.node(sum);
  const NodeId old = graph.producer(add.input(slot));
  Node host = graph.node(old);
  if (IsMac(host) && host.inputs.size() < 3) host.inputs.resize(3, kNone);
  const auto kind = add.is("Add") ? PostOp::Kind::kAdd : PostOp::Kind::kMul;
  host.post_ops.push_back({kind, 0, 0, static_cast<int>(host.inputs.size())});
  host.post_ops.insert(host.post_ops.end(), add.post_ops.begin(), add.post_ops.end());
  host.inputs.push_back(add.input(1 - slot));
  graph.RemoveNode(old);
  Replace(graph, sum, std::move(host));
}

}  // namespace

absl::StatusOr<int> FuseResidual(Graph& graph, const PassContext& /*context*/) {
  int count = 0;
  const BatchDims dims(graph);
  for (const NodeId id : graph.OrderSnapshot()) {
    const Node& node = graph.node(id);
    if (!node.is("Add") && !node.is("Mul")) continue;
    if (node.inputs.size() != 2 || node.input(0) == node.input(1)) continue;
    const bool first = IsCandidate(graph, dims, id, 0);
    const bool second = IsCandidate(graph, dims, id, 1);
    if (!first && !second) continue;
    size_t slot = first ? 0 : 1;
    if (first && second) {
      const auto order = graph.order();
      const auto a = std::ranges::find(order, graph.producer(node.input(0)));
      const auto b = std::ranges::find(order, graph.producer(node.input(1)));
      slot = a > b ? 0 : 1;
    }
    Fuse(graph, id, slot);
    ++count;
  }
  return count;
}

}  // namespace octet
