// Constants that stay real in an int8 file, held in 8 bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/quantizer.h"
#include "engine/quantize/statistics.h"

namespace octet {

/// Graphs that are asked for one by one, at most.
inline constexpr size_t kMostStored = 16;

/// SQNR of a row of a table.
inline constexpr double kLeastRowDb = 20;

/// What the constants that somebody reads take in a file.
int64_t ConstantBytes(const Graph& graph);

/// Whether a graph is still good enough; asked for every graph that could be written.
using AcceptGraph = std::function<absl::StatusOr<bool>(const Graph&)>;

/// Puts F32 constants with one reader behind a DequantizeLinear, so that the file holds bytes where what computes stays in float, as far as
/// `accept` takes the graph: all of them, or one by one, the largest first.
///   weights of Conv, ConvTranspose, Gemm, MatMul  w = s[c] q, rounded as the recipe rounds weights; c is the output channel, or absent
///   weights W, R of LSTM, GRU, RNN     w = s[c] q; c is a gate's unit, or absent: the layer multiplies integers then (as in int8-dynamic)
///   a Gather's table, axis 0          the Gather moves bytes, and its result is s[c] q; c is the index on the last axis
///   operands of Add, Sub, Mul         w = s[c] q; c is the index on the last axis
/// Only constants that take half of their bytes at most then, scales and node included; no vectors (biases and factors per channel,
/// which passes fuse), nothing that is not finite, and no table with a row of which 8 bits leave less than kLeastRowDb, for nobody may have asked for
/// that row. `statistics`: what weights are rounded by. `result` gets the graph, and a record of what was stored and what was not. Asks at most
/// 1 + kMostStored times. Errors: those of `accept`.
absl::Status StoreInBytes(const QuantizeRecipe& recipe, const Statistics& statistics,
                          const AcceptGraph& accept, QuantizeResult& result);

/// Does so where nobody looks at outputs: with the tables of all Gathers, and the weights of layers, whose neighbours are in int8 on weights
/// of the same steps, and on activations in 8 bits besides. Layers that share their weights, by the same axis,
/// share the bytes and the DequantizeLinear. Adds a record of each constant.
void StoreUnseenInBytes(const QuantizeRecipe& recipe, Graph& graph,
                        std::vector<QuantizeRecord>& records);

}  // namespace octet
