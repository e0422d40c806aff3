// Products with a constant matrix in other words, as those that the quantizer knows.
#pragma once

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"

namespace octet {

/// Rewrites products of an activation and a constant matrix until AsWeighted knows them; returns how many it rewrote.
///   MatMul(x, B:[1,K,N])         =>  MatMul(x, B:[K,N]), and Unsqueeze where x has fewer axes than B
///   MatMul(A:[M,K], x:[..,K,N])  =>  Transpose(MatMul(Transpose(x), A':[K,M]))
///   Gemm {alpha, beta, transA}   =>  Gemm(Transpose(x), alpha B, beta C); a C that has not one element per output channel is a
///                                    Mul by beta and an Add behind it
///   Gemm(A:[M,K], x, C)          =>  Transpose(Gemm(Transpose(x), alpha A, beta C)); a C that has not one element per row of A is a
///                                    Mul by beta and an Add behind it
///   FusedMatMul {alpha, transA, transB, transBatchA, transBatchB}  =>  MatMul(Transpose(x), alpha B'), and as MatMul above
///   Einsum("bsd,dhe->bshe", x, B)  =>  Reshape(MatMul(x, Reshape(B))), and others that are one product with a matrix
/// What would no longer be finite so stays as it is. Requires: InferShapes has run. Errors: as ExpandFunction and InferShapes.
absl::StatusOr<int> WritePlainProducts(Graph& graph);

}  // namespace octet
