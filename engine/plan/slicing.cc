#include "engine/plan/slicing.h"

#include <algorithm>
#include <cstring>
#include <ranges>
#include <string>
#include <utility>
#include <vector>

#include "engine/ops/op.h"
#include "engine/ops/post_ops.h"

namespace octet {
namespace {

/// With fewer rows there is little to win.
constexpr int64_t kLeastRows = 4;
/// Larger slices fit into no cache.
constexpr int64_t kMostRowsPerSlice = 64;

// Other extents may be open.
bool BeginsWithRows(const Graph& graph, ValueId id, int64_t rows) {
  if (id == kNone) return false;
  const Value& value = graph.value(id);
  return !value.is_constant() && value.shape && value.shape->rank() > 0 &&
         (*value.shape)[0] == rows;
}

bool HasRows(const Graph& graph, ValueId id, int64_t rows) {
  return BeginsWithRows(graph, id, rows) && graph.value(id).has_static_shape();
}

int RankOfOutput(const Graph& graph, const Node& node) {
  return graph.value(node.outputs[0]).shape->rank();
}

// An operand that meets the output element by element: its rows are the output's, or it is the same for all of them.
bool MeetsRows(const Graph& graph, const Node& node, ValueId id, int64_t rows) {
  const Value& operand = graph.value(id);
  const int rank = RankOfOutput(graph, node);
  if (operand.is_constant()) return operand.shape->rank() < rank || (*operand.shape)[0] == 1;
  return HasRows(graph, id, rows) && operand.shape->rank() == rank;
}

// Whether the axis that the attribute names is not that of the rows.
bool IsBesideRows(const Graph& graph, const Node& node, int64_t fallback) {
  const int64_t axis = node.attributes.IntOr("axis", fallback);
  return (axis < 0 ? axis + RankOfOutput(graph, node) : axis) > 0;
}

// Scales of all axes, that of the rows 1. Sizes say how many rows there are.
bool ResizesWithinRows(const Graph& graph, const Node& node) {
  if (!node.is("Resize") || node.version < 11 || node.attributes.has("axes")) return false;
  const auto mode = node.attributes.String("coordinate_transformation_mode", "");
  if (!mode.ok() || *mode == "tf_crop_and_resize" || node.input(2) == kNone) return false;
  const Value& scales = graph.value(node.input(2));
  return scales.is_constant() && scales.dtype == DType::kF32 &&
         scales.constant.elements() == RankOfOutput(graph, node) &&
         scales.constant.span<float>()[0] == 1;
}

bool LeavesRowsInPlace(const Graph& graph, const Node& node, const OpTraits& traits) {
  if (traits.elementwise_unary || traits.elementwise_broadcast || traits.view) return true;
  if (node.is("Concat")) return IsBesideRows(graph, node, 0);
  if (node.is("Softmax")) return IsBesideRows(graph, node, node.version < 13 ? 1 : -1);
  if (node.is("Resize")) return ResizesWithinRows(graph, node);
  if (node.is("InstanceNormalization") || node.is("GroupNormalization")) return true;
  if (node.is("Transpose")) {
    const auto perm = node.attributes.Ints("perm", {});
    return perm.ok() && !perm->empty() && perm->front() == 0;
  }
  // A vector's product adds up its elements, which are the rows.
  if (node.is("MatMul", kOctetDomain)) return RankOfOutput(graph, node) > 1;
  return node.is("Conv") || node.is("ConvTranspose", kOctetDomain) || node.is("MaxPool") ||
         node.is("AveragePool") || node.is("GlobalAveragePool");
}

bool KeepsRows(const Graph& graph, const Node& node, int64_t rows) {
  const OpDef* def = FindOp(node);
  if (def == nullptr || node.outputs.size() != 1 || !HasRows(graph, node.outputs[0], rows))
    return false;
  // Its range is that of all rows.
  if (node.attributes.IntOr("dynamic_quant", 0) != 0) return false;
  const bool all_meet = def->traits.elementwise_broadcast || node.is("Concat");
  const size_t own = OwnInputCount(node);
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const ValueId id = node.inputs[i];
    if (id == kNone) continue;
    const bool fits = all_meet || i >= own ? MeetsRows(graph, node, id, rows)
                      : i == 0             ? HasRows(graph, id, rows)
                                           : graph.value(id).is_constant();
    if (!fits) return false;
  }
  return LeavesRowsInPlace(graph, node, def->traits);
}

struct LayerBytes {
  double held = 0;  ///< Activations of one row.
  double moved =
      0;  ///< When they are in no cache: what is written is fetched first, and so moves twice.
  double weights = 0;
};

LayerBytes BytesOf(const Graph& graph, const Node& node, int64_t rows) {
  LayerBytes bytes;
  const auto add = [&](ValueId id, double times) {
    if (id == kNone) return;
    const Value& value = graph.value(id);
    const double size =
        static_cast<double>(value.shape->elements()) * static_cast<double>(SizeOf(value.dtype));
    if (value.is_constant()) {
      bytes.weights += size;
      return;
    }
    bytes.held += size / static_cast<double>(rows);
    bytes.moved += times * size / static_cast<double>(rows);
  };
  for (const ValueId id : node.inputs) add(id, 1);
  for (const ValueId id : node.outputs) add(id, 2);
  return bytes;
}

// Of one row, when each core has `rows` rows at a time, and `sharing` of them the weights that one of them reads.
double BytesBeyond(double cache, const std::vector<LayerBytes>& layers, int64_t rows, int sharing) {
  double moved = 0;
  double weights = 0;
  for (const LayerBytes& layer : layers) {
    if (layer.held * static_cast<double>(rows) > cache) moved += layer.moved;
    weights += layer.weights;
  }
  return moved + (weights > cache ? weights / static_cast<double>(rows * sharing) : 0);
}

bool AreEqual(const Tensor& a, const Tensor& b) {
  if (a.spec() != b.spec() || a.dtype() == DType::kString) return false;
  return a.data() == b.data() || std::memcmp(a.data(), b.data(), a.bytes()) == 0;
}

bool HaveEqualOperands(const Graph& a, const Node& of_a, const Graph& b, const Node& of_b) {
  if (of_a.inputs.size() != of_b.inputs.size()) return false;
  const OpDef* def = FindOp(of_a);
  // What else a view reads is the shape that it makes.
  const size_t count = def != nullptr && def->traits.view ? 1 : of_a.inputs.size();
  for (size_t i = 0; i < count; ++i) {
    const ValueId x = of_a.inputs[i];
    const ValueId y = of_b.inputs[i];
    if ((x == kNone) != (y == kNone)) return false;
    if (x == kNone) continue;
    const Value& one = a.value(x);
    const Value& other = b.value(y);
    if (one.is_constant() != other.is_constant() || one.quant != other.quant) return false;
    if (one.is_constant() && !AreEqual(one.constant, other.constant)) return false;
  }
  return true;
}

// An extent beside the rows may be their number, and what is computed along it another thing for many than for few.
bool HaveEqualRows(const Graph& a, const Node& of_a, const Graph& b, const Node& of_b) {
  const auto equal = [&](ValueId x, ValueId y) {
    if (x == kNone || y == kNone) return x == y;
    const auto& one = a.value(x).shape;
    const auto& other = b.value(y).shape;
    return one && other && one->rank() == other->rank() &&
           std::ranges::equal(one->dims() | std::views::drop(1),
                              other->dims() | std::views::drop(1));
  };
  return std::ranges::equal(of_a.outputs, of_b.outputs, equal);
}

}  // namespace

