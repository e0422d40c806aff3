#include "engine/train/network.h"

#include <algorithm>
#include <numeric>
#include <ranges>
#include <set>

#include "engine/ops/op.h"
#include "engine/passes/quantization.h"
#include "engine/tensor/status.h"

namespace octet::train {
namespace {

bool IsConstant(const Graph& graph, ValueId id) {
  return id != kNone && graph.value(id).is_constant();
}

// The QuantizeLinear behind a DequantizeLinear of an activation, or kNone.
NodeId QuantizerOf(const Graph& graph, NodeId dequantize) {
  const NodeId producer = graph.producer(graph.node(dequantize).inputs[0]);
  return producer != kNone && graph.node(producer).is("QuantizeLinear") ? producer : kNone;
}

// Values that follow from the inputs alone: nothing that is learned lies before them.
std::set<ValueId> UntaughtValues(const Graph& graph) {
  std::set<ValueId> untaught(graph.inputs.begin(), graph.inputs.end());
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    const bool follows =
        DequantizerOfWeights(graph, node) == kNone &&
        std::ranges::all_of(node.inputs, [&](ValueId input) {
          return input == kNone || IsConstant(graph, input) || untaught.contains(input);
        });
    if (follows) untaught.insert(node.outputs.begin(), node.outputs.end());
  }
  return untaught;
}

// Moves elements of one grid and leaves them there.
bool StaysOnGrid(const Node& node) {
  const OpDef* op = FindOp(node);
  return op != nullptr && (op->traits.data_movement || op->traits.view) && !node.is("Pad");
}

// Outputs of pairs, and what only moves their elements.
std::set<ValueId> ValuesOnGrids(const Graph& graph) {
  std::set<ValueId> on_grid;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    const bool pair = node.is("DequantizeLinear") && QuantizerOf(graph, id) != kNone;
    int moved = 0;
    const bool moves = StaysOnGrid(node) && std::ranges::all_of(node.inputs, [&](ValueId input) {
                         if (input == kNone || IsConstant(graph, input)) return true;
                         ++moved;
                         return on_grid.contains(input);
                       });
    if (pair || (moves && moved > 0)) on_grid.insert(node.outputs.begin(), node.outputs.end());
  }
  return on_grid;
}

// Integers that are no weights of a layer with a quantized input stay as they are: reals to the network, in its own copy of the graph.
// A layer that reads reals is one that the file has in float, with its weights kept in bytes.
void FoldConstants(Graph& graph) {
  const std::set<ValueId> on_grid = ValuesOnGrids(graph);
  for (const NodeId id : graph.OrderSnapshot()) {
    const Node& node = graph.node(id);
    if (!node.is("DequantizeLinear") || !IsConstant(graph, node.inputs[0])) continue;
    const bool learned = std::ranges::any_of(graph.consumers(node.outputs[0]), [&](NodeId reader) {
      const Node& layer = graph.node(reader);
      return DequantizerOfWeights(graph, layer) == id && on_grid.contains(layer.inputs[0]);
    });
    if (!learned) FoldDequantize(graph, id);
  }
}

}  // namespace

bool IsLayer(const Node& node) { return node.is("Conv") || node.is("Gemm") || node.is("MatMul"); }

NodeId DequantizerOfWeights(const Graph& graph, const Node& node) {
  if (!IsLayer(node)) return kNone;
  const NodeId producer = graph.producer(node.inputs[1]);
  if (producer == kNone || !graph.node(producer).is("DequantizeLinear")) return kNone;
  return IsConstant(graph, graph.node(producer).inputs[0]) ? producer : kNone;
}

