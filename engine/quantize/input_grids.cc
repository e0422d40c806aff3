#include "engine/quantize/input_grids.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <vector>

#include "engine/quantize/opset.h"
#include "engine/quantize/selection.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr int kGridSteps = 255;
constexpr int64_t kMostGrids = 64;
// Elements of a channel that are looked at, and how far they may lie beside their integers, in steps.
constexpr int64_t kMostPerChannel = int64_t{1} << 20;
constexpr double kBesideGrid = 0.01;
constexpr int64_t kFewestPerChannel = 1024;  ///< Fewer lie on some grid by chance.
constexpr double kFloatSteps =
    1e-4;  ///< Of the reals' own size: finer steps are how a constant was rounded.
constexpr size_t kMostDistinct = 2048;  ///< 256 integers, each computed in a few ways.

// Adds a sample's elements to those of a channel, sorted; of more than kMostDistinct no grid of 8 bits comes, and no more are taken.
void AddDistinct(std::span<const float> own, std::vector<float>& found) {
  if (found.size() > kMostDistinct) return;
  found.insert(found.end(), own.begin(), own.end());
  std::ranges::sort(found);
  found.erase(std::ranges::unique(found).begin(), found.end());
}

// Of each channel, in samples that lie evenly in the set.
absl::StatusOr<std::vector<std::vector<float>>> DistinctElements(const CalibrationData& set,
                                                                 const std::string& input) {
  const Shape& shape = set.SpecOf(input, 0)->shape;
  const int64_t inner = shape.elements(2, shape.rank());
  const int64_t stride = std::max<int64_t>(1, set.count() * inner / kMostPerChannel);
  std::vector<int64_t> seen;
  for (int64_t n = 0; n < set.count(); n += stride) seen.push_back(n);
  std::vector<std::vector<float>> found(static_cast<size_t>(shape[1]));
  const auto see = [&](int64_t, ConstTensorView samples) {
    auto left = samples.span<float>();
    for (int64_t n = 0; n < samples.shape()[0]; ++n) {
      for (std::vector<float>& of_channel : found) {
        AddDistinct(left.first(static_cast<size_t>(inner)), of_channel);
        left = left.subspan(static_cast<size_t>(inner));
      }
    }
    return absl::OkStatus();
  };
  OCTET_RETURN_IF_ERROR(set.Drawn(seen).Pass(input, 0, std::ssize(seen), see));
  return found;
}

// The coarsest grid of at most 256 integers that holds all elements; nullopt where there is none.
std::optional<ChannelGrid> GridThrough(const std::vector<float>& sorted) {
  if (sorted.size() < 2) return std::nullopt;
  const double reach = static_cast<double>(sorted.back()) - sorted.front();
  double step = reach;
  for (size_t i = 1; i < sorted.size(); ++i) {
    const double gap = static_cast<double>(sorted[i]) - sorted[i - 1];
    // Nearer ones are one integer, computed in two ways.
    if (gap > 0.5 * reach / kGridSteps) step = std::min(step, gap);
  }
  const double size = std::max(std::abs(sorted.front()), std::abs(sorted.back()));
  if (!(step >= kFloatSteps * size)) return std::nullopt;
  const double steps = std::round(reach / step);
  if (!(steps >= 1) || steps > kGridSteps) return std::nullopt;
  step = reach / steps;
  for (const float x : sorted) {
    const double q = (static_cast<double>(x) - sorted.front()) / step;
    if (std::abs(q - std::round(q)) > kBesideGrid) return std::nullopt;
  }
  // Integers that were not seen lie on both sides.
  const double first = std::floor((kGridSteps - steps) / 2);
  return ChannelGrid{step, first - sorted.front() / step};
}

bool OneGrid(const std::vector<ChannelGrid>& grids) {
  double least = grids[0].offset;
  double most = grids[0].offset;
  for (const ChannelGrid& grid : grids) {
    const double apart = grid.offset - grids[0].offset;
    if (std::abs(grid.step / grids[0].step - 1) > kBesideGrid / kGridSteps) return false;
    if (std::abs(apart - std::round(apart)) > kBesideGrid) return false;
    least = std::min(least, grid.offset);
    most = std::max(most, grid.offset);
  }
  return most - least < 0.5;  // Else what all of them reach may be more than 8 bits.
}

