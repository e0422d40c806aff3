#include "engine/quantize/layer_comparison.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/ops/op.h"
#include "engine/passes/match.h"
#include "engine/passes/quantization.h"
#include "engine/plan/precision_detection.h"
#include "engine/quantize/float_model.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr int64_t kMostSamples = 64;
constexpr size_t kMostElements = size_t{1} << 20;  // Kept of one value, 4 MB.
constexpr int kBinCount = 64;
// How far a channel's factor may be from 1 without being one that was put there.
constexpr double kFactorTolerance = 0.01;

// Operators whose inputs are compared: those that multiply by weights, and their integer forms.
constexpr std::array<std::string_view, 9> kComputing = {"Conv",   "ConvTranspose", "Gemm",
                                                        "MatMul", "LSTM",          "GRU",
                                                        "RNN",    "ConvInteger",   "MatMulInteger"};

bool IsComputing(const Node& node) {
  return std::ranges::find(kComputing, node.op) != kComputing.end();
}

void CountInto(BinCounts& bins, double x) {
  const double width = (static_cast<double>(bins.range.max) - bins.range.min) / kBinCount;
  const double bin = width > 0 ? std::floor((x - bins.range.min) / width) : 0;
  ++bins.counts[std::isfinite(bin) ? static_cast<size_t>(std::clamp(bin, 0.0, kBinCount - 1.0))
                                   : 0];
}

// Where a value of the fp32 model can be read in the variant.
struct Point {
  std::string name;
  ValueId fp32 = kNone;
  ValueId variant = kNone;
  bool inner = true;
  std::optional<QuantParams> params;
  DType dtype = DType::kUndefined;
};

class PointFinder {
 public:
  PointFinder(const Graph& fp32, const Graph& variant) : fp32_(fp32), variant_(variant) {
    for (ValueId id = 0; id < fp32.value_count(); ++id) {
      if (!fp32.value(id).is_constant()) by_name_.emplace(fp32.value(id).name, id);
    }
  }

  void Run() {
    for (const ValueId id : variant_.outputs) Add(variant_.value(id).name, id, nullptr);
    for (const NodeId id : variant_.order()) {
      const Node& node = variant_.node(id);
      if (node.is("DequantizeLinear")) AddDequantized(node);
      if (!IsComputing(node)) continue;
      for (const ValueId x : std::span(node.inputs).first(std::min<size_t>(2, node.inputs.size())))
        AddRead(x);
    }
    LeaveCoincidences();
    const auto place = [&](const Point& p) { return PlaceOf(p.fp32); };
    std::ranges::stable_sort(points_, {}, place);
  }

  const std::vector<Point>& points() const { return points_; }
  std::vector<std::string> unmatched() const { return {unmatched_.begin(), unmatched_.end()}; }

 private:
  // Position of the node that makes the value; graph inputs come first.
  int64_t PlaceOf(ValueId id) {
    if (places_.empty()) {
      for (const NodeId node : fp32_.order()) places_.emplace(node, std::ssize(places_));
    }
    const NodeId producer = fp32_.producer(id);
    return producer == kNone ? -1 : places_.at(producer);
  }

  void AddDequantized(const Node& node) {
    const NodeId quantize = ProducerIf(variant_, node.input(0), "QuantizeLinear");
    if (quantize == kNone) return;
    const ValueId reals = variant_.node(quantize).input(0);
    if (reals == kNone || variant_.value(reals).is_constant()) return;
    Add(variant_.value(reals).name, node.output(0), &node);
  }

  // Names that the fp32 graph does not have for the most part were given by somebody else; an equal one says nothing then.
  void LeaveCoincidences() {
    if (std::cmp_less_equal(unmatched_.size(), std::ranges::count_if(points_, &Point::inner)))
      return;
    std::erase_if(points_, [&](const Point& point) {
      if (point.inner) unmatched_.insert(point.name);
      return point.inner;
    });
  }

  // Weights, as they are or widened by a Cast.
  bool IsWeights(ValueId x) const {
    const NodeId cast = ProducerIf(variant_, x, "Cast");
    return variant_.value(cast == kNone ? x : variant_.node(cast).input(0)).is_constant();
  }