bool CutSoftmax(Graph& graph) {
  if (graph.outputs.size() != 1) return false;
  NodeId last = graph.producer(graph.outputs[0]);
  if (last != kNone && graph.node(last).is("DequantizeLinear")) {
    const NodeId quantize = QuantizerOf(graph, last);
    last = quantize == kNone ? kNone : graph.producer(graph.node(quantize).inputs[0]);
  }
  if (last == kNone) return false;
  const Node& node = graph.node(last);
  const std::optional<Shape>& shape = graph.value(graph.outputs[0]).shape;
  if (!node.is("Softmax") && !node.is("LogSoftmax")) return false;
  const int64_t axis = node.attributes.IntOr("axis", node.version < 13 ? 1 : -1);
  if (!shape || NormalizeAxis(axis, shape->rank()) != shape->rank() - 1) return false;
  graph.outputs[0] = node.inputs[0];
  graph.RemoveDead();
  return true;
}

// Which QuantizeLinear nodes have one scale because only data movement lies between them.
class TiedScales {
 public:
  explicit TiedScales(const Graph& graph) : graph_(graph) {
    for (const NodeId id : graph.order()) {
      if (graph.node(id).is("QuantizeLinear")) parent_[id] = id;
    }
    for (const auto& [quantize, unused] : parent_) Tie(quantize);
  }

  NodeId Root(NodeId id) const {
    while (parent_.at(id) != id) id = parent_.at(id);
    return id;
  }

 private:
  void Tie(NodeId quantize) {
    const NodeId producer = graph_.producer(graph_.node(quantize).inputs[0]);
    if (producer == kNone) return;
    const OpDef* op = FindOp(graph_.node(producer));
    if (op == nullptr || !(op->traits.data_movement || op->traits.view)) return;
    for (const ValueId input : graph_.node(producer).inputs) {
      const NodeId dequantize = input == kNone ? kNone : graph_.producer(input);
      if (dequantize == kNone || !graph_.node(dequantize).is("DequantizeLinear")) continue;
      const NodeId other = QuantizerOf(graph_, dequantize);
      if (other == kNone || !SameParams(quantize, other)) continue;
      parent_[std::max(Root(other), Root(quantize))] = std::min(Root(other), Root(quantize));
    }
  }

  bool SameParams(NodeId a, NodeId b) const {
    const auto params_a = ReadScalarParams(graph_, graph_.node(a));
    const auto params_b = ReadScalarParams(graph_, graph_.node(b));
    return params_a.ok() && params_b.ok() && *params_a == *params_b;
  }

  const Graph& graph_;
  std::map<NodeId, NodeId> parent_;
};

class NetworkBuilder {
 public:
  NetworkBuilder(Graph graph, bool learn_ranges, int weight_bits, TrainCompute compute)
      : graph_(std::move(graph)),
        learn_ranges_(learn_ranges),
        weight_bits_(weight_bits),
        compute_(compute),
        tied_(graph_) {}

  absl::StatusOr<std::unique_ptr<Network>> Run() {
    if (graph_.outputs.size() != 1)
      return Unimplemented("training knows models with one output, this one has {}",
                           graph_.outputs.size());
    OCTET_RETURN_IF_ERROR(MakeScales());
    for (const ValueId input : graph_.inputs) {
      if (graph_.value(input).dtype != DType::kF32)
        return Unimplemented("training knows inputs of FP32, '{}' is {}", graph_.value(input).name,
                             DTypeName(graph_.value(input).dtype));
      OCTET_ASSIGN_OR_RETURN(Activation * activation, NewActivation(input, false));
      network_->inputs_.push_back(activation);
    }
    for (const NodeId id : graph_.order()) OCTET_RETURN_IF_ERROR(AddNode(id));
    network_->output_ = Find(graph_.outputs[0]);
    if (network_->output_ == nullptr || !network_->output_->differentiable())
      return InvalidArgument("the model holds nothing that can be trained");
    return std::move(network_);
  }

