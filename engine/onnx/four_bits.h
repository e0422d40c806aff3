// INT4 and UINT4 in a graph that is being read: which values are so, and what keeps them within 4 bits.
#pragma once

#include <optional>
#include <unordered_map>

#include "absl/status/status.h"

#include "engine/graph/graph.h"

namespace octet {

/// Octet holds an INT4 in an I8 and a UINT4 in a U8, an element a byte, and behind the reader nothing knows the difference: what
/// makes such a value in ONNX saturates at 4 bits by a node of its own.
///
///   x -> QuantizeLinear(s, z:u4) -> y:u4    =>  x -> QuantizeLinear(s, z:u8) -> Clip(0, 15) -> y:u8
///   x -> Cast {to=INT4} -> y:i4             =>  x -> Cast {to=FLOAT} -> QuantizeLinear(1, 0:i8) -> Clip(-8, 7) -> y:i8      CastLike alike
///   input x:i4 -> ..                        =>  input x:i8 -> Clip(-8, 7) -> ..             requests have no 4 bits either
///
/// All else that ONNX has for these types moves, counts or dequantizes them, and is the same on bytes.
/// Thread-safety: none. Source: ONNX, "4 bit integer types"; Cast-21 (half to even, saturating as onnx.reference and ONNX Runtime
/// do), QuantizeLinear-21.
class FourBits {
 public:
  /// `value` is INT4 when held in I8, UINT4 when in U8.
  void Mark(ValueId value, DType held_as) { held_as_.insert_or_assign(value, held_as); }
  /// What holds it; nullopt for a value that is not known to be of 4 bits.
  std::optional<DType> HeldAs(ValueId value) const;

  /// Rewrites the graph as drawn above; `opset` is that of nodes which no node of the file stands for. A body's inputs are
  /// bounded where they come from. Requires: the graph is sorted, and what the file declares is marked. It is sorted again.
  /// Errors: UNIMPLEMENTED naming node, value and type where an operator has 4 bits that ONNX does not have them for.
  absl::Status Rewrite(Graph& graph, bool is_body, int opset);

 private:
  std::optional<DType> MadeBy(const Node& node) const;
  absl::Status CheckOperator(const Graph& graph, const Node& node) const;
  void BoundInputs(Graph& graph, int opset) const;

  std::unordered_map<ValueId, DType> held_as_;
};

}  // namespace octet
