// When a plan of many rows runs as several plans of fewer.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/graph/graph.h"

namespace octet {

/// True when every node computes row i of its output from row i of its activations alone. Knows the operators of
/// convolutional networks; of all others, and of shapes that are not static, it says false.
bool RowsAreIndependent(const Graph& graph, int64_t rows);

/// True when two graphs of one model, for different numbers of rows, have the same nodes, read the same constants and make rows
/// of the same shapes: a model may compute with the number of its rows, or otherwise for many than for few.
bool DifferInRowsAlone(const Graph& a, const Graph& b);

/// Lets a graph that was made for `rows` rows be bound to fewer: extents of `rows` in front are forgotten, and Reshapes to them
/// take their input's. Extents that were `rows` by chance are found by comparing what comes of it: DifferInRowsAlone.
void OpenRows(Graph& graph, int64_t rows);

struct SliceLimits {
  int threads = 1;
  size_t cache_bytes = 0;  ///< A core's own caches and its share of the common one.
  uint64_t max_bytes = 0;  ///< Graphs with more bytes than this in their values are not cut.
};

/// How many of the graph's `rows` rows to compute at a time on each thread: a divisor of rows / threads, or `rows` for all at
/// once on all threads. Minimises the bytes that one row's share of a run moves beyond the caches:
///
///     sum over layers (inputs + 2 outputs, when r (inputs + outputs) > cache) + (weights / r, when they are > cache)
///
/// where all at once share what they read of the weights. Of equals, slices on several threads win, which do not meet behind
/// every layer, then the largest. Requires: RowsAreIndependent.
int64_t RowsPerSlice(const Graph& graph, int64_t rows, const SliceLimits& limits);

}  // namespace octet
