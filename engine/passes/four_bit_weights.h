// Constant weights of a product that 4 bits hold.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/graph/graph.h"
#include "engine/passes/pass.h"

namespace octet {

/// real[n, k] = scales[n, b] * (q[n, k] - zero_points[n, b]), b = k / block, as octet:FourBitMatMul reads it.
struct FourBitWeights {
  Tensor integers;     ///< U8 [N, (K + 1) / 2], two in a byte: see PackFourBits.
  Tensor scales;       ///< F32 [N, blocks]
  Tensor zero_points;  ///< I8 [N, blocks]; none when all are 0.
  int64_t k = 0;
  int64_t block = 0;
};

/// When `reals`, [K, N] or, transposed, [N, K], is DequantizeLinear of 8-bit constants that lie within 16 neighbouring integers, with
/// scales per tensor, per column n or in blocks along K: these. Else nullopt, as where kernels cannot read the blocks.
std::optional<FourBitWeights> ReadFourBitWeights(const Graph& graph, ValueId reals,
                                                 bool transposed);

/// The products whose weights pack_four_bits takes. Before a graph is cut, canonical_matmul does not run yet, but fold_constants does:
/// weights in blocks are packed there and then, once for all plans, or they would be reals in all of them.
enum class FourBitProducts : uint8_t {
  kNothing,    ///< The pass does not run.
  kCanonical,  ///< octet:MatMul.
  kPlain,  ///< ONNX's MatMul too, with weights in blocks: no other pass will write octet:MatMul.
};
FourBitProducts FourBitProductsOf(const PassContext& context);

/// True for a DequantizeLinear in blocks that products alone read, of which pack_four_bits will make 4-bit weights: not to be
/// folded into reals.
bool StaysInFourBits(const Graph& graph, NodeId node, FourBitProducts products);

}  // namespace octet
