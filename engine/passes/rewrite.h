// Edits that passes make: new values, constants and nodes, and taking nodes out.
#pragma once

#include <initializer_list>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/graph/graph.h"
#include "engine/passes/permutation.h"

namespace octet {

/// The opset of the ONNX nodes that passes create, but for operators that are younger.
inline constexpr int kPassOpset = 13;

/// A node of `op`, named after `origin` (the node that it comes from).
Node MakeNode(std::string_view op, const Node& origin, std::vector<ValueId> inputs,
              std::vector<ValueId> outputs, std::string_view domain = kOnnxDomain);

/// A new value named after `hint`; with dtype, shape and quantization where they are given.
ValueId AddValue(Graph& graph, std::string_view hint, DType dtype,
                 std::optional<Shape> shape = std::nullopt,
                 std::optional<QuantParams> quant = std::nullopt);
/// A new value like `like` (dtype, shape, quantization), named after it.
ValueId AddValueLike(Graph& graph, ValueId like, std::string_view suffix);

ValueId AddFloats(Graph& graph, std::string_view hint, Shape shape, std::vector<float> floats);
ValueId AddInts(Graph& graph, std::string_view hint, std::span<const int64_t> ints);

/// True when every reader of `from` may read `to` instead: a graph output cannot become another output, an input
/// or a constant, since its name must stay.
bool MayReplace(const Graph& graph, ValueId from, ValueId to);
/// Takes out a node that hands input `slot` through: readers of output 0 read that input. False when it may not.
bool Bypass(Graph& graph, NodeId node, size_t slot = 0);

/// Makes `node` write what `next` wrote (its output 0), and removes `next`, which was the only reader of node's
/// output 0.
void TakeOver(Graph& graph, NodeId node, NodeId next);
/// Replaces the node that writes `output`: `replacement` is inserted before `old` and writes old's output 0; `old` is
/// removed. Returns the new node.
NodeId Replace(Graph& graph, NodeId old, Node replacement);

/// Calls rewrite(graph, node) for the nodes of ONNX with one of these names (none named: for every node), in the order as it is
/// before the first call, without those that earlier calls removed. Returns how often it answered true.
int RewriteEach(Graph& graph, std::initializer_list<std::string_view> ops,
                bool (*rewrite)(Graph& graph, NodeId node));

/// Puts Transpose(perm) between input `slot` of a node and what it read; a constant is transposed at once, and a
/// Transpose that undoes one is left out. Values with fewer axes than perm get leading axes of extent 1.
/// Requires: InputTakesTranspose.
void TransposeInput(Graph& graph, NodeId node, size_t slot, const Permutation& perm);
/// True for values of perm's rank, and for constants of a lower one.
bool InputTakesTranspose(const Graph& graph, NodeId node, size_t slot, int rank);
/// Lets the node write another value, whose Transpose(perm) is what it wrote before.
void TransposeOutput(Graph& graph, NodeId node, size_t slot, const Permutation& perm);

}  // namespace octet
