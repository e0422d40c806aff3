// com.microsoft's GroupQueryAttention, the attention of decoders whose query heads share keys and values:
//   keys = past keys, then k;  values = past values, then v
//   y[n] = Softmax(softcap(scale * Q[n] K[n / G]^T) + mask) V[n / G],  G = num_heads / kv_num_heads
// The mask lets position p see p - local_window_size .. p, with -1 all up to p. Tensors: Q [B, N, S, H], K and V [B, N / G, T, H].
// Source: Ainslie et al. 2023; ONNX Runtime 1.21, docs/ContribOperators.md and contrib_ops/cpu/bert/gqa_attention_base.h.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "engine/ops/attention_heads.h"
#include "engine/ops/function.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Inputs: query, key, value, past_key, past_value, seqlens_k, total_sequence_length, cos_cache, sin_cache.
enum GroupQueryInput : size_t {
  kQuery,
  kKey,
  kValue,
  kPastKey,
  kPastValue,
  kLengths,
  kTotal,
  kCos,
  kSin
};

// Positions are constants of the body; more are no sequence but a damaged file.
constexpr int64_t kMostPositions = int64_t{1} << 24;

struct GroupQuery {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t window = -1;  ///< How many positions before its own one sees; -1: all.
  float scale = 0;      ///< 0: 1 / sqrt(head size).
  float softcap = 0;    ///< 0: none.
  bool smooth = false;
  bool rotary = false;
  int64_t interleaved = 0;
  int64_t batch = 0;
  int64_t rows = 0;      ///< S: new positions.
  int64_t total = 0;     ///< T: the longest sequence, with the new positions.
  int64_t capacity = 0;  ///< Positions that the past has room for.
  int64_t head_size = 0;
  ValueId lengths = kNone;  ///< How many positions of each row came before, [B] I32; if ragged.

  /// The sequences begin here, whatever lies in the past.
  bool begins() const { return rows == total; }
  int64_t past() const { return total - rows; }
  /// Of each row, known only when it runs: sequences of several lengths go on.
  bool ragged() const { return !begins() && batch > 1; }
  /// Positions of the new past.
  int64_t present() const { return std::max(capacity, total); }
};

