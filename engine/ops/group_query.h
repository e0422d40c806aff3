// What com.microsoft's GroupQueryAttention is told, for its body and for its fast form.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/step.h"

namespace octet {

/// Attributes and extents: N heads of queries, K of keys and values, of H elements each.
struct GroupQuery {
  /// Inputs of the node.
  enum Input : size_t {
    kQuery,  ///< [B, S, N H], with keys and values behind it where those inputs are absent: [B, S, (N + 2 K) H].
    kKey,  ///< [B, S, K H], as kValue.
    kValue,
    kPastKey,  ///< [B, K, P, H], as kPastValue.
    kPastValue,
    kLengths,  ///< seqlens_k [B] I32: of each sequence with its new positions, less one; -1: of none.
    kTotal,
    kCos,  ///< [M, R / 2], as kSin.
    kSin,
    kPositionIds,    ///< [B, S] I64.
    kAttentionBias,  ///< [B or 1, N or 1, S, T].
    kHeadSink,       ///< [N].
    kInputs
  };

  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t window = -1;  ///< How many positions before its own one sees; -1: all.
  float scale = 0;      ///< Of the scores, 1 / sqrt(head size) where the attribute is 0.
  float softcap = 0;    ///< 0: none.
  bool smooth = false;
  bool rotary = false;
  bool interleaved = false;
  bool packed = false;  ///< Keys and values lie behind the query.
  int64_t batch = 0;
  int64_t rows = 0;      ///< S: new positions.
  int64_t total = 0;     ///< T: the bound of all sequences' lengths, with the new positions.
  int64_t capacity = 0;  ///< Positions that the past has room for.
  int64_t head_size = 0;

  /// The sequences begin here, whatever lies in the past; else each goes on behind its own length.
  bool begins() const { return rows == total; }
  int64_t group() const { return heads / kv_heads; }
  /// Positions of the new past.
  int64_t present() const { return std::max(capacity, total); }
  /// Elements of a row of the query input.
  int64_t query_width() const { return (heads + (packed ? 2 * kv_heads : 0)) * head_size; }
};

/// Input `slot` of the node as it is known; null where absent.
using GroupQueryInputs = absl::FunctionRef<const Value*(size_t slot)>;

/// Nullopt while an extent is missing, or how long the sequences are. INVALID_ARGUMENT naming the attribute or the input, expected
/// and got.
absl::StatusOr<std::optional<GroupQuery>> ReadGroupQuery(const Attributes& attributes,
                                                         GroupQueryInputs inputs);

/// The fast form: the past is copied, new keys are rotated into their places behind it, and a few queries at a time meet the keys
/// that they see; nothing is transposed, and no scores are kept. UNIMPLEMENTED where the past is not FP32.
absl::StatusOr<std::unique_ptr<Step>> LowerGroupQuery(const LowerContext& context);

}  // namespace octet