class InputConv {
 public:
  InputConv(Graph& graph, ValueId input) : graph_(graph), input_(input) {}

  /// False where the input is read by something else.
  bool Find() {
    const Value& value = graph_.value(input_);
    conv_ = graph_.SoleConsumer(input_);
    if (conv_ == kNone || value.dtype != DType::kF32 || !value.shape || value.shape->rank() < 3)
      return false;
    const Node& node = graph_.node(conv_);
    weighted_ = AsWeighted(graph_, conv_);
    channels_ = (*value.shape)[1];
    const auto padding = node.attributes.String("auto_pad", "NOTSET");
    return weighted_ && node.is("Conv") && node.attributes.IntOr("group", 1) == 1 &&
           channels_ > 1 && channels_ <= kMostGrids && padding.ok() && *padding == "NOTSET" &&
           (node.input(2) == kNone || weighted_->bias != kNone);
  }

  absl::StatusOr<std::vector<ChannelGrid>> Grids(const CalibrationData& set) const {
    const Value& value = graph_.value(input_);
    const TensorSpec* const spec = set.SpecOf(value.name, 0);
    if (spec == nullptr || spec->shape.rank() != value.shape->rank() ||
        spec->shape[1] != channels_) {
      return std::vector<ChannelGrid>();
    }
    return SensorGrids(set, value.name);
  }

  /// Whether zeros at the borders are within the range of the integers: else the borders alone would decide the scale.
  bool HoldsBorders(const std::vector<ChannelGrid>& grids) const {
    const auto pads = graph_.node(conv_).attributes.Ints("pads", {});
    if (pads.ok() && std::ranges::all_of(*pads, [](int64_t pad) { return pad == 0; })) return true;
    return std::ranges::all_of(grids, [](const ChannelGrid& grid) {
      return grid.offset >= 0 && grid.offset <= kGridSteps;
    });
  }

  void Put(const std::vector<ChannelGrid>& grids) {
    ScaleWeights(grids);
    ValueId x = Padded();
    std::vector<float> factors;
    std::vector<float> offsets;
    for (const ChannelGrid& grid : grids) {
      factors.push_back(static_cast<float>(1 / grid.step));
      offsets.push_back(static_cast<float>(grid.offset));
    }
    x = Elementwise("Mul", x, factors);
    x = Elementwise("Add", x, offsets);
    graph_.SetInput(conv_, 0, x);
  }

 private:
  int Version() const { return OnnxOpset(graph_); }

  ValueId AddStep(Node node, const char* name, std::optional<Shape> shape) {
    const ValueId y = graph_.AddValue(
        {.name = graph_.UniqueName(name), .dtype = DType::kF32, .shape = std::move(shape)});
    node.version = Version();
    node.outputs = {y};
    graph_.InsertNodeBefore(conv_, std::move(node));
    return y;
  }

  // The zeros at the borders, before they are moved; the convolution has none then.
  ValueId Padded() {
    Node& node = graph_.mutable_node(conv_);
    const Shape& shape = *graph_.value(input_).shape;
    const auto spatial = static_cast<size_t>(shape.rank()) - 2;
    const auto pads = node.attributes.Ints("pads", std::vector<int64_t>(2 * spatial, 0));
    if (!pads.ok() || std::ranges::all_of(*pads, [](int64_t pad) { return pad == 0; }))
      return input_;
    node.attributes.Set("pads", std::vector<int64_t>(2 * spatial, 0));
    const auto rank = static_cast<size_t>(shape.rank());
    std::vector<int64_t> all(2 * rank, 0);
    Shape padded = shape;
    for (size_t axis = 0; axis < spatial; ++axis) {
      all[2 + axis] = (*pads)[axis];
      all[rank + 2 + axis] = (*pads)[spatial + axis];
      int64_t& extent = padded[static_cast<int>(axis) + 2];
      if (extent != kUnknownDim) extent += (*pads)[axis] + (*pads)[spatial + axis];
    }
    const ValueId amounts = graph_.AddConstant(
        "pads", Tensor::From<int64_t>(Shape{static_cast<int64_t>(2 * rank)}, all));
    return AddStep({.op = "Pad", .inputs = {input_, amounts}}, "padded_input", padded);
  }

