#include "engine/plan/row_mixing.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/ops/op.h"
#include "engine/passes/match.h"
#include "engine/tensor/format.h"

namespace octet {
namespace {

/// Where a value has the samples: the axis, from 0 on, or one of these.
constexpr int kNowhere = -1;  ///< The same whatever the samples are.
constexpr int kLost = -2;     ///< Somewhere.
constexpr int kMeet = -3;     ///< Of what a node makes: an element is made of several samples.

class RowFollower {
 public:
  explicit RowFollower(const Graph& graph)
      : graph_(graph),
        at_(static_cast<size_t>(graph.value_count()), kNowhere),
        holds_places_(at_.size(), false),
        holds_count_(at_.size(), false) {}

  std::optional<std::string> Follow() {
    for (const ValueId input : graph_.inputs) at_[input] = 0;
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      const int made = Made(node);
      if (made == kMeet) return Describe(node);
      for (const ValueId output : node.outputs) {
        if (output != kNone) at_[output] = made;
      }
      if (made >= 0) SetOthers(node, made);
      FollowPlaces(node);
      FollowCount(node);
    }
    for (const ValueId output : graph_.outputs) {
      if (holds_places_[output])
        return Format("output '{}', whose places are counted from the first sample on",
                      graph_.value(output).name);
      if (at_[output] > 0)
        return Format("output '{}', along whose axis {} samples lie", graph_.value(output).name,
                      at_[output]);
    }
    return std::nullopt;
  }

 private:
  int At(const Node& node, size_t i) const {
    return node.input(i) == kNone ? kNowhere : at_[node.input(i)];
  }
  /// -1 while unknown.
  int Rank(const Node& node, size_t i) const { return RankOf(graph_, node.input(i)); }
  int RankMade(const Node& node) const { return RankOf(graph_, node.output(0)); }

  /// The axis that a number means of `rank` axes; -1 when it means none.
  static int Axis(int64_t axis, int rank) {
    return rank < 0 ? -1 : NormalizeAxis(axis, rank).value_or(-1);
  }
  /// The axis that the attribute names, of input 0's.
  int AxisOf(const Node& node, int64_t fallback) const {
    return Axis(node.attributes.IntOr("axis", fallback), Rank(node, 0));
  }

  /// The integers of a constant, folded or not.
  std::optional<std::vector<int64_t>> Numbers(ValueId id) const {
    if (id == kNone) return std::nullopt;
    const Node* maker = ProducerOf(graph_, id);
    if (maker == nullptr) return IntsOf(graph_, id);
    if (!maker->is("Constant")) return std::nullopt;
    if (maker->attributes.has("value_ints")) {
      const auto ints = maker->attributes.Ints("value_ints", {});
      return ints.ok() ? std::optional(*ints) : std::nullopt;
    }
    if (maker->attributes.has("value_int"))
      return std::vector{maker->attributes.IntOr("value_int", 0)};
    const auto value = maker->attributes.TensorOrNull("value");
    if (!value.ok() || *value == nullptr || (*value)->dtype() != DType::kI64) return std::nullopt;
    const std::span<const int64_t> numbers = (*value)->span<int64_t>();
    return std::vector<int64_t>(numbers.begin(), numbers.end());
  }
  /// The axes of an attribute, or of input `i`, where newer versions have them.
  std::optional<std::vector<int64_t>> Axes(const Node& node, size_t i) const {
    if (node.attributes.has("axes")) {
      const auto ints = node.attributes.Ints("axes", {});
      return ints.ok() ? std::optional(*ints) : std::nullopt;
    }
    return Numbers(node.input(i));
  }

  int Made(const Node& node) const;
  void SetOthers(const Node& node, int made);
  void FollowPlaces(const Node& node);
  void FollowCount(const Node& node);
  bool ReadsCount(const Node& node) const;
  bool IsCountAmong(const Node& shape, std::span<const int64_t> chosen) const;