absl::StatusOr<GroupQuery> AttributesOfGroupQuery(const FunctionBody& body) {
  GroupQuery g;
  const Attributes& attributes = body.attributes();
  OCTET_ASSIGN_OR_RETURN(g.heads, attributes.Int("num_heads", 0));
  OCTET_ASSIGN_OR_RETURN(g.kv_heads, attributes.Int("kv_num_heads", 0));
  OCTET_ASSIGN_OR_RETURN(g.window, attributes.Int("local_window_size", -1));
  OCTET_ASSIGN_OR_RETURN(g.scale, attributes.Float("scale", 0));
  OCTET_ASSIGN_OR_RETURN(g.softcap, attributes.Float("softcap", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t smooth, attributes.Int("smooth_softmax", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t rotary, attributes.Int("do_rotary", 0));
  OCTET_ASSIGN_OR_RETURN(g.interleaved, attributes.Int("rotary_interleaved", 0));
  g.smooth = smooth != 0;
  g.rotary = rotary != 0;
  if (g.kv_heads < 1 || g.heads < 1 || g.heads % g.kv_heads != 0)
    return InvalidArgument("'num_heads' {} is no multiple of 'kv_num_heads' {}", g.heads,
                           g.kv_heads);
  return g;
}

// The one element of a constant; nullopt while it is not known.
absl::StatusOr<std::optional<int64_t>> TotalOf(const FunctionBody& body) {
  const Value& value = body.value(body.input(kTotal));
  if (!value.is_constant()) return std::nullopt;
  if (value.shape->elements() != 1)
    return InvalidArgument("'total_sequence_length' has {} elements, not 1",
                           value.shape->elements());
  if (value.dtype == DType::kI32) return int64_t{value.constant.span<int32_t>()[0]};
  if (value.dtype == DType::kI64) return value.constant.span<int64_t>()[0];
  return InvalidArgument("'total_sequence_length' is {}, not INT32", DTypeName(value.dtype));
}

// False while an extent is missing, or how long the sequences are.
absl::StatusOr<bool> FillExtents(const FunctionBody& body, GroupQuery& g) {
  OCTET_ASSIGN_OR_RETURN(const auto total, TotalOf(body));
  const ValueId query = body.input(kQuery);
  g.batch = body.extent(query, 0);
  g.rows = body.extent(query, 1);
  const int64_t width = body.extent(query, 2);
  if (body.has(kPastKey)) g.capacity = body.extent(body.input(kPastKey), 2);
  if (!total || std::min({g.batch, g.rows, width, g.capacity}) < 0) return false;
  for (const size_t i : {kKey, kValue}) {
    if (body.has(i) && body.extent(body.input(i), 2) == kUnknownDim) return false;
  }
  if (g.rotary && body.extent(body.input(kCos), 1) == kUnknownDim) return false;
  g.total = *total;
  const int64_t all = body.has(kKey) ? g.heads : g.heads + 2 * g.kv_heads;
  if (width % all != 0)
    return InvalidArgument("a hidden size of {} is not for {} heads", width, all);
  g.head_size = width / all;
  if (g.total < g.rows || (!g.begins() && g.past() > g.capacity)) {
    return InvalidArgument("'total_sequence_length' is {}, with {} new positions and {} past ones",
                           g.total, g.rows, g.capacity);
  }
  if (g.present() > kMostPositions) {
    return Unimplemented("unsupported sequences of {} positions: at most {}", g.present(),
                         kMostPositions);
  }
  if (g.ragged() && g.rows > 1) {
    return InvalidArgument("{} sequences go on with {} positions each: only a batch of 1 does",
                           g.batch, g.rows);
  }
  return true;
}

// Of ragged sequences: seqlens_k is the length less one, and one position is new. One that has no place in the new past would
// else be no error but a position that nothing sees: each is looked up, which refuses what lies outside.
ValueId PastLengths(FunctionBody& body, const GroupQuery& g) {
  const ValueId flat = body.Op("Reshape", {body.input(kLengths), body.Ints({g.batch})});
  // Gather counts negative ones from the end.
  const auto scalar = [&](int32_t value) { return body.Constant(Tensor::Scalar(value)); };
  const ValueId below = body.Op("Less", {flat, scalar(0)});
  const ValueId at = body.Op("Where", {below, scalar(INT32_MIN), flat});
  const ValueId lengths = body.Op("Gather", {Positions<int32_t>(body, {g.present()}), at});
  body.Name(lengths, "seqlens_k");
  return lengths;
}

// [B, S, n * H] with its positions turned into it.
ValueId Turn(FunctionBody& body, const GroupQuery& g, ValueId x, int64_t heads) {
  if (!g.rotary) return x;
  constexpr int64_t kOnnxInt64 = 7;  // TensorProto.INT64
  ValueId positions = body.Ints({g.begins() ? 0 : g.past()});
  if (g.ragged()) {
    const ValueId lengths = body.Op("Cast", {g.lengths}, {{"to", kOnnxInt64}});
    positions = body.Op("Unsqueeze", {lengths, body.Ints({1})});
  }
  return body.Op("com.microsoft:RotaryEmbedding",
                 {x, positions, body.input(kCos), body.input(kSin)},
                 {{"num_heads", heads}, {"interleaved", g.interleaved}});
}

// Appends zeros to axis 2 of [B, n, P, H], to `length`.
ValueId WithRoom(FunctionBody& body, ValueId x, int64_t length) {
  const int64_t room = length - body.extent(x, 2);
  return room == 0 ? x : body.Op("Pad", {x, body.Ints({0, 0, 0, 0, 0, 0, room, 0})});
}

// Keys (or values) that are attended to, and the new past.
struct Cached {
  ValueId attended = kNone;
  ValueId present = kNone;
};

Cached Append(FunctionBody& body, const GroupQuery& g, ValueId past, ValueId x) {
  Cached cached;
  if (g.ragged()) {
    // Each row's own position takes the new one; what lies behind it is 0.
    const ValueId lengths = body.Op("Reshape", {g.lengths, body.Ints({g.batch, 1, 1, 1})});
    const ValueId at = Positions<int32_t>(body, {1, 1, g.present(), 1});
    const ValueId kept = body.Op("Where", {body.Op("Less", {at, lengths}),
                                           WithRoom(body, past, g.present()), body.Scalar(0)});
    cached.present = body.Op("Where", {body.Op("Equal", {at, lengths}), x, kept});
    cached.attended = cached.present;
    return cached;
  }
  if (!g.begins()) {
    if (g.past() < g.capacity) {
      past = body.Op("Slice", {past, body.Ints({0}), body.Ints({g.past()}), body.Ints({2})});
    }
    x = body.Op("Concat", {past, x}, {{"axis", int64_t{2}}});
  }
  cached.attended = x;
  cached.present = WithRoom(body, x, g.present());
  return cached;
}

// What is added to the scores [B, N, S, T]: 0 for [p - window, p], p the query's position.
ValueId VisibleMask(FunctionBody& body, const GroupQuery& g) {
  ValueId position = kNone;
  int64_t keys = g.total;
  if (g.ragged()) {
    keys = g.present();
    position = body.Op("Reshape", {g.lengths, body.Ints({g.batch, 1, 1, 1})});
  } else {
    position = Positions<int32_t>(body, {g.rows, 1}, g.past());
  }
  const ValueId at = Positions<int32_t>(body, {1, keys});
  ValueId sees = body.Op("LessOrEqual", {at, position});
  if (g.window >= 0) {
    const auto width = static_cast<int32_t>(std::min<int64_t>(g.window, INT32_MAX));
    const ValueId first = body.Op("Sub", {position, body.Constant(Tensor::Scalar<int32_t>(width))});
    sees = body.Op("And", {sees, body.Op("GreaterOrEqual", {at, first})});
  }
  return body.Op("Where", {sees, body.Scalar(0), body.Scalar(kNeverAttended)});
}

// Softmax over the last axis; a smooth one counts one more score of 0.
ValueId Shares(FunctionBody& body, const GroupQuery& g, ValueId scores) {
  const std::vector<FunctionBody::Attribute> last = {{"axis", int64_t{-1}}};
  if (!g.smooth) return body.Op("Softmax", {scores}, last);
  const int64_t keys = body.extent(scores, 3);
  const ValueId padded = body.Op("Pad", {scores, body.Ints({0, 0, 0, 0, 0, 0, 0, 1})});
  return body.Op("Slice", {body.Op("Softmax", {padded}, last), body.Ints({0}), body.Ints({keys}),
                           body.Ints({3})});
}

// Heads of one group lie side by side, so that the products take a group as one matrix of G S rows.
void AttendGroups(FunctionBody& body, const GroupQuery& g, ValueId q, ValueId k, ValueId v) {
  const int64_t group = g.heads / g.kv_heads;
  const auto grouped = [&](ValueId x, int64_t width) {
    return group == 1
               ? x
               : body.Op("Reshape", {x, body.Ints({g.batch, g.kv_heads, group * g.rows, width})});
  };
  const auto single = [&](ValueId x, int64_t width) {
    return group == 1 ? x : body.Op("Reshape", {x, body.Ints({g.batch, g.heads, g.rows, width})});
  };
  const int64_t keys = g.ragged() ? g.present() : g.total;
  const float scale = g.scale != 0 ? g.scale : 1.0F / std::sqrt(static_cast<float>(g.head_size));
  q = grouped(body.Op("Mul", {q, body.Scalar(scale)}), g.head_size);
  ValueId scores = single(body.Op("MatMul", {q, SwapAxes(body, k, {0, 1, 3, 2})}), keys);
  if (g.softcap > 0) {
    const ValueId cap = body.Scalar(g.softcap);
    scores = body.Op("Mul", {body.Op("Tanh", {body.Op("Div", {scores, cap})}), cap});
  }
  scores = body.Op("Add", {scores, VisibleMask(body, g)});
  const ValueId weights = grouped(Shares(body, g, scores), keys);
  const ValueId y = single(body.Op("MatMul", {weights, v}), g.head_size);
  body.Output(0,
              body.Op("Reshape", {HeadsFirst(body, y), body.Ints({0, 0, g.heads * g.head_size})}));
}

absl::Status ExpandGroupQuery(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 9));
  for (const size_t i : {kLengths, kTotal}) {
    if (!body.has(i)) return InvalidArgument("input {} is missing", i);
  }
  if (body.has(kKey) != body.has(kValue)) return InvalidArgument("'key' and 'value' come together");
  if (body.has(kPastKey) != body.has(kPastValue))
    return InvalidArgument("'past_key' and 'past_value' come together");
  OCTET_ASSIGN_OR_RETURN(GroupQuery g, AttributesOfGroupQuery(body));
  if (g.rotary && (!body.has(kCos) || !body.has(kSin)))
    return InvalidArgument("'do_rotary' asks for 'cos_cache' and 'sin_cache'");
  const DType dtype = body.value(body.input(kQuery)).dtype;
  OCTET_ASSIGN_OR_RETURN(const bool known, FillExtents(body, g));
  if (!known) return body.Later(dtype);
  if (g.ragged()) g.lengths = PastLengths(body, g);
  ValueId q = body.input(kQuery);
  ValueId k = body.input(kKey);
  ValueId v = body.input(kValue);
  if (!body.has(kKey)) {
    const int64_t width = g.kv_heads * g.head_size;
    const auto parts = body.Ops("Split", {q, body.Ints({g.heads * g.head_size, width, width})}, 3,
                                {{"axis", int64_t{2}}});
    q = parts[0];
    k = parts[1];
    v = parts[2];
  }
  OCTET_ASSIGN_OR_RETURN(q, SplitHeads(body, Turn(body, g, q, g.heads), g.heads));
  OCTET_ASSIGN_OR_RETURN(k, SplitHeads(body, Turn(body, g, k, g.kv_heads), g.kv_heads));
  OCTET_ASSIGN_OR_RETURN(v, SplitHeads(body, v, g.kv_heads));
  const Cached keys = Append(body, g, body.input(kPastKey), HeadsFirst(body, k));
  const Cached values = Append(body, g, body.input(kPastValue), HeadsFirst(body, v));
  if (body.wants(1)) body.Output(1, keys.present);
  if (body.wants(2)) body.Output(2, values.present);
  AttendGroups(body, g, HeadsFirst(body, q), keys.attended, values.attended);
  return absl::OkStatus();
}

// The shapes wait for the length, which a model may compute from its data.
absl::Status InferGroupQuery(InferContext& context) {
  context.constant(kTotal);
  return InferFunction(context);
}

constexpr OpDef kGroupQueryOps[] = {
    {.domain = kMicrosoftDomain,
     .name = "GroupQueryAttention",
     .infer = InferGroupQuery,
     .kernel = MakeFunctionKernel,
     .expand = ExpandGroupQuery},
};

}  // namespace

std::span<const OpDef> GroupQueryOps() { return kGroupQueryOps; }

}  // namespace octet
