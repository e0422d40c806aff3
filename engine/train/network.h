// A QDQ graph as a network that is trained: layers in order, the activations between them, and what is learned.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/train/layer.h"
#include "engine/train/train.h"

namespace octet::train {

/// Makes what the only output's last Softmax or LogSoftmax (along the last axis) reads the output instead, also where only a pair of
/// Q and DQ is behind that; nothing where there is none. True where there was one.
bool CutSoftmax(Graph& graph);

/// Conv, Gemm or MatMul.
bool IsLayer(const Node& node);
/// The DequantizeLinear of constant integers that a layer reads as its weights, or kNone, as for any other node.
NodeId DequantizerOfWeights(const Graph& graph, const Node& node);

/// Holds memory for one batch of a fixed size. Not thread-safe; runs on the calling thread's OpenMP team.
class Network {
 public:
  /// From a graph of the form that static quantization writes or ReadStart gives, for `batch` samples at once. Layers with weights of
  /// FP32 keep these, and so do layers whose input is on no grid, their weights behind DequantizeLinear. `learn_ranges`: else the scales of the activations stay. Those of values that follow from the inputs alone always do: their grids lie on the
  /// sensor's integers. `weight_bits`: as QuantizeRecipe has it.
  /// Errors: UNIMPLEMENTED naming the node that training does not know; as InferShapes for a batch that the model does not take.
  /// `compute`: what layers with learned weights compute in; those with scales per input channel, which no tool writes, in f32.
  static absl::StatusOr<std::unique_ptr<Network>> Build(const Graph& qdq, int64_t batch,
                                                        bool learn_ranges, int weight_bits = 8,
                                                        TrainCompute compute = TrainCompute::kF32);

  /// In the order of the graph's inputs; whoever trains fills them.
  std::vector<Activation*> inputs() const { return inputs_; }
  /// What the graph's only output is; its gradient is to be filled before Backward().
  Activation& output() { return *output_; }

  absl::Status Forward();
  /// Fills the gradients of parameters(). Requires: Forward() of this batch.
  absl::Status Backward();
  /// A pair of Q and DQ: what it reads, by name, and its result.
  struct Pair {
    std::string value;
    Activation* rounded;
  };
  const std::vector<Pair>& pairs() const { return pairs_; }
  /// A layer whose weights are learned: what it makes, by name, and these, whose gradients Backward() fills.
  struct LearnedLayer {
    std::string result;
    LatentWeights* weights;
  };
  std::vector<LearnedLayer> learned_layers() const;
  /// All that is learned, in an order that follows from the graph.
  std::vector<Parameter*> parameters();

  /// Puts what was learned into the graph that Build had, or a copy of it.
  void WriteTo(Graph& graph) const;

 private:
  friend class NetworkBuilder;

  struct Scale {
    ActivationScale scale;
    std::vector<ValueId> constants;  ///< Where the file has it.
  };
  struct Weighted {
    std::string result;  ///< The layer's, by name.
    LatentWeights weights;
    std::optional<LatentBias> bias;
    const ActivationScale* x;  ///< Of the input, for the bias; null where weights are not learned.
  };

  struct Taught {
    std::unique_ptr<Layer> layer;
    bool differentiable;  ///< Else nothing that is learned lies before its output.
  };

  Network() = default;

  std::map<ValueId, std::unique_ptr<Activation>> activations_;
  std::vector<std::unique_ptr<Scale>> scales_;
  std::vector<std::unique_ptr<Weighted>> weighted_;
  std::vector<Taught> layers_;
  std::vector<Pair> pairs_;
  std::vector<Activation*> inputs_;
  Activation* output_ = nullptr;
};

}  // namespace octet::train
