// GroupQueryAttention: the caches are written first, then each thread takes a few queries of one group of heads:
//
//   past, k, v ---- copied, rotated ----> present keys and values [B, K, P, H]
//   q -- rotated, scaled --> 16 rows --> scores with the keys that they see --> Softmax --> sums of values --> y
#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/graph/stored_value.h"
#include "engine/ops/attention_rows.h"
#include "engine/ops/group_query.h"
#include "engine/ops/row_math.h"
#include "engine/ops/vector_math.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"
#include "engine/tensor/tensor.h"

namespace octet {
namespace {

/// Queries whose scores lie in the cache together.
constexpr int64_t kQueryBlock = 16;

/// y = x with pairs of its first 2 * `pairs` elements turned: halves of them, or neighbours.
OCTET_CPU_CLONES void TurnHalves(const float* x, const float* cos, const float* sin, int64_t pairs,
                                 float* y) {
#pragma GCC ivdep
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = x[i];
    const float b = x[pairs + i];
    y[i] = a * cos[i] - b * sin[i];
    y[pairs + i] = b * cos[i] + a * sin[i];
  }
}
OCTET_CPU_CLONES void TurnNeighbours(const float* x, const float* cos, const float* sin,
                                     int64_t pairs, float* y) {
#pragma GCC ivdep
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = x[2 * i];
    const float b = x[2 * i + 1];
    y[2 * i] = a * cos[i] - b * sin[i];
    y[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

/// x = cap * tanh(x / cap).
OCTET_CPU_CLONES void CapRow(float* x, float cap, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) x[i] = cap * TanhF(x[i] / cap);
}

OCTET_CPU_CLONES void AddRow(const float* x, int64_t n, float* sums) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) sums[i] += x[i];
}

/// Heads of an input [B, S, width], the first of them at `first`.
struct HeadRows {
  size_t input = 0;
  RealFormat format;
  int64_t width = 0;
  int64_t first = 0;
};

/// Keys that a query sees, by position.
struct Seen {
  int64_t begin = 0;
  int64_t end = 0;
};

class GroupQueryStep final : public Step {
 public:
  GroupQueryStep(const LowerContext& context, const GroupQuery& g)
      : g_(g),
        output_(RealFormatOf(context.output())),
        threads_(std::max(context.target.threads, 1)) {
    const auto rows = [&](size_t slot, int64_t width, int64_t first) {
      return HeadRows{slot, RealFormatOf(context.input(slot)), width, first};
    };
    const int64_t keys = g.kv_heads * g.head_size;
    const int64_t queries = g.heads * g.head_size;
    query_ = rows(GroupQuery::kQuery, g.query_width(), 0);
    new_[0] = g.packed ? rows(GroupQuery::kQuery, g.query_width(), queries)
                       : rows(GroupQuery::kKey, keys, 0);
    new_[1] = g.packed ? rows(GroupQuery::kQuery, g.query_width(), queries + keys)
                       : rows(GroupQuery::kValue, keys, 0);
    if (g.rotary) {
      angles_ = (*context.input(GroupQuery::kCos).shape)[0];
      pairs_ = (*context.input(GroupQuery::kCos).shape)[1];
      wide_positions_ = context.has_input(GroupQuery::kPositionIds) &&
                        context.input(GroupQuery::kPositionIds).dtype == DType::kI64;
      has_positions_ = context.has_input(GroupQuery::kPositionIds);
    }
    if (context.has_input(GroupQuery::kAttentionBias)) {
      has_bias_ = true;
      const Shape& bias = *context.input(GroupQuery::kAttentionBias).shape;
      bias_head_ = bias[1] == 1 ? 0 : g.rows * g.total;
      bias_sequence_ = bias[0] == 1 ? 0 : bias[1] * g.rows * g.total;
    }
    has_sink_ = context.has_input(GroupQuery::kHeadSink);
    for (size_t i = 0; i < 2; ++i) is_written_[i] = context.node.output(1 + i) != kNone;
  }

  bool reads_input(int i) const override { return i != static_cast<int>(GroupQuery::kTotal); }

  size_t scratch_bytes() const override {
    int64_t floats = threads_ * ThreadFloats();
    for (const bool written : is_written_) floats += written ? 0 : CacheFloats();
    return static_cast<size_t>(floats) * sizeof(float);
  }