 private:
  absl::Status MakeScales() {
    const std::set<ValueId> untaught = UntaughtValues(graph_);
    std::map<NodeId, bool> fixed;
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      if (node.is("QuantizeLinear")) fixed[tied_.Root(id)] |= untaught.contains(node.inputs[0]);
    }
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      if (!node.is("QuantizeLinear")) continue;
      const NodeId root = tied_.Root(id);
      if (!scales_.contains(root)) {
        OCTET_ASSIGN_OR_RETURN(const ScalarParams params,
                               ReadScalarParams(graph_, graph_.node(root)));
        network_->scales_.push_back(std::make_unique<Network::Scale>(Network::Scale{
            ActivationScale(graph_.value(node.inputs[1]).name, params.scale, params.zero_point,
                            params.dtype, learn_ranges_ && !fixed.at(root)),
            {}}));
        scales_[root] = network_->scales_.back().get();
      }
      scales_[root]->constants.push_back(node.inputs[1]);
    }
    return absl::OkStatus();
  }

  Activation* Find(ValueId id) const {
    const auto found = network_->activations_.find(id);
    return found == network_->activations_.end() ? nullptr : found->second.get();
  }

  absl::StatusOr<Activation*> NewActivation(ValueId id, bool differentiable) {
    const Value& value = graph_.value(id);
    if (!value.has_static_shape() || value.shape->elements() == 0)
      return Unimplemented("the shape of '{}' does not follow from the samples' alone", value.name);
    auto& slot = network_->activations_[id];
    slot = std::make_unique<Activation>(*value.shape, differentiable);
    return slot.get();
  }

  absl::Status AddNode(NodeId id) {
    const Node& node = graph_.node(id);
    if (node.is("QuantizeLinear")) return absl::OkStatus();  // Half of a pair.
    if (node.is("DequantizeLinear")) {
      return IsConstant(graph_, node.inputs[0]) ? absl::OkStatus() : AddFakeQuantize(id);
    }
    if (const NodeId weights = DequantizerOfWeights(graph_, node); weights != kNone)
      return AddWeighted(id, weights);
    if (IsLayer(node) && IsConstant(graph_, node.inputs[1])) return AddFloat(id);
    std::vector<Activation*> inputs;
    bool differentiable = false;
    for (const ValueId input : node.inputs) {
      inputs.push_back(input == kNone ? nullptr : Find(input));
      differentiable |= inputs.back() != nullptr && inputs.back()->differentiable();
    }
    if (graph_.value(node.outputs[0]).dtype != DType::kF32)
      return Unimplemented("training does not know {}", Describe(node));
    OCTET_ASSIGN_OR_RETURN(Activation * output, NewActivation(node.outputs[0], differentiable));
    PassScale(node);
    return Keep(MakeLayer({graph_, node, inputs, *output}), differentiable);
  }

  absl::Status Keep(MadeLayer layer, bool differentiable) {
    if (!layer.ok()) return layer.status();
    network_->layers_.push_back({*std::move(layer), differentiable});
    return absl::OkStatus();
  }

  absl::Status AddFakeQuantize(NodeId dequantize) {
    const NodeId quantize = QuantizerOf(graph_, dequantize);
    Activation* x = quantize == kNone ? nullptr : Find(graph_.node(quantize).inputs[0]);
    if (x == nullptr) {
      return Unimplemented("training knows pairs of QuantizeLinear and DequantizeLinear, not {}",
                           DescribeRounding(graph_, graph_.node(dequantize)));
    }
    Network::Scale& scale = *scales_.at(tied_.Root(quantize));
    OCTET_ASSIGN_OR_RETURN(const ScalarParams written,
                           ReadScalarParams(graph_, graph_.node(quantize)));
    OCTET_ASSIGN_OR_RETURN(const ScalarParams read,
                           ReadScalarParams(graph_, graph_.node(dequantize)));
    if (written != read) {
      return Unimplemented("{}: training knows one scale and zero point of a pair, not two",
                           DescribeRounding(graph_, graph_.node(dequantize)));
    }
    const ValueId own = graph_.node(dequantize).inputs[1];
    if (std::ranges::find(scale.constants, own) == scale.constants.end())
      scale.constants.push_back(own);
    const ValueId id = graph_.node(dequantize).outputs[0];
    OCTET_ASSIGN_OR_RETURN(Activation * y, NewActivation(id, x->differentiable()));
    scale_of_[id] = &scale.scale;
    network_->pairs_.push_back({graph_.value(graph_.node(quantize).inputs[0]).name, y});
    network_->layers_.push_back({MakeFakeQuantize(*x, *y, scale.scale), x->differentiable()});
    return absl::OkStatus();
  }

  void PassScale(const Node& node) {
    if (!StaysOnGrid(node)) return;
    ActivationScale* scale = nullptr;
    for (const ValueId input : node.inputs) {
      if (input == kNone || Find(input) == nullptr) continue;
      const auto found = scale_of_.find(input);
      if (found == scale_of_.end() || (scale != nullptr && scale != found->second)) return;
      scale = found->second;
    }
    if (scale != nullptr) scale_of_[node.outputs[0]] = scale;
  }

  // A layer that the file has in float: it stays what it is, gradients go through it.
  absl::Status AddFloat(NodeId id) {
    const Node& node = graph_.node(id);
    Activation* x = Find(node.inputs[0]);
    if (x == nullptr) return Unimplemented("training does not know {}", Describe(node));
    OCTET_ASSIGN_OR_RETURN(Activation * y, NewActivation(node.outputs[0], x->differentiable()));
    const Value& constant = graph_.value(node.inputs[1]);
    if (constant.dtype != DType::kF32)
      return Unimplemented("{}: weights of {}, training knows FP32 and INT8", Describe(node),
                           DTypeName(constant.dtype));
    network_->weighted_.push_back(std::make_unique<Network::Weighted>(
        Network::Weighted{graph_.value(node.outputs[0]).name,
                          LatentWeights::Fixed(constant.constant), std::nullopt, nullptr}));
    Network::Weighted& weighted = *network_->weighted_.back();
    if (const ValueId bias = node.input(2); bias != kNone) {
      OCTET_ASSIGN_OR_RETURN(weighted.bias, LatentBias::Fixed(graph_, bias, ChannelsOf(*y)));
    }
    return AddLayer(node, *x, *y, weighted);
  }

  absl::Status AddWeighted(NodeId id, NodeId dequantize) {
    const Node& node = graph_.node(id);
    Activation* x = Find(node.inputs[0]);
    const auto scale = scale_of_.find(node.inputs[0]);
    if (x == nullptr || scale == scale_of_.end())
      return Unimplemented("{}: training needs a quantized input", Describe(node));
    OCTET_ASSIGN_OR_RETURN(Activation * y, NewActivation(node.outputs[0], true));
    OCTET_ASSIGN_OR_RETURN(LatentWeights weights,
                           LatentWeights::Read(graph_, dequantize, weight_bits_));
    network_->weighted_.push_back(std::make_unique<Network::Weighted>(Network::Weighted{
        graph_.value(node.outputs[0]).name, std::move(weights), std::nullopt, scale->second}));
    Network::Weighted& weighted = *network_->weighted_.back();
    if (const ValueId bias = node.input(2); bias != kNone) {
      OCTET_ASSIGN_OR_RETURN(weighted.bias, LatentBias::Read(graph_, bias, ChannelsOf(*y),
                                                             weighted.weights, *weighted.x));
    }
    return AddLayer(node, *x, *y, weighted);
  }

  // Of a convolution's or Gemm's output: what a bias has one element for.
  static int64_t ChannelsOf(const Activation& y) { return y.shape()[1]; }

  absl::Status AddLayer(const Node& node, Activation& x, Activation& y,
                        Network::Weighted& weighted) {
    Activation* inputs[] = {&x};
    const LayerContext context{graph_, node, inputs, y};
    const bool differentiable = y.differentiable();
    LatentBias* const latent = weighted.bias ? &*weighted.bias : nullptr;
    const QuantParams& params = weighted.weights.params();
    const bool rows = node.is("Conv") || node.attributes.IntOr("transB", 0) != 0;
    if (compute_ == TrainCompute::kBf16 && weighted.weights.learned() &&
        (params.per_tensor() || params.axis == (rows ? 0 : 1))) {
      return Keep(MakeBf16Layer(context, weighted.weights, latent, *weighted.x), differentiable);
    }
    return Keep(node.is("Conv") ? MakeConv(context, weighted.weights, latent)
                                : MakeProduct(context, weighted.weights, latent),
                differentiable);
  }

  Graph graph_;
  bool learn_ranges_;
  int weight_bits_;
  TrainCompute compute_;
  TiedScales tied_;
  std::unique_ptr<Network> network_{new Network()};
  std::map<NodeId, Network::Scale*> scales_;  ///< By the root of those tied together.
  std::map<ValueId, ActivationScale*> scale_of_;
};