  void AddRead(ValueId x) {
    if (x == kNone || IsWeights(x)) return;
    ValueId reals = x;
    if (const NodeId id = ProducerIf(variant_, x, "DequantizeLinear"); id != kNone) {
      x = variant_.node(id).input(0);
      if (variant_.value(x).is_constant() || ProducerIf(variant_, x, "QuantizeLinear") != kNone)
        return;  // Weights, or added where it is dequantized.
    }
    if (const NodeId id = ProducerIf(variant_, x, "DynamicQuantizeLinear"); id != kNone)
      reals = variant_.node(id).input(0);
    Add(variant_.value(reals).name, reals, nullptr);
  }

  void Add(const std::string& name, ValueId id, const Node* dequantize) {
    const Value& value = variant_.value(id);
    if (value.dtype != DType::kF32 || value.is_constant()) return;
    const auto found = Find(name);
    if (found == by_name_.end() || !Corresponds(fp32_.value(found->second), value)) {
      unmatched_.insert(name);
      return;
    }
    if (!names_.insert(found->first).second) return;
    Point& point =
        points_.emplace_back(Point{.name = found->first, .fp32 = found->second, .variant = id});
    point.inner = !fp32_.is_graph_input(point.fp32) && !fp32_.is_graph_output(point.fp32);
    if (dequantize == nullptr) return;
    point.params = ParamsOf(variant_, *dequantize);
    if (point.params && !point.params->per_tensor()) point.params.reset();
    point.dtype = variant_.value(dequantize->input(0)).dtype;
    if (!IsInt8(point.dtype)) point.params.reset();
  }

  // Files of earlier versions: dynamic_int8 put several nodes in the place of one, and its result bore the last one's name.
  std::map<std::string, ValueId>::const_iterator Find(const std::string& name) const {
    for (const std::string_view suffix : {"_scaled", "_biased"}) {
      if (!name.ends_with(suffix)) continue;
      const auto found = by_name_.find(name.substr(0, name.size() - suffix.size()));
      if (found != by_name_.end()) return found;
    }
    return by_name_.find(name);
  }

  static bool Corresponds(const Value& a, const Value& b) {
    if (a.dtype != b.dtype || a.kind != b.kind) return false;
    if (!a.shape || !b.shape) return true;
    if (a.shape->rank() != b.shape->rank()) return false;
    for (int axis = 0; axis < a.shape->rank(); ++axis) {
      const int64_t x = (*a.shape)[axis];
      const int64_t y = (*b.shape)[axis];
      if (x != kUnknownDim && y != kUnknownDim && x != y) return false;
    }
    return true;
  }

  const Graph& fp32_;
  const Graph& variant_;
  std::map<std::string, ValueId> by_name_;
  std::map<NodeId, int64_t> places_;
  std::set<std::string> names_;
  std::set<std::string> unmatched_;
  std::vector<Point> points_;
};

// The first elements of a value, and how its channels lie: axis 1, the rest behind it.
class Kept : public Collector {
 public:
  absl::Status Observe(ConstTensorView batch) override {
    const Shape& shape = batch.shape();
    if (shape.rank() >= 2 && batch.elements() > 0) {
      channels_ = static_cast<size_t>(shape[1]);
      inner_ = static_cast<size_t>(shape.elements(2, shape.rank()));
    }
    const std::span<const float> seen = batch.span<float>();
    const size_t count = std::min(seen.size(), kMostElements - elements_.size());
    elements_.insert(elements_.end(), seen.begin(), seen.begin() + static_cast<ptrdiff_t>(count));
    return absl::OkStatus();
  }

  const std::vector<float>& elements() const { return elements_; }
  size_t channels() const { return channels_; }
  size_t ChannelOf(size_t i) const { return inner_ > 0 ? i / inner_ % channels_ : 0; }

 private:
  std::vector<float> elements_;
  size_t channels_ = 1;
  size_t inner_ = 0;
};

// Sums per channel of a value and the fp32 model's.
class Differences : public Collector {
 public:
  explicit Differences(const Kept& exact) : exact_(exact), channels_(exact.channels()) {}

  absl::Status Observe(ConstTensorView batch) override {
    const std::span<const float> got = batch.span<float>();
    const size_t count = std::min(got.size(), exact_.elements().size() - seen_);
    for (size_t i = 0; i < count; ++i) Add(seen_ + i, got[i]);
    seen_ += count;
    return absl::OkStatus();
  }

  /// What the channels' values in the variant are multiples of; empty: of the fp32 model's own.
  std::vector<double> Factors() const {
    std::vector<double> factors;
    for (const Channel& c : channels_) {
      const double gain = c.yy > 0 ? c.xy / c.yy : 0;
      factors.push_back(gain > 0 ? 1 / gain : 1);
    }
    return factors;
  }