  absl::Status Run(const StepArgs& args) const override {
    OCTET_RETURN_IF_ERROR(CheckLengths(args));
    if (g_.rotary) OCTET_RETURN_IF_ERROR(CheckPositions(args));
    auto* scratch = reinterpret_cast<float*>(args.scratch);
    ParallelParts(g_.batch * g_.kv_heads, 1, threads_,
                  [&](int64_t part, int64_t first, int64_t last) {
                    float* row = scratch + part * ThreadFloats();
                    for (int64_t task = first; task < last; ++task) {
                      for (const size_t which : {0, 1})
                        Append(args, which, task / g_.kv_heads, task % g_.kv_heads, row);
                    }
                  });
    const int64_t blocks = (g_.group() * g_.rows + kQueryBlock - 1) / kQueryBlock;
    ParallelParts(g_.batch * g_.kv_heads * blocks, 1, threads_,
                  [&](int64_t part, int64_t first, int64_t last) {
                    for (int64_t task = first; task < last; ++task)
                      Attend(args, task / blocks, task % blocks, scratch + part * ThreadFloats());
                  });
    return absl::OkStatus();
  }

 private:
  int64_t HeadFloats() const { return AlignUpFloats(g_.head_size); }
  /// Beside those of the keys, one for the score that no value belongs to.
  int64_t ScoreFloats() const { return AlignUpFloats(g_.total + 1); }
  /// Queries, sums, scores, and a row that is not stored as floats.
  int64_t ThreadFloats() const {
    return kQueryBlock * (2 * HeadFloats() + ScoreFloats()) + HeadFloats();
  }
  int64_t CacheFloats() const {
    return AlignUpFloats(g_.batch * g_.kv_heads * g_.present() * g_.head_size);
  }

  /// seqlens_k of sequence `b`. A row that a batch is filled up with, whose mask is all zeros, begins.
  int64_t LastOf(const StepArgs& args, int64_t b) const {
    const int32_t last = static_cast<const int32_t*>(args.inputs[GroupQuery::kLengths])[b];
    return last == -1 ? g_.rows - 1 : last;
  }
  /// Positions of sequence `b` that came before.
  int64_t PastOf(const StepArgs& args, int64_t b) const {
    if (g_.begins()) return 0;
    return g_.rows == 0 ? g_.total : LastOf(args, b) + 1 - g_.rows;
  }

  absl::Status CheckLengths(const StepArgs& args) const {
    if (g_.begins() || g_.rows == 0) return absl::OkStatus();
    for (int64_t b = 0; b < g_.batch; ++b) {
      const int64_t last = LastOf(args, b);
      if (last >= g_.rows - 1 && last < g_.total) continue;
      return InvalidArgument("'seqlens_k' of sequence {}: expected {} to {}, got {}", b,
                             g_.rows - 1, g_.total - 1, last);
    }
    return absl::OkStatus();
  }

  absl::Status CheckPositions(const StepArgs& args) const {
    for (int64_t b = 0; b < g_.batch; ++b) {
      for (int64_t s = 0; s < g_.rows; ++s) {
        const int64_t position = AngleOf(args, b, s);
        if (position >= 0 && position < angles_) continue;
        return InvalidArgument(
            "position {} of sequence {}: expected 0 to {}, as 'cos_cache' has, "
            "got {}",
            s, b, angles_ - 1, position);
      }
    }
    return absl::OkStatus();
  }

  /// The row of the caches of cosines and sines for new position `s`.
  int64_t AngleOf(const StepArgs& args, int64_t b, int64_t s) const {
    if (!has_positions_) return PastOf(args, b) + s;
    const void* ids = args.inputs[GroupQuery::kPositionIds];
    const int64_t at = b * g_.rows + s;
    return wide_positions_ ? static_cast<const int64_t*>(ids)[at]
                           : int64_t{static_cast<const int32_t*>(ids)[at]};
  }

  float* Cache(const StepArgs& args, size_t which) const {
    if (is_written_[which]) return static_cast<float*>(args.outputs[1 + which]);
    float* own = reinterpret_cast<float*>(args.scratch) + threads_ * ThreadFloats();
    return own + (which == 1 && !is_written_[0] ? CacheFloats() : 0);
  }