absl::StatusOr<std::unique_ptr<Network>> Network::Build(const Graph& qdq, int64_t batch,
                                                        bool learn_ranges, int weight_bits,
                                                        TrainCompute compute) {
  Graph graph = qdq;
  CutSoftmax(graph);
  for (const ValueId input : graph.inputs) {
    std::optional<Shape>& shape = graph.mutable_value(input).shape;
    if (shape && shape->rank() > 0) (*shape)[0] = batch;
  }
  OCTET_RETURN_IF_ERROR(InferShapes(graph));
  FoldConstants(graph);
  return NetworkBuilder(std::move(graph), learn_ranges, weight_bits, compute).Run();
}

absl::Status Network::Forward() {
  for (const auto& weighted : weighted_) {
    if (!weighted->weights.learned()) continue;
    weighted->weights.Refresh();
    if (weighted->bias) weighted->bias->Refresh(weighted->weights, *weighted->x);
  }
  for (const Taught& taught : layers_) OCTET_RETURN_IF_ERROR(taught.layer->Forward());
  return absl::OkStatus();
}

absl::Status Network::Backward() {
  for (const auto& [id, activation] : activations_) activation->ClearGradient();
  for (const auto& scale : scales_) scale->scale.parameter().gradients[0] = 0;
  for (const Taught& taught : layers_ | std::views::reverse) {
    if (taught.differentiable) OCTET_RETURN_IF_ERROR(taught.layer->Backward());
  }
  for (const auto& weighted : weighted_) {
    if (!weighted->weights.learned()) continue;
    weighted->weights.PullGradient();
    if (weighted->bias) weighted->bias->PullGradient();
  }
  return absl::OkStatus();
}