bool DifferInRowsAlone(const Graph& a, const Graph& b) {
  return std::ranges::equal(a.order(), b.order(), [&](NodeId x, NodeId y) {
    const Node& of_a = a.node(x);
    const Node& of_b = b.node(y);
    return of_a.is(of_b.op, of_b.domain) && of_a.post_ops == of_b.post_ops &&
           HaveEqualOperands(a, of_a, b, of_b) && HaveEqualRows(a, of_a, b, of_b);
  });
}

bool RowsAreIndependent(const Graph& graph, int64_t rows) {
  const auto has_rows = [&](ValueId id) { return HasRows(graph, id, rows); };
  return std::ranges::all_of(graph.inputs, has_rows) &&
         std::ranges::all_of(graph.outputs, has_rows) &&
         std::ranges::all_of(graph.order(),
                             [&](NodeId id) { return KeepsRows(graph, graph.node(id), rows); });
}

void OpenRows(Graph& graph, int64_t rows) {
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    // Elsewhere a 0 in front would be another shape.
    if (!node.is("Reshape") || node.attributes.IntOr("allowzero", 0) != 0 ||
        !BeginsWithRows(graph, node.input(0), rows) ||
        !BeginsWithRows(graph, node.output(0), rows)) {
      continue;
    }
    const Value& target = graph.value(node.input(1));
    if (!target.is_constant() || target.constant.span<int64_t>().front() != rows) continue;
    Tensor open(DType::kI64, target.constant.shape());
    std::ranges::copy(target.constant.span<int64_t>(), open.mutable_span<int64_t>().begin());
    open.mutable_span<int64_t>().front() = 0;
    const std::string hint = target.name;
    graph.SetInput(id, 1, graph.AddConstant(hint, std::move(open)));
  }
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    if (!BeginsWithRows(graph, id, rows)) continue;
    Shape open = *graph.value(id).shape;
    open[0] = kUnknownDim;
    graph.mutable_value(id).shape = std::move(open);
  }
}

int64_t RowsPerSlice(const Graph& graph, int64_t rows, const SliceLimits& limits) {
  if (rows < kLeastRows || rows % limits.threads != 0) return rows;
  std::vector<LayerBytes> layers;
  double total = 0;
  for (const NodeId id : graph.order()) {
    const LayerBytes& layer = layers.emplace_back(BytesOf(graph, graph.node(id), rows));
    total += layer.held * static_cast<double>(rows) + layer.weights;
  }
  if (total > static_cast<double>(limits.max_bytes)) return rows;
  const auto cache = static_cast<double>(limits.cache_bytes);
  const int64_t per_thread = rows / limits.threads;
  int64_t best = rows;
  double least = BytesBeyond(cache, layers, per_thread, limits.threads);
  for (int64_t slice = std::min(per_thread, kMostRowsPerSlice); slice >= 1; --slice) {
    if (per_thread % slice != 0) continue;
    const double moved = BytesBeyond(cache, layers, slice, 1);
    // Threads with slices of their own do not meet behind every layer.
    const bool meets = best == rows && limits.threads > 1;
    if (moved < least || (meets && moved == least)) {
      least = moved;
      best = slice;
    }
  }
  return best;
}

}  // namespace octet
