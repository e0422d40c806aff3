// com.microsoft's GroupQueryAttention, the attention of decoders whose query heads share keys and values:
//   keys = past keys, then k;  values = past values, then v
//   y[n] = Softmax(softcap(scale * Q[n] K[n / G]^T) + attention_bias + mask) V[n / G],  G = num_heads / kv_num_heads
// The mask lets position p see p - local_window_size .. p, with -1 all up to p. Tensors: Q [B, N, S, H], K and V [B, N / G, T, H].
// The body says what it means; ops/group_query_step.cc computes it.
// Source: Ainslie et al. 2023; ONNX Runtime 1.21, docs/ContribOperators.md and contrib_ops/cpu/bert/gqa_attention_base.h.
#include "engine/ops/group_query.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/ops/attention_heads.h"
#include "engine/ops/function.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Positions are constants of the body; more of them, or of heads, are no sequence but a damaged file.
constexpr int64_t kMostPositions = int64_t{1} << 24;
constexpr int64_t kMostHeads = int64_t{1} << 20;

absl::StatusOr<GroupQuery> AttributesOfGroupQuery(const Attributes& attributes) {
  GroupQuery g;
  OCTET_ASSIGN_OR_RETURN(g.heads, attributes.Int("num_heads", 0));
  OCTET_ASSIGN_OR_RETURN(g.kv_heads, attributes.Int("kv_num_heads", 0));
  OCTET_ASSIGN_OR_RETURN(g.window, attributes.Int("local_window_size", -1));
  OCTET_ASSIGN_OR_RETURN(g.scale, attributes.Float("scale", 0));
  OCTET_ASSIGN_OR_RETURN(g.softcap, attributes.Float("softcap", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t smooth, attributes.Int("smooth_softmax", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t rotary, attributes.Int("do_rotary", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t interleaved, attributes.Int("rotary_interleaved", 0));
  g.smooth = smooth != 0;
  g.rotary = rotary != 0;
  g.interleaved = interleaved != 0;
  if (g.kv_heads < 1 || g.heads < 1 || g.heads > kMostHeads || g.heads % g.kv_heads != 0)
    return InvalidArgument("'num_heads' {} is no multiple of 'kv_num_heads' {}, up to {}", g.heads,
                           g.kv_heads, kMostHeads);
  return g;
}

absl::Status CheckPresence(const GroupQuery& g, GroupQueryInputs inputs) {
  const auto has = [&](size_t slot) { return inputs(slot) != nullptr; };
  for (const size_t i : {GroupQuery::kQuery, GroupQuery::kLengths, GroupQuery::kTotal}) {
    if (!has(i)) return InvalidArgument("input {} is missing", i);
  }
  if (has(GroupQuery::kKey) != has(GroupQuery::kValue))
    return InvalidArgument("'key' and 'value' come together");
  if (has(GroupQuery::kPastKey) != has(GroupQuery::kPastValue))
    return InvalidArgument("'past_key' and 'past_value' come together");
  if (g.rotary && (!has(GroupQuery::kCos) || !has(GroupQuery::kSin)))
    return InvalidArgument("'do_rotary' asks for 'cos_cache' and 'sin_cache'");
  return absl::OkStatus();
}

// The one element of a constant; nullopt while it is not known.
absl::StatusOr<std::optional<int64_t>> TotalOf(const Value& value) {
  if (!value.is_constant()) return std::nullopt;
  if (value.shape->elements() != 1)
    return InvalidArgument("'total_sequence_length' has {} elements, not 1",
                           value.shape->elements());
  if (value.dtype == DType::kI32) return int64_t{value.constant.span<int32_t>()[0]};
  if (value.dtype == DType::kI64) return value.constant.span<int64_t>()[0];
  return InvalidArgument("'total_sequence_length' is {}, not INT32", DTypeName(value.dtype));
}

// kUnknownDim while it is not known, or there is no such axis.
int64_t ExtentOf(const Value& value, int axis) {
  return value.shape && axis < value.shape->rank() ? (*value.shape)[axis] : kUnknownDim;
}

// Of an input that is absent, or whose shape is not known yet, nothing is said.
absl::Status ExpectShape(const Value* value, std::string_view name, const Shape& shape) {
  if (value == nullptr || !value->has_static_shape() || *value->shape == shape)
    return absl::OkStatus();
  return InvalidArgument("'{}': expected shape {}, got {}", name, shape.ToString(),
                         value->shape->ToString());
}

absl::Status CheckGroupQueryShapes(const GroupQuery& g, GroupQueryInputs inputs) {
  const Shape row = {g.batch, g.rows, g.kv_heads * g.head_size};
  OCTET_RETURN_IF_ERROR(ExpectShape(inputs(GroupQuery::kKey), "key", row));
  OCTET_RETURN_IF_ERROR(ExpectShape(inputs(GroupQuery::kValue), "value", row));
  const Shape past = {g.batch, g.kv_heads, g.capacity, g.head_size};
  OCTET_RETURN_IF_ERROR(ExpectShape(inputs(GroupQuery::kPastKey), "past_key", past));
  OCTET_RETURN_IF_ERROR(ExpectShape(inputs(GroupQuery::kPastValue), "past_value", past));
  const Value* lengths = inputs(GroupQuery::kLengths);
  if (lengths->dtype != DType::kI32)
    return InvalidArgument("'seqlens_k' is {}, not INT32", DTypeName(lengths->dtype));
  if (lengths->has_static_shape() && lengths->shape->elements() != g.batch)
    return InvalidArgument("'seqlens_k': expected {} elements, got {}", g.batch,
                           lengths->shape->elements());
  OCTET_RETURN_IF_ERROR(ExpectShape(inputs(GroupQuery::kHeadSink), "head_sink", {g.heads}));
  const Value* bias = inputs(GroupQuery::kAttentionBias);
  if (bias != nullptr && bias->has_static_shape()) {
    const auto one_or = [&](int axis, int64_t extent) {
      return ExtentOf(*bias, axis) == 1 ? 1 : extent;
    };
    const Shape expected = {one_or(0, g.batch), one_or(1, g.heads), g.rows, g.total};
    OCTET_RETURN_IF_ERROR(ExpectShape(bias, "attention_bias", expected));
  }
  if (!g.rotary) return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(
      ExpectShape(inputs(GroupQuery::kPositionIds), "position_ids", {g.batch, g.rows}));
  const Value& cos = *inputs(GroupQuery::kCos);
  const int64_t pairs = ExtentOf(cos, 1);
  if (cos.shape->rank() != 2 || pairs < 1 || pairs > g.head_size / 2)
    return InvalidArgument("'cos_cache' of shape {} is not for heads of {} elements",
                           cos.shape->ToString(), g.head_size);
  return ExpectShape(inputs(GroupQuery::kSin), "sin_cache", *cos.shape);
}

// A body as it is being written.
struct GroupQueryBody : GroupQuery {
  ValueId past_lengths = kNone;  ///< [B] I32; none where the sequences begin.
};

// How many positions of each sequence came before, [B]. A new one that has no place within the total would else be no error but a
// position that nothing sees: each last one is looked up, which refuses what lies outside. But for -1, the length of a row that a
// batch is filled up with, whose mask is all zeros: it begins.
ValueId PastLengths(FunctionBody& body, const GroupQuery& g) {
  const ValueId flat = body.Op("Reshape", {body.input(GroupQuery::kLengths), body.Ints({g.batch})});
  const auto before = static_cast<int32_t>(g.rows - 1);
  const auto scalar = [&](int32_t value) { return body.Constant(Tensor::Scalar(value)); };
  const ValueId filled =
      body.Op("Where", {body.Op("Equal", {flat, scalar(-1)}), scalar(before), flat});
  // Gather counts negative ones from the end.
  const ValueId below = body.Op("Less", {filled, scalar(before)});
  const ValueId at = body.Op("Where", {below, scalar(INT32_MIN), filled});
  const ValueId last = body.Op("Gather", {Positions<int32_t>(body, {g.total}), at});
  body.Name(last, "seqlens_k");
  return before == 0 ? last : body.Op("Sub", {last, scalar(before)});
}

// [B, S, n * H] with its positions turned into it.
ValueId Turn(FunctionBody& body, const GroupQueryBody& g, ValueId x, int64_t heads) {
  if (!g.rotary) return x;
  constexpr int64_t kOnnxInt64 = 7;  // TensorProto.INT64
  ValueId positions = body.Ints({0});
  if (body.has(GroupQuery::kPositionIds)) {
    positions = body.input(GroupQuery::kPositionIds);
  } else if (g.past_lengths != kNone) {
    const ValueId lengths = body.Op("Cast", {g.past_lengths}, {{"to", kOnnxInt64}});
    positions = body.Op("Add", {body.Op("Unsqueeze", {lengths, body.Ints({1})}),
                                Positions<int64_t>(body, {1, g.rows})});
  }
  return body.Op("com.microsoft:RotaryEmbedding",
                 {x, positions, body.input(GroupQuery::kCos), body.input(GroupQuery::kSin)},
                 {{"num_heads", heads}, {"interleaved", int64_t{g.interleaved}}});
}

// The first `length` positions of [B, n, P, H].
ValueId Shortened(FunctionBody& body, ValueId x, int64_t length) {
  if (body.extent(x, 2) == length) return x;
  return body.Op("Slice", {x, body.Ints({0}), body.Ints({length}), body.Ints({2})});
}

// Appends zeros to axis 2 of [B, n, P, H], to `length`.
ValueId WithRoom(FunctionBody& body, ValueId x, int64_t length) {
  const int64_t room = length - body.extent(x, 2);
  return room == 0 ? x : body.Op("Pad", {x, body.Ints({0, 0, 0, 0, 0, 0, room, 0})});
}

// The new past: keys (or values) [B, K, P, H] with the new ones x [B, K, S, H] behind them, and zeros.
ValueId Append(FunctionBody& body, const GroupQueryBody& g, ValueId past, ValueId x) {
  if (g.begins()) return WithRoom(body, x, g.present());
  if (g.rows == 0) return WithRoom(body, Shortened(body, past, g.total), g.present());
  const ValueId lengths = body.Op("Reshape", {g.past_lengths, body.Ints({g.batch, 1, 1, 1})});
  const ValueId at = Positions<int32_t>(body, {1, 1, g.present(), 1});
  const ValueId kept = body.Op(
      "Where", {body.Op("Less", {at, lengths}), WithRoom(body, past, g.present()), body.Scalar(0)});
  const auto scalar = [&](int64_t value) {
    return body.Constant(Tensor::Scalar(static_cast<int32_t>(value)));
  };
  if (g.rows == 1) return body.Op("Where", {body.Op("Equal", {at, lengths}), x, kept});
  // Of one sequence.
  const ValueId place = body.Op("Sub", {at, lengths});
  const ValueId within = body.Op("Max", {body.Op("Min", {place, scalar(g.rows - 1)}), scalar(0)});
  const ValueId moved =
      body.Op("Gather", {x, body.Op("Reshape", {within, body.Ints({-1})})}, {{"axis", int64_t{2}}});
  return body.Op("Where", {body.Op("Equal", {place, within}), moved, kept});
}

// What is added to the scores [B, N, S, T]: 0 for [p - window, p], p the query's position.
ValueId VisibleMask(FunctionBody& body, const GroupQueryBody& g) {
  ValueId position = Positions<int32_t>(body, {g.rows, 1});
  if (g.past_lengths != kNone) {
    position = body.Op(
        "Add", {body.Op("Reshape", {g.past_lengths, body.Ints({g.batch, 1, 1, 1})}), position});
  }
  const ValueId at = Positions<int32_t>(body, {1, g.total});
  ValueId sees = body.Op("LessOrEqual", {at, position});
  if (g.window >= 0) {
    const auto width = static_cast<int32_t>(std::min<int64_t>(g.window, INT32_MAX));
    const ValueId first = body.Op("Sub", {position, body.Constant(Tensor::Scalar<int32_t>(width))});
    sees = body.Op("And", {sees, body.Op("GreaterOrEqual", {at, first})});
  }
  return body.Op("Where", {sees, body.Scalar(0), body.Scalar(kNeverAttended)});
}

// Softmax over the last axis. One more score counts that no value belongs to: a smooth one's is 0, a sink the head's own.
ValueId Shares(FunctionBody& body, const GroupQuery& g, ValueId scores) {
  const std::vector<FunctionBody::Attribute> last = {{"axis", int64_t{-1}}};
  ValueId more = kNone;
  if (body.has(GroupQuery::kHeadSink)) {
    const ValueId sink =
        body.Op("Reshape", {body.input(GroupQuery::kHeadSink), body.Ints({1, g.heads, 1, 1})});
    more = body.Op("Expand", {sink, body.Ints({g.batch, g.heads, g.rows, 1})});
    more = body.Op("Concat", {scores, more}, last);
  } else if (g.smooth) {
    more = body.Op("Pad", {scores, body.Ints({0, 0, 0, 0, 0, 0, 0, 1})});
  } else {
    return body.Op("Softmax", {scores}, last);
  }
  return body.Op("Slice", {body.Op("Softmax", {more}, last), body.Ints({0}), body.Ints({g.total}),
                           body.Ints({3})});
}

// Heads of one group lie side by side, so that the products take a group as one matrix of N / K S rows.
void AttendGroups(FunctionBody& body, const GroupQueryBody& g, ValueId q, ValueId k, ValueId v) {
  const auto grouped = [&](ValueId x, int64_t width) {
    return g.group() == 1
               ? x
               : body.Op("Reshape",
                         {x, body.Ints({g.batch, g.kv_heads, g.group() * g.rows, width})});
  };
  const auto single = [&](ValueId x, int64_t width) {
    return g.group() == 1 ? x
                          : body.Op("Reshape", {x, body.Ints({g.batch, g.heads, g.rows, width})});
  };
  q = grouped(body.Op("Mul", {q, body.Scalar(g.scale)}), g.head_size);
  ValueId scores = single(body.Op("MatMul", {q, SwapAxes(body, k, {0, 1, 3, 2})}), g.total);
  if (g.softcap > 0) {
    const ValueId cap = body.Scalar(g.softcap);
    scores = body.Op("Mul", {body.Op("Tanh", {body.Op("Div", {scores, cap})}), cap});
  }
  if (body.has(GroupQuery::kAttentionBias))
    scores = body.Op("Add", {scores, body.input(GroupQuery::kAttentionBias)});
  scores = body.Op("Add", {scores, VisibleMask(body, g)});
  const ValueId weights = grouped(Shares(body, g, scores), g.total);
  const ValueId y = single(body.Op("MatMul", {weights, v}), g.head_size);
  body.Output(0,
              body.Op("Reshape", {HeadsFirst(body, y), body.Ints({0, 0, g.heads * g.head_size})}));
}

absl::Status ExpandGroupQuery(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, GroupQuery::kInputs));
  const auto inputs = [&](size_t i) { return body.has(i) ? &body.value(body.input(i)) : nullptr; };
  OCTET_ASSIGN_OR_RETURN(const auto read, ReadGroupQuery(body.attributes(), inputs));
  if (!read) return body.Later(body.value(body.input(GroupQuery::kQuery)).dtype);
  GroupQueryBody g{*read};
  if (!g.begins() && g.rows > 0) g.past_lengths = PastLengths(body, g);
  ValueId q = body.input(GroupQuery::kQuery);
  ValueId k = body.input(GroupQuery::kKey);
  ValueId v = body.input(GroupQuery::kValue);
  if (g.packed) {
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
  const ValueId keys = Append(body, g, body.input(GroupQuery::kPastKey), HeadsFirst(body, k));
  const ValueId values = Append(body, g, body.input(GroupQuery::kPastValue), HeadsFirst(body, v));
  if (body.wants(1)) body.Output(1, keys);
  if (body.wants(2)) body.Output(2, values);
  AttendGroups(body, g, HeadsFirst(body, q), Shortened(body, keys, g.total),
               Shortened(body, values, g.total));
  return absl::OkStatus();
}

// Not by way of the body, which is long and inferred behind every pass. The shapes wait for the length, which a model may compute
// from its data.
absl::Status InferGroupQuery(InferContext& context) {
  context.constant(GroupQuery::kTotal);
  if (context.input_count() > GroupQuery::kInputs)
    return InvalidArgument("expected up to {} inputs, got {}", int{GroupQuery::kInputs},
                           context.input_count());
  const auto inputs = [&](size_t i) { return context.has_input(i) ? &context.input(i) : nullptr; };
  OCTET_ASSIGN_OR_RETURN(const auto g, ReadGroupQuery(context.attributes(), inputs));
  const DType dtype = context.dtype(GroupQuery::kQuery);
  if (!IsFloat(dtype)) return InvalidArgument("'query' is {}, no real", DTypeName(dtype));
  const size_t keys =
      context.has_input(GroupQuery::kPastKey) ? GroupQuery::kPastKey : GroupQuery::kQuery;
  std::optional<Shape> past;
  if (g) past = Shape{g->batch, g->kv_heads, g->present(), g->head_size};
  for (const size_t i : {size_t{1}, size_t{2}}) {
    if (i < context.output_count())
      OCTET_RETURN_IF_ERROR(context.SetOutput(i, context.dtype(keys), past));
  }
  if (g) return context.SetOutput(0, dtype, Shape{g->batch, g->rows, g->heads * g->head_size});
  const std::optional<Shape>& query = context.shape(GroupQuery::kQuery);
  if (!query) return context.SetOutput(0, dtype, std::nullopt);
  const int64_t width = context.has_input(GroupQuery::kKey) ? query->back() : kUnknownDim;
  return context.SetOutput(0, dtype, Shape{(*query)[0], (*query)[1], width});
}

constexpr OpDef kGroupQueryOps[] = {
    {.domain = kMicrosoftDomain,
     .name = "GroupQueryAttention",
     .infer = InferGroupQuery,
     .kernel = MakeFunctionKernel,
     .lower = LowerGroupQuery,
     .traits = {.lowers_empty = true},
     .expand = ExpandGroupQuery},
};

}  // namespace

absl::StatusOr<std::optional<GroupQuery>> ReadGroupQuery(const Attributes& attributes,
                                                         GroupQueryInputs inputs) {
  OCTET_ASSIGN_OR_RETURN(GroupQuery g, AttributesOfGroupQuery(attributes));
  OCTET_RETURN_IF_ERROR(CheckPresence(g, inputs));
  const Value& query = *inputs(GroupQuery::kQuery);
  if (query.shape && query.shape->rank() != 3)
    return InvalidArgument("'query': expected rank 3, got {}", query.shape->rank());
  OCTET_ASSIGN_OR_RETURN(const auto total, TotalOf(*inputs(GroupQuery::kTotal)));
  g.packed = inputs(GroupQuery::kKey) == nullptr;
  g.batch = ExtentOf(query, 0);
  g.rows = ExtentOf(query, 1);
  const int64_t width = ExtentOf(query, 2);
  if (const Value* past = inputs(GroupQuery::kPastKey)) g.capacity = ExtentOf(*past, 2);
  if (!total || std::min({g.batch, g.rows, width, g.capacity}) < 0) return std::nullopt;
  for (const size_t i : {GroupQuery::kKey, GroupQuery::kValue}) {
    if (const Value* x = inputs(i); x != nullptr && ExtentOf(*x, 2) == kUnknownDim)
      return std::nullopt;
  }
  if (g.rotary && ExtentOf(*inputs(GroupQuery::kCos), 1) == kUnknownDim) return std::nullopt;
  g.total = *total;
  const int64_t all = g.heads + (g.packed ? 2 * g.kv_heads : 0);
  if (width % all != 0 || width == 0)
    return InvalidArgument("a hidden size of {} is not for {} heads", width, all);
  g.head_size = width / all;
  if (g.scale == 0) g.scale = 1.0F / std::sqrt(static_cast<float>(g.head_size));
  if (g.total < g.rows || (!g.begins() && g.total - g.rows > g.capacity)) {
    return InvalidArgument("'total_sequence_length' is {}, with {} new positions and {} past ones",
                           g.total, g.rows, g.capacity);
  }
  if (g.present() > kMostPositions) {
    return Unimplemented("unsupported sequences of {} positions: at most {}", g.present(),
                         kMostPositions);
  }
  if (!g.begins() && g.batch > 1 && g.rows > 1) {
    return InvalidArgument("{} sequences go on with {} positions each: only a batch of 1 does",
                           g.batch, g.rows);
  }
  OCTET_RETURN_IF_ERROR(CheckGroupQueryShapes(g, inputs));
  return g;
}

std::span<const OpDef> GroupQueryOps() { return kGroupQueryOps; }

}  // namespace octet