  int OfElementwise(const Node& node) const;
  int OfTranspose(const Node& node) const;
  int OfSoftmax(const Node& node) const;
  int OfReduction(const Node& node) const;
  int OfArg(const Node& node) const;
  int OfConcat(const Node& node) const;
  int OfSlice(const Node& node) const;
  int OfGather(const Node& node) const;
  int OfGatherElements(const Node& node) const;
  int OfReverseSequence(const Node& node) const;
  int OfTraining(const Node& node) const;
  int OfMeanVariance(const Node& node) const;
  int OfMatMul(const Node& node) const;
  int OfGemm(const Node& node) const;
  int OfReshape(const Node& node) const;
  int OfSqueeze(const Node& node) const;
  int OfUnsqueeze(const Node& node) const;
  int OfRecurrent(const Node& node) const;
  /// Of operators that work along one axis: samples along it meet, along others they stay.
  int Along(const Node& node, int axis) const {
    if (axis < 0) return kLost;
    return At(node, 0) == axis ? kMeet : At(node, 0);
  }
  /// Of operators whose weights or windows leave the first axis alone.
  int OfFirstAxis(const Node& node) const { return At(node, 0) == 0 ? 0 : kLost; }

  const Graph& graph_;
  std::vector<int> at_;
  /// Elements that say where in all samples together something lies: the places of a MaxPool's maxima.
  std::vector<bool> holds_places_;
  /// How many samples there are, or what is computed from that.
  std::vector<bool> holds_count_;
};

bool IsOneOf(std::string_view op, std::span<const std::string_view> names) {
  return std::ranges::find(names, op) != names.end();
}

constexpr std::array<std::string_view, 10> kReductions = {
    "ReduceMax", "ReduceMin", "ReduceMean",   "ReduceSum",       "ReduceProd",
    "ReduceL1",  "ReduceL2",  "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"};
constexpr std::array<std::string_view, 12> kOfFirstAxis = {"Conv",
                                                           "ConvTranspose",
                                                           "MaxPool",
                                                           "AveragePool",
                                                           "LpPool",
                                                           "GlobalAveragePool",
                                                           "GlobalMaxPool",
                                                           "InstanceNormalization",
                                                           "GroupNormalization",
                                                           "LRN",
                                                           "BatchNormalization",
                                                           "DepthToSpace"};

int RowFollower::Made(const Node& node) const {
  bool any = false;
  bool lost = false;
  for (const ValueId input : node.inputs) {
    if (input == kNone) continue;
    any = any || at_[input] >= 0;
    lost = lost || at_[input] == kLost;
  }
  if (lost) return kLost;
  if (!any || node.is("Shape") || node.is("Size")) return kNowhere;
  if (node.domain != kOnnxDomain) return kLost;
  const OpDef* def = FindOp(node);
  if (def == nullptr || def->traits.control) return kLost;
  const std::string_view op = node.op;
  if (IsOneOf(op, kReductions)) return OfReduction(node);
  if (op == "BatchNormalization" && node.version >= 14 &&
      node.attributes.IntOr("training_mode", 0) != 0) {
    return OfTraining(node);
  }
  if (op == "MeanVarianceNormalization") return OfMeanVariance(node);
  if (IsOneOf(op, kOfFirstAxis)) {
    for (size_t i = 1; i < node.inputs.size(); ++i) {
      if (At(node, i) != kNowhere) return kLost;
    }
    return OfFirstAxis(node);
  }
  if (op == "Transpose") return OfTranspose(node);
  if (op == "Softmax" || op == "LogSoftmax" || op == "Hardmax") return OfSoftmax(node);
  if (op == "ArgMax" || op == "ArgMin") return OfArg(node);
  if (op == "Concat") return OfConcat(node);
  if (op == "Slice") return OfSlice(node);
  if (op == "Gather") return OfGather(node);
  if (op == "GatherElements") return OfGatherElements(node);
  if (op == "ReverseSequence") return OfReverseSequence(node);
  if (op == "MatMul") return OfMatMul(node);
  if (op == "Gemm") return OfGemm(node);
  if (op == "Reshape") return OfReshape(node);
  if (op == "Squeeze") return OfSqueeze(node);
  if (op == "Unsqueeze") return OfUnsqueeze(node);
  if (op == "LSTM" || op == "GRU" || op == "RNN") return OfRecurrent(node);
  if (op == "Split") return Along(node, AxisOf(node, 0));
  if (op == "LpNormalization" || op == "TopK") return Along(node, AxisOf(node, -1));
  if (op == "CumSum") {
    const auto axis = Numbers(node.input(1));
    return axis && axis->size() == 1 ? Along(node, Axis(axis->front(), Rank(node, 0))) : kLost;
  }
  if (op == "LayerNormalization") {
    const int axis = AxisOf(node, -1);
    if (axis < 0 || At(node, 1) != kNowhere || At(node, 2) != kNowhere) return kLost;
    return At(node, 0) >= axis ? kMeet : At(node, 0);
  }
  if (op == "Flatten") return At(node, 0) == 0 && AxisOf(node, 1) > 0 ? 0 : kLost;
  if (op == "DynamicQuantizeLinear") return At(node, 0);
  if (op == "QuantizeLinear" || op == "DequantizeLinear")
    return At(node, 1) == kNowhere && At(node, 2) == kNowhere ? At(node, 0) : kLost;
  if (def->traits.elementwise_unary || def->traits.elementwise_broadcast || op == "Identity" ||
      op == "Cast" || op == "Dropout") {
    return OfElementwise(node);
  }
  return kLost;
}

// Outputs that are not like the first one.
void RowFollower::SetOthers(const Node& node, int made) {
  const bool scales = node.is("DynamicQuantizeLinear");
  const bool recurrent = node.is("LSTM") || node.is("GRU") || node.is("RNN");
  for (size_t i = 1; i < node.outputs.size(); ++i) {
    if (node.outputs[i] == kNone) continue;
    if (scales) at_[node.outputs[i]] = kNowhere;
    // Y has an axis of time before that of directions, the last states have not.
    if (recurrent) at_[node.outputs[i]] = made == 2 ? 1 : made;
  }
}

// A MaxPool counts them through the whole of its input, as ONNX says, so that a sample's depend on how many come before it.
// MaxUnpool reads them so; arithmetic may make them those of a plane.
void RowFollower::FollowPlaces(const Node& node) {
  if (node.is("MaxPool")) {
    if (node.output(1) != kNone && At(node, 0) == 0) holds_places_[node.output(1)] = true;
    return;
  }
  if (node.is("MaxUnpool") || (!node.is("Cast") && !MovesElements(node))) return;
  const auto holds = [&](ValueId id) { return id != kNone && holds_places_[id]; };
  if (!holds(node.input(0)) && !(node.is("Concat") && std::ranges::any_of(node.inputs, holds)))
    return;
  for (const ValueId output : node.outputs) {
    if (output != kNone) holds_places_[output] = true;
  }
}

// Whether one of the extents that a Shape node gives is that of the samples. `chosen`: of its elements, from the end on where negative.
bool RowFollower::IsCountAmong(const Node& shape, std::span<const int64_t> chosen) const {
  const int rank = Rank(shape, 0);
  if (At(shape, 0) < 0 || rank < 0) return false;
  const auto clamped = [&](int64_t axis) {
    return std::clamp<int64_t>(axis < 0 ? axis + rank : axis, 0, rank);
  };
  const int64_t begin = clamped(shape.attributes.IntOr("start", 0));
  const int64_t end = clamped(shape.attributes.IntOr("end", rank));
  return std::ranges::any_of(chosen,
                             [&](int64_t i) { return (i < 0 ? end : begin) + i == At(shape, 0); });
}

// The extent of the samples taken out of a shape, alone or beside others; all extents multiplied.
bool RowFollower::ReadsCount(const Node& node) const {
  if (node.is("Size")) return At(node, 0) >= 0;
  const NodeId shape = node.input(0) == kNone ? kNone : ProducerIf(graph_, node.input(0), "Shape");
  if (shape == kNone) return false;
  const Node& of = graph_.node(shape);
  if (node.is("ReduceProd"))
    return At(of, 0) >= 0 && !of.attributes.has("start") && !of.attributes.has("end");
  if (node.is("Gather")) {
    const auto indices = Numbers(node.input(1));
    return indices && IsCountAmong(of, *indices);
  }
  if (!node.is("Slice") || node.version < 10) return false;
  const auto begin = Numbers(node.input(1));
  const auto end = Numbers(node.input(2));
  const bool one = begin && end && begin->size() == 1 && end->size() == 1 && node.input(4) == kNone;
  return one && begin->front() >= 0 && end->front() == begin->front() + 1 &&
         IsCountAmong(of, *begin);
}

// Through what computes with numbers. What makes shapes of them makes as many rows as there are samples, each by itself.
void RowFollower::FollowCount(const Node& node) {
  const OpDef* def = FindOp(node);
  if (def == nullptr || node.output(0) == kNone || at_[node.output(0)] != kNowhere) return;
  const auto holds = [&](ValueId id) { return id != kNone && holds_count_[id]; };
  const bool computes = def->traits.elementwise_unary || def->traits.elementwise_broadcast;
  const bool passes = computes || node.is("Cast") || node.is("Identity") || node.is("Squeeze") ||
                      node.is("Unsqueeze") || node.is("Reshape");
  holds_count_[node.output(0)] =
      ReadsCount(node) ||
      (passes && (holds(node.input(0)) || (computes && std::ranges::any_of(node.inputs, holds))));
}

int RowFollower::OfElementwise(const Node& node) const {
  const int rank = RankMade(node);
  if (rank < 0) return kLost;
  // Divided by how many there are, a sample is another one's too.
  if (std::ranges::any_of(node.inputs, [&](ValueId id) { return id != kNone && holds_count_[id]; }))
    return kMeet;
  int made = kNowhere;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (At(node, i) == kNowhere) continue;
    if (Rank(node, i) < 0) return kLost;
    const int axis = At(node, i) + rank - Rank(node, i);
    // Each of one operand's samples meets each of the other one's.
    if (made != kNowhere && made != axis) return kMeet;
    made = axis;
  }
  return made;
}