  const float* Head(const StepArgs& args, const HeadRows& rows, int64_t row, int64_t head,
                    float* buffer) const {
    return rows.format.Read(args.inputs[rows.input],
                            row * rows.width + rows.first + head * g_.head_size, g_.head_size,
                            buffer);
  }

  /// y = x at new position `s`. Requires: rotary.
  void Turn(const StepArgs& args, const float* x, int64_t b, int64_t s, float* y) const {
    const int64_t at = AngleOf(args, b, s) * pairs_;
    const float* cos = static_cast<const float*>(args.inputs[GroupQuery::kCos]) + at;
    const float* sin = static_cast<const float*>(args.inputs[GroupQuery::kSin]) + at;
    if (g_.interleaved) {
      TurnNeighbours(x, cos, sin, pairs_, y);
    } else {
      TurnHalves(x, cos, sin, pairs_, y);
    }
    std::copy(x + 2 * pairs_, x + g_.head_size, y + 2 * pairs_);
  }

  /// Writes the keys (0) or values (1) of one head: those of the past, new ones, zeros.
  void Append(const StepArgs& args, size_t which, int64_t b, int64_t head, float* row) const {
    const int64_t at = b * g_.kv_heads + head;
    const int64_t past = PastOf(args, b);
    float* to = Cache(args, which) + at * g_.present() * g_.head_size;
    float* const end = to + g_.present() * g_.head_size;
    if (past > 0) {
      const auto* from = static_cast<const float*>(args.inputs[GroupQuery::kPastKey + which]);
      to = std::copy_n(from + at * g_.capacity * g_.head_size, past * g_.head_size, to);
    }
    for (int64_t s = 0; s < g_.rows; ++s, to += g_.head_size) {
      const float* x = Head(args, new_[which], b * g_.rows + s, head, row);
      if (which == 0 && g_.rotary) {
        Turn(args, x, b, s, to);
      } else {
        std::copy_n(x, g_.head_size, to);
      }
    }
    std::fill(to, end, 0.0F);
  }

  /// Of a query at `position`.
  Seen SeenFrom(int64_t position) const {
    return {g_.window < 0 ? 0 : std::max<int64_t>(position - g_.window, 0), position + 1};
  }

