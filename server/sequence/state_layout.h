// What a model keeps between the requests of a sequence, and what is left of its interface for clients.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "config/model_config.h"
#include "engine/engine.h"

namespace octet {

/// One tensor that a request hands on to the next one of its sequence.
struct StateTensor {
  std::string input_name;
  std::string output_name;
  size_t input = 0;            ///< Its place in the model's signature.
  TensorSpec spec;             ///< Of one sequence: extent 0 is 1 where the model batches.
  size_t offset = 0;           ///< Of its bytes in a sequence's state, unless it grows.
  Tensor initial;              ///< What the first request of a sequence gets...
  bool starts_at_zero = true;  ///< ...which is zeros.

  /// The model leaves extents open: each run says what they are behind it.
  bool grows() const { return !spec.shape.is_static(); }
  /// Whether a run may leave this.
  bool Takes(const TensorSpec& made) const;
};

/// A model with state as its clients see it: they neither send nor get what the server keeps. Immutable.
struct StateLayout {
  /// Where an output of the model goes.
  struct OutputPlace {
    bool is_state = false;
    size_t index = 0;  ///< Into `states`, else into clients.outputs.
  };

  Signature clients;                 ///< The model's, without its states.
  std::vector<size_t> input_places;  ///< Of clients.inputs in the model's signature.
  std::vector<OutputPlace> outputs;  ///< One per output of the model.
  std::vector<StateTensor> states;
  size_t bytes = 0;  ///< Of one sequence's state, without those that grow.

  /// `rules`: by the input that takes a state. INVALID_ARGUMENT naming the rule, expected and got: an input or output that
  /// the model does not have, of different types or shapes, of BYTES, of no known rank, an initial shape that the model does not
  /// take, or an initial value that the type cannot hold.
  static absl::StatusOr<StateLayout> Make(const Signature& signature,
                                          const std::map<std::string, ModelConfig::State>& rules);

  /// True when a state of the other one can be gone on with.
  bool Continues(const StateLayout& other) const;
};

}  // namespace octet