int RowFollower::OfTranspose(const Node& node) const {
  const int rank = Rank(node, 0);
  if (rank < 0) return kLost;
  const auto perm = node.attributes.Ints("perm", {});
  if (!perm.ok()) return kLost;
  if (perm->empty()) return rank - 1 - At(node, 0);
  const auto found = std::ranges::find(*perm, At(node, 0));
  return found == perm->end() ? kLost : static_cast<int>(found - perm->begin());
}

int RowFollower::OfSoftmax(const Node& node) const {
  const bool flattens = node.version < 13;
  const int axis = AxisOf(node, flattens ? 1 : -1);
  if (axis < 0) return kLost;
  if (flattens && At(node, 0) > axis) return kMeet;
  return Along(node, axis);
}

int RowFollower::OfReduction(const Node& node) const {
  const int rank = Rank(node, 0);
  const bool given = node.attributes.has("axes") || node.input(1) != kNone;
  std::vector<int64_t> axes;
  if (given) {
    const auto read = Axes(node, 1);
    if (rank < 0 || !read) return kLost;
    axes = *read;
  }
  if (axes.empty())
    return node.attributes.IntOr("noop_with_empty_axes", 0) != 0 ? At(node, 0) : kMeet;
  int before = 0;
  for (const int64_t number : axes) {
    const int axis = Axis(number, rank);
    if (axis == At(node, 0)) return kMeet;
    before += axis >= 0 && axis < At(node, 0) ? 1 : 0;
  }
  return node.attributes.IntOr("keepdims", 1) != 0 ? At(node, 0) : At(node, 0) - before;
}