  /// Queries [block * kQueryBlock, ...) of a group: its heads one behind the other, S queries each.
  void Attend(const StepArgs& args, int64_t group, int64_t block, float* own) const {
    const int64_t b = group / g_.kv_heads;
    const int64_t first = block * kQueryBlock;
    const int64_t count = std::min(kQueryBlock, g_.group() * g_.rows - first);
    const int64_t past = PastOf(args, b);
    float* const queries = own;
    float* const sums = queries + kQueryBlock * HeadFloats();
    float* const scores = sums + kQueryBlock * HeadFloats();
    float* const row = scores + kQueryBlock * ScoreFloats();
    const auto head_of = [&](int64_t i) {
      return group % g_.kv_heads * g_.group() + (first + i) / g_.rows;
    };
    const auto new_of = [&](int64_t i) { return (first + i) % g_.rows; };
    Seen all{g_.total, 0};
    for (int64_t i = 0; i < count; ++i) {
      float* query = queries + i * HeadFloats();
      const float* x = Head(args, query_, b * g_.rows + new_of(i), head_of(i), row);
      if (g_.rotary) {
        Turn(args, x, b, new_of(i), query);
        x = query;
      }
      ScaleRow(x, g_.scale, g_.head_size, query);
      const Seen seen = SeenFrom(past + new_of(i));
      all = {std::min(all.begin, seen.begin), std::max(all.end, seen.end)};
    }
    const int64_t cached = (group * g_.present() + all.begin) * g_.head_size;
    const int64_t keys = all.end - all.begin;
    ScoreKeys(queries, HeadFloats(), count, Cache(args, 0) + cached, keys, g_.head_size, scores,
              ScoreFloats());
    for (int64_t i = 0; i < count; ++i) {
      const Seen seen = SeenFrom(past + new_of(i));
      float* x = scores + i * ScoreFloats();
      Weigh(args, b, head_of(i), new_of(i), seen, x + seen.begin - all.begin);
      std::fill(x, x + seen.begin - all.begin, 0.0F);
      std::fill(x + seen.end - all.begin, x + keys, 0.0F);
    }
    MixValues(scores, ScoreFloats(), count, Cache(args, 1) + cached, keys, g_.head_size, sums,
              HeadFloats());
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = (b * g_.rows + new_of(i)) * g_.heads + head_of(i);
      output_.Write(sums + i * HeadFloats(), args.outputs[0], at * g_.head_size, g_.head_size);
    }
  }

  /// Scores of the keys that are seen become shares. Writes one float behind them.
  void Weigh(const StepArgs& args, int64_t b, int64_t head, int64_t s, const Seen& seen,
             float* x) const {
    const int64_t n = seen.end - seen.begin;
    if (g_.softcap > 0) CapRow(x, g_.softcap, n);
    if (has_bias_) {
      const auto* bias = static_cast<const float*>(args.inputs[GroupQuery::kAttentionBias]);
      AddRow(bias + b * bias_sequence_ + head * bias_head_ + s * g_.total + seen.begin, n, x);
    }
    if (!has_sink_ && !g_.smooth) return SoftmaxRow(x, x, n);
    x[n] = has_sink_ ? static_cast<const float*>(args.inputs[GroupQuery::kHeadSink])[head] : 0.0F;
    SoftmaxRow(x, x, n + 1);
  }

  const GroupQuery g_;
  HeadRows query_;
  HeadRows new_[2];  ///< Keys, values.
  RealFormat output_;
  int64_t threads_;
  bool is_written_[2] = {};  ///< The new past is an output.
  int64_t angles_ = 0;       ///< Rows of the caches of cosines and sines.
  int64_t pairs_ = 0;        ///< Their width: pairs of a head's elements that are turned.
  bool has_positions_ = false;
  bool wide_positions_ = false;  ///< I64.
  bool has_bias_ = false;
  int64_t bias_head_ = 0;  ///< From one head's bias to the next one's, 0 where they share it.
  int64_t bias_sequence_ = 0;
  bool has_sink_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerGroupQuery(const LowerContext& context) {
  if (!context.node.post_ops.empty()) return Unimplemented("post-ops");
  const auto inputs = [&](size_t i) { return context.has_input(i) ? &context.input(i) : nullptr; };
  OCTET_ASSIGN_OR_RETURN(const auto g, ReadGroupQuery(context.node.attributes, inputs));
  if (!g) return Unimplemented("'total_sequence_length' is known only when it runs");
  for (const size_t i : {GroupQuery::kQuery, GroupQuery::kKey, GroupQuery::kValue}) {
    if (context.has_input(i) && !HasRealFormat(context.input(i)))
      return Unimplemented("values are neither float nor int8 with one scale");
  }
  if (context.node.output(0) == kNone || !HasRealFormat(context.output()))
    return Unimplemented("the result is neither float nor int8 with one scale");
  const auto is_f32 = [](const Value& value) { return value.dtype == DType::kF32 && !value.quant; };
  for (const size_t i : {GroupQuery::kPastKey, GroupQuery::kPastValue, GroupQuery::kCos,
                         GroupQuery::kSin, GroupQuery::kAttentionBias, GroupQuery::kHeadSink}) {
    if (context.has_input(i) && !is_f32(context.input(i)))
      return Unimplemented("the past, the rotation or what is added is not FP32");
  }
  for (const size_t i : {size_t{1}, size_t{2}}) {
    if (context.node.output(i) != kNone && !is_f32(context.output(i)))
      return Unimplemented("the new past is not FP32");
  }
  if (context.has_input(GroupQuery::kPositionIds) &&
      context.input(GroupQuery::kPositionIds).dtype != DType::kI64 &&
      context.input(GroupQuery::kPositionIds).dtype != DType::kI32) {
    return Unimplemented("'position_ids' are no integers of 32 or 64 bits");
  }
  context.layer.runs = "f32";
  context.layer.impl = "octet:group_query";
  context.layer.isa = AttentionRowsTarget();
  context.layer.macs = 2 * g->batch * g->heads * g->rows * g->total * g->head_size;
  return std::make_unique<GroupQueryStep>(context, *g);
}

}  // namespace octet
