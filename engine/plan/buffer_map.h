// Which values share a buffer, and where each buffer is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/graph/graph.h"

namespace octet {

/// Where the bytes of a value are when a plan runs.
struct Location {
  enum class Kind : uint8_t {
    kNowhere,   ///< Absent, or a value that no step makes.
    kArena,     ///< Buffer `index` of the arena.
    kInput,     ///< The caller's input `index`.
    kOutput,    ///< The caller's output `index`.
    kConstant,  ///< The constant value `index` (a ValueId).
  };
  Kind kind = Kind::kNowhere;
  int32_t index = 0;
  bool operator==(const Location&) const = default;
};

/// Groups values into buffers: views share the buffer of what they view from the start, in-place steps
/// merge their output with the input that they overwrite. Positions are indices into graph.order().
class BufferMap {
 public:
  /// Requires: static shapes; `is_view[p]` tells which nodes of order() only rename their input 0.
  BufferMap(const Graph& graph, const std::vector<bool>& is_view);

  /// True when the buffer of input `slot` of the node at `position` is an intermediate that nobody reads later
  /// (nor through another slot), and is as large as output 0, which is no output of the graph.
  bool MayOverwrite(int position, size_t slot) const;
  /// Output 0 of the node at `position` takes the buffer of its input `slot`. Requires: MayOverwrite.
  void Overwrite(int position, size_t slot);

  Location location(ValueId id) const { return groups_[Find(id)].location; }

  struct Buffer {
    size_t bytes = 0;
    int first = 0;
    int last = 0;
  };
  /// Numbers the arena buffers: their lives, for location().index. Call once, after every Overwrite.
  std::vector<Buffer> TakeArenaBuffers();

  /// Graph outputs whose bytes are elsewhere (an input, a constant, another output's buffer) and must be copied
  /// when the steps are done.
  struct Copy {
    Location from;
    int output = 0;
    size_t bytes = 0;
  };
  std::vector<Copy> OutputCopies() const;

 private:
  struct Group {
    Location location;
    size_t bytes = 0;
    int first = -1;  ///< Position of the step that writes it first.
    int last = -1;   ///< Position of the last step that reads or writes it.
    int reader_slots_at_last = 0;
  };

  int32_t Find(ValueId id) const;
  void Merge(ValueId into, ValueId id);
  void PlaceOutputs();

  const Graph& graph_;
  std::vector<int32_t> parent_;  ///< Union-find forest over values.
  std::vector<Group> groups_;    ///< Valid at the roots.
};

}  // namespace octet