int RowFollower::OfArg(const Node& node) const {
  const int axis = AxisOf(node, 0);
  const int along = Along(node, axis);
  const bool moves = along >= 0 && axis < along && node.attributes.IntOr("keepdims", 1) == 0;
  return moves ? along - 1 : along;
}

int RowFollower::OfConcat(const Node& node) const {
  const int axis = AxisOf(node, 0);
  if (axis < 0) return kLost;
  int made = kNowhere;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (At(node, i) == kNowhere) continue;
    if (made != kNowhere && made != At(node, i)) return kLost;
    made = At(node, i);
  }
  // What follows the samples of one operand is those of the next, or more of something else.
  return made == axis && node.inputs.size() > 1 ? kMeet : made;
}

int RowFollower::OfSlice(const Node& node) const {
  const int rank = Rank(node, 0);
  if (rank < 0 || node.version < 10) return kLost;
  const auto starts = Numbers(node.input(1));
  const auto ends = Numbers(node.input(2));
  if (!starts || !ends || starts->size() != ends->size()) return kLost;
  std::vector<int64_t> axes;
  for (size_t i = 0; i < starts->size(); ++i) axes.push_back(static_cast<int64_t>(i));
  std::vector<int64_t> steps(starts->size(), 1);
  const auto given = [&](size_t i, std::vector<int64_t>& numbers) {
    if (node.input(i) == kNone) return true;
    const auto read = Numbers(node.input(i));
    if (!read || read->size() != numbers.size()) return false;
    numbers = *read;
    return true;
  };
  if (!given(3, axes) || !given(4, steps)) return kLost;
  for (size_t i = 0; i < axes.size(); ++i) {
    if (Axis(axes[i], rank) != At(node, 0)) continue;
    const bool all = (*starts)[i] == 0 && (*ends)[i] >= INT_MAX && steps[i] == 1;
    if (!all) return kMeet;
  }
  return At(node, 0);
}