  NoiseSums Sums(std::span<const double> factors) const {
    NoiseSums sums;
    sums.max_abs = max_abs_;
    sums.non_finite = non_finite_;
    for (size_t i = 0; i < channels_.size(); ++i) {
      const Channel& c = channels_[i];
      sums.signal += c.xx;
      sums.noise +=
          factors.empty() || factors[i] == 1 ? c.noise : std::max(0.0, c.xx - c.xy * c.xy / c.yy);
    }
    return sums;
  }

 private:
  struct Channel {
    double xx = 0;
    double xy = 0;
    double yy = 0;
    double noise = 0;
  };

  void Add(size_t at, double y) {
    const double x = exact_.elements()[at];
    const double difference = y - x;
    if (!std::isfinite(difference)) {
      non_finite_ += y == x ? 0 : 1;  // Equal infinities are no difference.
      return;
    }
    Channel& c = channels_[exact_.ChannelOf(at)];
    c.xx += x * x;
    c.xy += x * y;
    c.yy += y * y;
    c.noise += difference * difference;
    max_abs_ = std::max(max_abs_, std::abs(difference));
  }

  const Kept& exact_;
  size_t seen_ = 0;
  std::vector<Channel> channels_;
  double max_abs_ = 0;
  int64_t non_finite_ = 0;
};

void AddRange(const Point& point, const Kept& exact, std::span<const double> factors,
              ComparedValue& row) {
  row.dtype = point.dtype;
  row.params = *point.params;
  const double scale = row.params.scales[0];
  const int32_t zero = row.params.zero_points[0];
  // What integers stand for may be beyond the largest float.
  constexpr double kLargest = std::numeric_limits<float>::max();
  const auto real = [&](int32_t q) {
    return static_cast<float>(std::clamp(scale * (q - zero), -kLargest, kLargest));
  };
  row.range = {real(RangeOf(point.dtype).min), real(RangeOf(point.dtype).max)};
  row.values = {row.range, std::vector<uint64_t>(kBinCount)};
  const auto scaled = [&](size_t i) {
    return exact.elements()[i] * (factors.empty() ? 1 : factors[exact.ChannelOf(i)]);
  };
  size_t outside = 0;
  for (size_t i = 0; i < exact.elements().size(); ++i) {
    const auto x = static_cast<float>(scaled(i));
    if (!std::isfinite(x)) continue;
    row.values.range = {std::min(row.values.range.min, x), std::max(row.values.range.max, x)};
    outside += x < row.range.min - scale / 2 || x > row.range.max + scale / 2 ? 1 : 0;
  }
  for (size_t i = 0; i < exact.elements().size(); ++i) {
    if (const double x = scaled(i); std::isfinite(x)) CountInto(row.values, x);
  }
  row.cut_off = static_cast<double>(outside) /
                static_cast<double>(std::max<size_t>(1, exact.elements().size()));
}

ComparedValue RowOf(const Graph& fp32, const Point& point, const Kept& exact,
                    const Differences& differences, bool equalized) {
  ComparedValue row{.name = point.name};
  if (const NodeId id = fp32.producer(point.fp32); id != kNone) {
    row.node = fp32.node(id).name;
    row.op = fp32.node(id).op;
  }
  std::vector<double> factors;
  if (equalized && point.inner && point.params) factors = differences.Factors();
  row.noise = differences.Sums(factors);
  row.rescaled_channels = std::ranges::count_if(
      factors, [](double factor) { return std::abs(factor - 1) > kFactorTolerance; });
  if (row.rescaled_channels > 0) row.noise.max_abs = 0;
  if (point.params) AddRange(point, exact, factors, row);
  return row;
}

// 8-bit constants that nodes read, dequantized or as they are.
class WeightFinder {
 public:
  explicit WeightFinder(const Graph& graph) : graph_(graph) {}

