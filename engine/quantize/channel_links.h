// Which channels of which activations only a common factor can scale: the graph's half of channel equalization.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "engine/graph/graph.h"
#include "engine/quantize/selection.h"

namespace octet {

/// Activations that are linked by operators through which a positive factor per channel passes.
struct ChannelComponent {
  std::vector<ValueId> values;
  std::vector<WeightedNode> writers;  ///< Their outputs are here.
  std::vector<WeightedNode> readers;  ///< Their inputs are here.
};

/// Links the channels (axis 1) of the activations: through Relu, LeakyRelu, Clip from 0, pools and Identity one to one,
/// through Add both inputs' and the output's, through Concat with their offsets, through Flatten and its like where the
/// channels stay the only extent. Two linked channels are in one class.
/// Requires: shapes inferred.
class ChannelLinks {
 public:
  explicit ChannelLinks(const Graph& graph);

  /// Those that can be scaled: written and read by weighted nodes, and touched by nothing that factors do not pass.
  const std::vector<ChannelComponent>& components() const { return components_; }
  /// The class of one channel of a value, in [0, classes()); kNone for a value without channels.
  int ClassOf(ValueId value, size_t channel) const;
  int classes() const { return static_cast<int>(classes_.size()); }
  /// Where the value is the output of Clip(0, max): max.
  std::optional<float> UpperClip(ValueId value) const;

 private:
  std::map<ValueId, int64_t> first_;  ///< Value -> where its channels start in classes_.
  std::vector<int> classes_;
  std::vector<ChannelComponent> components_;
  std::map<ValueId, float> clips_;
};

}  // namespace octet