std::vector<Parameter*> Network::parameters() {
  std::vector<Parameter*> parameters;
  for (const auto& weighted : weighted_) {
    if (!weighted->weights.learned()) continue;
    parameters.push_back(&weighted->weights.parameter());
    if (weighted->bias) parameters.push_back(&weighted->bias->parameter());
  }
  for (const auto& scale : scales_) {
    if (scale->scale.learned()) parameters.push_back(&scale->scale.parameter());
  }
  return parameters;
}

std::vector<Network::LearnedLayer> Network::learned_layers() const {
  std::vector<LearnedLayer> layers;
  for (const auto& weighted : weighted_) {
    if (weighted->weights.learned()) layers.push_back({weighted->result, &weighted->weights});
  }
  return layers;
}

void Network::WriteTo(Graph& graph) const {
  for (const auto& weighted : weighted_) {
    if (!weighted->weights.learned()) continue;
    weighted->weights.WriteTo(graph);
    if (weighted->bias) weighted->bias->WriteTo(graph, weighted->weights, *weighted->x);
  }
  for (const auto& scale : scales_) {
    for (const ValueId id : scale->constants) {
      Tensor constant(DType::kF32, graph.value(id).constant.shape());
      constant.mutable_span<float>()[0] = scale->scale.scale();
      graph.mutable_value(id).constant = std::move(constant);
    }
  }
}

}  // namespace octet::train