  std::vector<QuantizedConstantUse> Run() {
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      for (const ValueId input : node.inputs) {
        if (input == kNone) continue;
        if (const auto weights = AsQuantizedConstant(graph_, input)) Add(node, *weights);
      }
      if (node.is("ConvInteger") || node.is("MatMulInteger")) AddInteger(node);
    }
    return std::move(uses_);
  }

 private:
  // Its scale is a factor further on.
  void AddInteger(const Node& node) {
    const ValueId w = node.input(1);
    if (w == kNone || !graph_.value(w).is_constant() || !IsInt8(graph_.value(w).dtype)) return;
    QuantParams params = QuantParams::PerTensor(0, 0);
    if (node.input(3) != kNone) {
      const auto zeros = IntsOf(graph_, node.input(3));
      if (!zeros || zeros->size() != 1) return;
      params.zero_points[0] = static_cast<int32_t>((*zeros)[0]);
    }
    Add(node, {w, params});
  }

  void Add(const Node& node, const QuantizedConstant& weights) {
    const Value& value = graph_.value(weights.value);
    if (!seen_.insert(weights.value).second || value.constant.elements() == 0) return;
    QuantizedConstantUse use{.name = value.name, .node = node.name, .op = node.op};
    use.dtype = value.dtype;
    const auto& scales = weights.params.scales;
    use.scales = scales[0] > 0 ? std::ssize(scales) : 0;
    use.least_scale = std::ranges::min(scales);
    use.largest_scale = std::ranges::max(scales);
    CountSteps(value.constant, weights.params, use);
    uses_.push_back(std::move(use));
  }

  static void CountSteps(const Tensor& integers, const QuantParams& params,
                         QuantizedConstantUse& use) {
    const Shape& shape = integers.shape();
    const int axis = params.axis;
    const auto channels = static_cast<int64_t>(params.scales.size());
    const int64_t inner = params.per_tensor() ? 1 : shape.elements(axis + 1, shape.rank());
    use.steps = {{-128, 128}, std::vector<uint64_t>(kBinCount)};
    double squares = 0;
    for (int64_t i = 0; i < integers.elements(); ++i) {
      const auto at = static_cast<size_t>(i);
      const auto channel = static_cast<size_t>(params.per_tensor() ? 0 : i / inner % channels);
      const int q =
          use.dtype == DType::kU8 ? integers.span<uint8_t>()[at] : integers.span<int8_t>()[at];
      const double steps = q - params.zero_points[channel];
      squares += steps * steps;
      CountInto(use.steps, steps);
    }
    use.rounding_sqnr_db = 10 * std::log10(12 * squares / static_cast<double>(integers.elements()));
  }

  const Graph& graph_;
  std::set<ValueId> seen_;
  std::vector<QuantizedConstantUse> uses_;
};

// The first samples of a set; as many as a model with a batch of its own takes at least.
CalibrationData FirstSamples(const CalibrationData& set, const Graph& graph) {
  int64_t most = kMostSamples;
  for (const ValueId id : graph.inputs) {
    const auto& shape = graph.value(id).shape;
    if (!set.whole_inputs() && shape && shape->rank() > 0) most = std::max(most, (*shape)[0]);
  }
  std::vector<int64_t> first(static_cast<size_t>(std::min(most, set.count())));
  std::iota(first.begin(), first.end(), 0);
  return set.Drawn(first);
}

}  // namespace

absl::StatusOr<LayerComparison> CompareLayers(Graph fp32, Graph variant, const CalibrationData& set,
                                              const CalibrationRun& run) {
  OCTET_ASSIGN_OR_RETURN(const Precision precision, DetectPrecision(variant));
  for (Graph* graph : {&fp32, &variant}) {
    OCTET_ASSIGN_OR_RETURN(FloatModel model, InFloat(*graph));
    *graph = std::move(model.graph);
    OCTET_RETURN_IF_ERROR(InferShapes(*graph));
  }
  PointFinder finder(fp32, variant);
  finder.Run();
  LayerComparison comparison{.weights = WeightFinder(variant).Run(),
                             .unmatched = finder.unmatched()};
  const std::vector<Point>& points = finder.points();
  if (points.empty()) return comparison;

  const CalibrationData samples = InFloat(FirstSamples(set, fp32));
  comparison.samples = samples.count();
  std::vector<Observation> observations;
  std::deque<Kept> kept;
  for (const Point& point : points) observations.push_back({point.fp32, &kept.emplace_back()});
  OCTET_RETURN_IF_ERROR(Calibrate(fp32, observations, samples, run));
  observations.clear();
  std::deque<Differences> differences;
  for (size_t i = 0; i < points.size(); ++i)
    observations.push_back({points[i].variant, &differences.emplace_back(kept[i])});
  OCTET_RETURN_IF_ERROR(Calibrate(variant, observations, samples, run, precision));
  for (size_t i = 0; i < points.size(); ++i) {
    comparison.values.push_back(
        RowOf(fp32, points[i], kept[i], differences[i], precision == Precision::kInt8));
  }
  return comparison;
}

}  // namespace octet
