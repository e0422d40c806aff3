// Which channels of which activations only a common factor can scale: the graph's half of channel equalization.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "engine/graph/graph.h"
#include "engine/quantize/selection.h"

namespace octet {

/// A constant operand with one element per channel of its node's result, which takes the channels' factors: a bias, or what scales.
struct ChannelConstant {
  NodeId node = kNone;
  size_t slot = 0;
};

/// Activations that are linked by operators through which a positive factor per channel passes.
struct ChannelComponent {
  std::vector<ValueId> values;
  std::vector<WeightedNode> writers;  ///< Their outputs are here.
  std::vector<WeightedNode> readers;  ///< Their inputs are here.
  /// Of results here. A normalization's scale, or a Mul's constant, is a writer, too: what it multiplies has no part in the factors.
  std::vector<ChannelConstant> constants;
  bool scaled_by_constants = false;  ///< Some of them are writers.
  /// A Slice or a Pad is between its values, as shortcuts into wider stages have it.
  bool joins_stages = false;
};

/// Links the channels of the activations: through Relu, LeakyRelu, Identity, Clip from 0 and scalar factors one to one,
/// through Add both inputs' and the output's, through Concat, Slice and Pad (by zeros) with their offsets. There are two kinds of channels:
///   axis 1      of convolutions and of matrices; pools pass them, Flatten and its like where the channels stay the only extent
///   the last    of what has three axes or more, those of products with constant matrices; a product of two activations passes
///               those of its right operand (the values of an attention), Transpose where the axis stays the last, and Reshape: where it
///               makes heads of channels, those at the same place in every head are linked, for they have one index then
/// Two linked channels are in one class. No value is in components of both kinds. Requires: shapes inferred.
class ChannelLinks {
 public:
  explicit ChannelLinks(const Graph& graph);

  /// Where the channels of a value in a component lie: 1, or -1 for the last axis.
  int AxisOf(ValueId value) const;
  /// How many there are; 0 for a value without channels.
  int64_t ChannelsOf(ValueId value) const;

  /// Those that can be scaled: written and read by weighted nodes, and touched by nothing that factors do not pass.
  const std::vector<ChannelComponent>& components() const { return components_; }
  /// The class of one channel of a value, in [0, classes()); kNone for a value without channels.
  int ClassOf(ValueId value, size_t channel) const;
  int classes() const { return static_cast<int>(classes_.size()); }
  /// Where the value is the output of Clip(0, max): max.
  std::optional<float> UpperClip(ValueId value) const;

 private:
  struct Channels {
    int64_t first = 0;  ///< In classes_.
    int64_t count = 0;
    int axis = 1;
  };

  std::map<ValueId, Channels> channels_;
  std::vector<int> classes_;
  std::vector<ChannelComponent> components_;
  std::map<ValueId, float> clips_;
};

}  // namespace octet
