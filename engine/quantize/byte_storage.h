// Constants that stay real in an int8 file, held in 8 bits.
#pragma once

#include <functional>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/quantizer.h"
#include "engine/quantize/statistics.h"

namespace octet {

/// Constants with fewer elements are not worth their scales.
inline constexpr int64_t kLeastStored = 1024;

/// Whether a graph is still good enough; asked for every graph that could be written.
using AcceptGraph = std::function<absl::StatusOr<bool>(const Graph&)>;

/// Puts F32 constants of at least kLeastStored elements with one reader behind a DequantizeLinear, so that the file holds bytes where
/// what computes stays in float, as far as `accept` takes the graph: all of them, or one by one, the largest first.
///   weights of Conv, Gemm and MatMul  w = s[c] q, rounded as the recipe rounds weights; c is the output channel, or absent
///   a Gather's table, axis 0          the Gather moves bytes, and its result is s[c] q; c is the index on the last axis
///   operands of Add, Sub, Mul         w = s[c] q; c is the index on the last axis
/// `statistics`: what weights are rounded by. `result` gets the graph, and a record of what was stored and what was not. Asks at most
/// 1 + 16 times. Errors: those of `accept`.
absl::Status StoreInBytes(const QuantizeRecipe& recipe, const Statistics& statistics,
                          const AcceptGraph& accept, QuantizeResult& result);

/// Does so with the tables of all Gathers, which quantizers round without looking at outputs (embeddings are
/// normalized next). Adds a record of each.
void StoreTablesInBytes(const QuantizeRecipe& recipe, Graph& graph,
                        std::vector<QuantizeRecord>& records);

}  // namespace octet