  ValueId Elementwise(const char* op, ValueId x, std::span<const float> per_channel) {
    const std::optional<Shape> shape = graph_.value(x).shape;
    std::vector<int64_t> extents(static_cast<size_t>(shape->rank()), 1);
    extents[1] = channels_;
    const ValueId constant =
        graph_.AddConstant("input_grid", Tensor::From<float>(Shape(extents), per_channel));
    return AddStep({.op = op, .inputs = {x, constant}}, "input_steps", shape);
  }

  // w a[c], and b - sum w a[c] z[c].
  void ScaleWeights(const std::vector<ChannelGrid>& grids) {
    const Node node = graph_.node(conv_);
    const Tensor& weights = graph_.value(node.inputs[1]).constant;
    const Shape& shape = weights.shape();
    const int64_t inner = shape.elements(2, shape.rank());
    Tensor scaled(DType::kF32, shape);
    std::vector<double> bias(static_cast<size_t>(shape[0]), 0.0);
    if (weighted_->bias != kNone) {
      const auto own = graph_.value(weighted_->bias).constant.span<float>();
      std::ranges::copy(own, bias.begin());
    }
    for (int64_t i = 0; i < shape.elements(); ++i) {
      const ChannelGrid& grid = grids[static_cast<size_t>(i / inner % shape[1])];
      const double w = weights.span<float>()[static_cast<size_t>(i)] * grid.step;
      scaled.mutable_span<float>()[static_cast<size_t>(i)] = static_cast<float>(w);
      bias[static_cast<size_t>(i / inner / shape[1])] -= w * grid.offset;
    }
    const std::vector<float> rounded(bias.begin(), bias.end());
    const ValueId moved = graph_.AddConstant("bias", Tensor::From<float>(Shape{shape[0]}, rounded));
    graph_.SetInput(conv_, 1, graph_.AddConstant(graph_.value(node.inputs[1]).name, scaled));
    if (node.inputs.size() > 2) {
      graph_.SetInput(conv_, 2, moved);
    } else {
      graph_.AppendInput(conv_, moved);
    }
  }

  Graph& graph_;
  ValueId input_;
  NodeId conv_ = kNone;
  std::optional<WeightedNode> weighted_;
  int64_t channels_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<ChannelGrid>> SensorGrids(const CalibrationData& set,
                                                     const std::string& input) {
  std::vector<ChannelGrid> grids;
  const TensorSpec* const spec = set.SpecOf(input, 0);
  if (spec == nullptr || spec->dtype != DType::kF32) return grids;
  const Shape& shape = spec->shape;
  if (shape.rank() < 3 || shape[1] > kMostGrids ||
      set.count() * shape.elements(2, shape.rank()) < kFewestPerChannel) {
    return grids;
  }
  OCTET_ASSIGN_OR_RETURN(const auto found, DistinctElements(set, input));
  for (const std::vector<float>& of_channel : found) {
    const auto grid = GridThrough(of_channel);
    if (!grid) return std::vector<ChannelGrid>();
    grids.push_back(*grid);
  }
  return grids;
}

absl::StatusOr<int> SeparateInputGrids(Graph& graph, const CalibrationData& set) {
  if (OnnxOpset(graph) < kQuantizeOpset) return 0;
  int changed = 0;
  const std::vector<ValueId> inputs = graph.inputs;
  for (const ValueId input : inputs) {
    InputConv reader(graph, input);
    if (!reader.Find()) continue;
    OCTET_ASSIGN_OR_RETURN(const std::vector<ChannelGrid> grids, reader.Grids(set));
    if (grids.empty() || OneGrid(grids) || !reader.HoldsBorders(grids)) continue;
    reader.Put(grids);
    ++changed;
  }
  if (changed > 0) graph.RemoveDead();
  return changed;
}

}  // namespace octet