int RowFollower::OfGather(const Node& node) const {
  const int axis = AxisOf(node, 0);
  const int rank = Rank(node, 1);
  if (axis < 0 || rank < 0) return kLost;
  const int data = At(node, 0);
  const int indices = At(node, 1);
  if (data == kNowhere) return axis + indices;
  if (data == axis || indices != kNowhere) return kMeet;
  return data < axis ? data : data - 1 + rank;
}

int RowFollower::OfGatherElements(const Node& node) const {
  const int axis = AxisOf(node, 0);
  if (axis < 0) return kLost;
  if (At(node, 0) == axis) return kMeet;
  // Beside the axis, element i of one goes with element i of the other.
  return At(node, 0) == At(node, 1) ? At(node, 0) : kLost;
}

int RowFollower::OfReverseSequence(const Node& node) const {
  const int x = At(node, 0);
  if (x >= 0 && x == node.attributes.IntOr("time_axis", 0)) return kMeet;
  const bool own_lengths = At(node, 1) == kNowhere || At(node, 1) == 0;
  return x >= 0 && x == node.attributes.IntOr("batch_axis", 1) && own_lengths ? x : kLost;
}

// Mean and variance of a channel are those of all samples.
int RowFollower::OfTraining(const Node& node) const {
  return At(node, 0) == kNowhere || At(node, 0) == 1 ? kLost : kMeet;
}

int RowFollower::OfMeanVariance(const Node& node) const {
  const int rank = Rank(node, 0);
  const auto axes = node.attributes.Ints("axes", {0, 2, 3});
  if (rank < 0 || !axes.ok()) return kLost;
  const auto theirs = [&](int64_t axis) { return Axis(axis, rank) == At(node, 0); };
  return std::ranges::any_of(*axes, theirs) ? kMeet : At(node, 0);
}

int RowFollower::OfMatMul(const Node& node) const {
  const int rank_a = Rank(node, 0);
  const int rank_b = Rank(node, 1);
  if (rank_a < 2 || rank_b < 2) return kLost;
  const int rank = std::max(rank_a, rank_b);
  const int a = At(node, 0);
  const int b = At(node, 1);
  if (a == rank_a - 1 || b == rank_b - 2) return kMeet;
  const int made_a = a == kNowhere ? kNowhere : a + rank - rank_a;
  const int made_b = b == kNowhere ? kNowhere : b + rank - rank_b;
  if (a != kNowhere && b != kNowhere && made_a != made_b) return kMeet;
  return a != kNowhere ? made_a : made_b;
}

int RowFollower::OfGemm(const Node& node) const {
  const bool a_turned = node.attributes.IntOr("transA", 0) != 0;
  const bool b_turned = node.attributes.IntOr("transB", 0) != 0;
  const int a = At(node, 0);
  const int b = At(node, 1);
  const bool adds_up =
      (a != kNowhere && a != (a_turned ? 1 : 0)) || (b != kNowhere && b != (b_turned ? 0 : 1));
  if (adds_up || (a != kNowhere && b != kNowhere)) return kMeet;
  if (At(node, 2) != kNowhere) return kLost;
  return a != kNowhere ? 0 : 1;
}

int RowFollower::OfReshape(const Node& node) const {
  const auto shape = Numbers(node.input(1));
  if (At(node, 0) != 0 || At(node, 1) != kNowhere || !shape || shape->empty()) return kLost;
  const bool keeps = shape->front() == 0 && node.attributes.IntOr("allowzero", 0) == 0;
  return keeps || shape->front() == -1 ? 0 : kLost;
}

int RowFollower::OfSqueeze(const Node& node) const {
  const int rank = Rank(node, 0);
  const auto axes = Axes(node, 1);
  if (rank < 0 || !axes || axes->empty()) return kLost;
  int before = 0;
  for (const int64_t number : *axes) {
    const int axis = Axis(number, rank);
    if (axis < 0 || axis == At(node, 0)) return kLost;  // There is one sample, then.
    before += axis < At(node, 0) ? 1 : 0;
  }
  return At(node, 0) - before;
}

int RowFollower::OfUnsqueeze(const Node& node) const {
  const int rank = Rank(node, 0);
  const auto axes = Axes(node, 1);
  if (rank < 0 || !axes) return kLost;
  const int made = rank + static_cast<int>(axes->size());
  std::vector<bool> added(static_cast<size_t>(made), false);
  for (const int64_t number : *axes) {
    const int axis = Axis(number, made);
    if (axis < 0) return kLost;
    added[static_cast<size_t>(axis)] = true;
  }
  int old = 0;
  for (int axis = 0; axis < made; ++axis) {
    if (added[static_cast<size_t>(axis)]) continue;
    if (old++ == At(node, 0)) return axis;
  }
  return kLost;
}

// X is [steps, batch, size], Y [steps, directions, batch, size]; with layout 1 the batch comes first in both.
int RowFollower::OfRecurrent(const Node& node) const {
  const bool batch_first = node.attributes.IntOr("layout", 0) != 0;
  for (const size_t weight : {1, 2, 3}) {
    if (At(node, weight) != kNowhere) return kLost;
  }
  if (At(node, 0) == (batch_first ? 1 : 0)) return kMeet;
  if (At(node, 0) == (batch_first ? 0 : 1)) return batch_first ? 0 : 2;
  return kLost;
}

}  // namespace

std::optional<std::string> WhereRowsMeet(const Graph& graph) { return RowFollower(graph).Follow(); }

}  // namespace octet
