// com.microsoft's attention: Attention, QAttention, MultiHeadAttention, RotaryEmbedding; as the products, the Softmax and
// the movements that they are made of.
//   y = Softmax(scale * Q K^T + masks) V for each head, heads side by side again
// Source: Vaswani et al. 2017; Su et al. 2021 (rotary embedding); ONNX Runtime, docs/ContribOperators.md.
#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "engine/ops/attention_heads.h"
#include "engine/ops/function.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

absl::Status RefuseNonZero(const FunctionBody& body, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    OCTET_ASSIGN_OR_RETURN(const int64_t value, body.attributes().Int(name, 0));
    if (value != 0) return Unimplemented("unsupported attribute '{}' = {}", name, value);
  }
  return absl::OkStatus();
}

// Q [B, N, S, H], K [B, N, T, H] and V [B, N, T, H'].
struct Heads {
  ValueId q = kNone;
  ValueId k = kNone;
  ValueId v = kNone;
};

struct AttentionForm {
  int64_t heads = 0;
  float scale = 0;  ///< 0: 1 / sqrt(head size).
  float mask_filter = 0;
  bool causal = false;
};

absl::StatusOr<AttentionForm> FormOfAttention(const FunctionBody& body) {
  AttentionForm form;
  OCTET_ASSIGN_OR_RETURN(form.heads, body.attributes().Int("num_heads", 0));
  OCTET_ASSIGN_OR_RETURN(form.scale, body.attributes().Float("scale", 0));
  OCTET_ASSIGN_OR_RETURN(form.mask_filter, body.attributes().Float("mask_filter_value", -10000));
  OCTET_ASSIGN_OR_RETURN(const int64_t causal, body.attributes().Int("unidirectional", 0));
  form.causal = causal != 0;
  if (form.heads < 1) return InvalidArgument("'num_heads' is {}", form.heads);
  return form;
}

// 0 where `keep`, the filter value elsewhere; with new axes, so that it broadcasts to [B, N, S, T].
ValueId Filter(FunctionBody& body, ValueId keep, float filter,
               std::initializer_list<int64_t> axes) {
  const ValueId values = body.Op("Where", {keep, body.Scalar(0), body.Scalar(filter)});
  return body.Op("Unsqueeze", {values, body.Ints(axes)});
}

ValueId IntScalar(FunctionBody& body, int32_t value) {
  return body.Constant(Tensor::Scalar<int32_t>(value));
}

// Keeps positions [start, end) of each row: lengths [B], or [2 B] with the ends before the starts. Of [3 B + 2], the lengths of
// keys and where rows begin in packed queries and keys, only the lengths say something here.
absl::StatusOr<ValueId> LengthMask(FunctionBody& body, ValueId lengths, int64_t batch,
                                   int64_t total, float filter) {
  const int64_t count = body.extent(lengths, 0);
  if (count != batch && count != 2 * batch && count != 3 * batch + 2) {
    return Unimplemented("unsupported mask of shape [{}] for a batch of {}", count, batch);
  }
  const ValueId at = Positions<int32_t>(body, {1, total});
  const auto column = [&](int64_t from) {
    const ValueId part =
        body.Op("Slice", {lengths, body.Ints({from}), body.Ints({from + batch}), body.Ints({0})});
    return body.Op("Unsqueeze", {part, body.Ints({1})});
  };
  ValueId keep = body.Op("Less", {at, column(0)});
  if (count == 2 * batch)
    keep = body.Op("And", {keep, body.Op("GreaterOrEqual", {at, column(batch)})});
  return Filter(body, keep, filter, {1, 2});
}

// Of a mask [B, 1, M, M] for sequences of up to M positions, the rows of S queries behind T - S keys; kNone: extents are missing.
absl::StatusOr<ValueId> RowsOfMask(FunctionBody& body, ValueId mask, const Heads& heads) {
  const int64_t rows = body.extent(heads.q, 2);
  const int64_t total = body.extent(heads.k, 2);
  const int64_t most = body.extent(mask, 3);
  if (rows == kUnknownDim || total == kUnknownDim || most == kUnknownDim) return kNone;
  if (total > most || total < rows || body.extent(mask, 2) != most) {
    return InvalidArgument("a mask of {} by {} is not for {} queries and {} keys",
                           body.extent(mask, 2), most, rows, total);
  }
  return body.Op(
      "Slice", {mask, body.Ints({total - rows, 0}), body.Ints({total, total}), body.Ints({2, 3})});
}

// What a mask adds to the scores: lengths, [B, T], [B, S, T] or [B, 1, M, M] with 0 for what is masked. kNone: extents are missing.
absl::StatusOr<ValueId> MaskOf(FunctionBody& body, ValueId mask, const Heads& heads, float filter) {
  const int rank = body.rank(mask);
  if (rank == 4) {
    OCTET_ASSIGN_OR_RETURN(const ValueId rows, RowsOfMask(body, mask, heads));
    if (rows == kNone) return kNone;
    const ValueId keep = body.Op("Greater", {rows, IntScalar(body, 0)});
    return body.Op("Where", {keep, body.Scalar(0), body.Scalar(filter)});
  }
  if (rank == 1) {
    const int64_t batch = body.extent(heads.k, 0);
    const int64_t total = body.extent(heads.k, 2);
    if (batch == kUnknownDim || total == kUnknownDim || body.extent(mask, 0) == kUnknownDim)
      return kNone;
    return LengthMask(body, mask, batch, total, filter);
  }
  if (rank != 2 && rank != 3) return Unimplemented("unsupported mask of rank {}", rank);
  const ValueId keep = body.Op("Greater", {mask, IntScalar(body, 0)});
  return rank == 2 ? Filter(body, keep, filter, {1, 2}) : Filter(body, keep, filter, {1});
}

// Position s of S sees positions up to s + T - S.
ValueId CausalMask(FunctionBody& body, int64_t rows, int64_t total) {
  const ValueId sees = body.Op("LessOrEqual", {Positions<int32_t>(body, {1, total}),
                                               Positions<int32_t>(body, {rows, 1}, total - rows)});
  return body.Op("Where", {sees, body.Scalar(0), body.Scalar(kNeverAttended)});
}

// The attended values, [B, S, N * H'], to output 0.
absl::Status Attend(FunctionBody& body, const AttentionForm& form, const Heads& heads, ValueId mask,
                    ValueId attention_bias) {
  const DType dtype = body.value(body.input(0)).dtype;
  const DType later = IsFloat(dtype) ? dtype : DType::kF32;
  const int64_t head_size = body.extent(heads.q, 3);
  const int64_t rows = body.extent(heads.q, 2);
  const int64_t total = body.extent(heads.k, 2);
  if (head_size == kUnknownDim || body.rank(heads.k) != 4 || body.rank(heads.v) != 4)
    return body.Later(later);
  if (form.causal && (rows == kUnknownDim || total == kUnknownDim)) return body.Later(later);
  const float scale =
      form.scale != 0 ? form.scale : 1.0F / std::sqrt(static_cast<float>(head_size));
  const ValueId q = body.Op("Mul", {heads.q, body.Scalar(scale)});
  ValueId scores = body.Op("MatMul", {q, SwapAxes(body, heads.k, {0, 1, 3, 2})});
  if (attention_bias != kNone) scores = body.Op("Add", {scores, attention_bias});
  if (mask != kNone) {
    if (body.rank(mask) < 0) return body.Later(later);
    OCTET_ASSIGN_OR_RETURN(const ValueId added, MaskOf(body, mask, heads, form.mask_filter));
    if (added == kNone) return body.Later(later);
    scores = body.Op("Add", {scores, added});
  }
  if (form.causal) scores = body.Op("Add", {scores, CausalMask(body, rows, total)});
  const ValueId weights = body.Op("Softmax", {scores}, {{"axis", int64_t{-1}}});
  const ValueId y = HeadsFirst(body, body.Op("MatMul", {weights, heads.v}));
  const int64_t width = body.extent(heads.v, 3);
  const int64_t joined = width == kUnknownDim ? -1 : form.heads * width;
  body.Output(0, body.Op("Reshape", {y, body.Ints({0, 0, joined})}));
  return absl::OkStatus();
}

// `x` behind what went before, along the axis of positions.
ValueId Behind(FunctionBody& body, ValueId past, ValueId x) {
  return past == kNone ? x : body.Op("Concat", {past, x}, {{"axis", int64_t{2}}});
}

// The projection [B, S, hidden + hidden + v_hidden] as heads, behind `past` [2, B, N, P, H]; output 1 is the new past.
absl::Status AttendProjection(FunctionBody& body, const AttentionForm& form, ValueId projection,
                              const std::vector<int64_t>& sizes, ValueId past, ValueId mask,
                              ValueId attention_bias) {
  const auto parts = body.Ops("Split", {projection, body.Ints(sizes)}, 3, {{"axis", int64_t{2}}});
  OCTET_ASSIGN_OR_RETURN(const ValueId q, SplitHeads(body, parts[0], form.heads));
  OCTET_ASSIGN_OR_RETURN(const ValueId k, SplitHeads(body, parts[1], form.heads));
  OCTET_ASSIGN_OR_RETURN(const ValueId v, SplitHeads(body, parts[2], form.heads));
  Heads heads{HeadsFirst(body, q), HeadsFirst(body, k), HeadsFirst(body, v)};
  if (past != kNone) {
    const auto one = [&](int64_t i) {
      return body.Op("Gather", {past, body.Constant(Tensor::Scalar<int64_t>(i))});
    };
    heads.k = Behind(body, one(0), heads.k);
    heads.v = Behind(body, one(1), heads.v);
  }
  if (body.wants(1)) {
    const ValueId axis = body.Ints({0});
    body.Output(
        1, body.Op("Concat",
                   {body.Op("Unsqueeze", {heads.k, axis}), body.Op("Unsqueeze", {heads.v, axis})},
                   {{"axis", int64_t{0}}}));
  }
  return Attend(body, form, heads, mask, attention_bias);
}

absl::Status ExpandAttention(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 7));
  OCTET_RETURN_IF_ERROR(RefuseNonZero(body, {"do_rotary", "past_present_share_buffer"}));
  if (body.has(6)) return Unimplemented("unsupported input 'past_sequence_length'");
  OCTET_ASSIGN_OR_RETURN(const AttentionForm form, FormOfAttention(body));
  OCTET_ASSIGN_OR_RETURN(auto sizes, body.attributes().Ints("qkv_hidden_sizes", {}));
  const int64_t width = body.extent(body.input(1), 1);
  if (sizes.empty()) {
    if (width == kUnknownDim) return body.Later(body.value(body.input(0)).dtype);
    sizes.assign(3, width / 3);
  }
  if (sizes.size() != 3) return InvalidArgument("'qkv_hidden_sizes' has not 3 elements");
  ValueId projection = body.Op("MatMul", {body.input(0), body.input(1)});
  if (body.has(2)) projection = body.Op("Add", {projection, body.input(2)});
  return AttendProjection(body, form, projection, sizes, body.input(4), body.input(3),
                          body.input(5));
}

// Inputs: input, weight, bias, input_scale, weight_scale, mask_index, input_zero, weight_zero, past.
absl::Status ExpandQAttention(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(5, 9));
  OCTET_RETURN_IF_ERROR(RefuseNonZero(body, {"do_rotary", "past_present_share_buffer"}));
  OCTET_ASSIGN_OR_RETURN(const AttentionForm form, FormOfAttention(body));
  const int64_t width = body.extent(body.input(1), 1);
  if (width == kUnknownDim) return body.Later(DType::kF32);
  const ValueId projection = body.Op("com.microsoft:MatMulIntegerToFloat",
                                     {body.input(0), body.input(1), body.input(3), body.input(4),
                                      body.input(6), body.input(7), body.input(2)});
  return AttendProjection(body, form, projection, std::vector<int64_t>(3, width / 3), body.input(8),
                          body.input(5), kNone);
}

// Q, K and V of MultiHeadAttention as [B, S, N, H]; K and V that came as [B, N, T, H] stay so.
struct HeadOperands {
  Heads heads;
  bool kv_heads_first = false;
};

// The `count` tensors that lie side by side on axis 3 of [B, S, N, count, H].
std::vector<ValueId> Unpacked(FunctionBody& body, ValueId packed, int64_t count) {
  auto parts = body.Ops("Split", {packed, body.Ints(std::vector<int64_t>(count, 1))}, count,
                        {{"axis", int64_t{3}}});
  for (ValueId& part : parts) part = body.Op("Squeeze", {part, body.Ints({3})});
  return parts;
}

absl::StatusOr<HeadOperands> OperandsOfMultiHead(FunctionBody& body, int64_t heads) {
  HeadOperands operands;
  Heads& h = operands.heads;
  for (const auto& [slot, rank, axis] : {std::array{0, 5, 2}, {1, 5, 2}, {1, 4, 1}, {2, 4, 1}}) {
    const ValueId x = body.input(static_cast<size_t>(slot));
    if (body.rank(x) == rank && body.extent(x, axis) != heads)
      return InvalidArgument("input {} has {} heads, not {}", slot, body.extent(x, axis), heads);
  }
  if (body.rank(body.input(0)) == 5) {
    const auto parts = Unpacked(body, body.input(0), 3);
    h = {parts[0], parts[1], parts[2]};
    return operands;
  }
  OCTET_ASSIGN_OR_RETURN(h.q, SplitHeads(body, body.input(0), heads));
  if (!body.has(1)) return InvalidArgument("input 'key' is missing");
  if (body.rank(body.input(1)) == 5) {
    const auto parts = Unpacked(body, body.input(1), 2);
    h.k = parts[0];
    h.v = parts[1];
    return operands;
  }
  if (!body.has(2)) return InvalidArgument("input 'value' is missing");
  operands.kv_heads_first = body.rank(body.input(1)) == 4;
  if (operands.kv_heads_first) {
    h.k = body.input(1);
    h.v = body.input(2);
    return operands;
  }
  OCTET_ASSIGN_OR_RETURN(h.k, SplitHeads(body, body.input(1), heads));
  OCTET_ASSIGN_OR_RETURN(h.v, SplitHeads(body, body.input(2), heads));
  return operands;
}

// Adds the bias [N H + N H + N H'] to Q, K and V of [B, S, N, H].
void AddHeadBias(FunctionBody& body, int64_t heads, HeadOperands& operands) {
  Heads& h = operands.heads;
  const int64_t width = heads * body.extent(h.q, 3);
  const int64_t v_width = heads * body.extent(h.v, 3);
  const auto parts = body.Ops("Split", {body.input(3), body.Ints({width, width, v_width})}, 3,
                              {{"axis", int64_t{0}}});
  const auto add = [&](ValueId& x, ValueId part) {
    x = body.Op("Add", {x, body.Op("Reshape", {part, body.Ints({heads, -1})})});
  };
  add(h.q, parts[0]);
  if (operands.kv_heads_first) return;
  add(h.k, parts[1]);
  add(h.v, parts[2]);
}

absl::Status ExpandMultiHead(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 8));
  OCTET_ASSIGN_OR_RETURN(const AttentionForm form, FormOfAttention(body));
  const DType dtype = body.value(body.input(0)).dtype;
  for (const size_t i : {0, 1, 2}) {
    if (body.has(i) && body.extent(body.input(i), -1) == kUnknownDim) return body.Later(dtype);
  }
  OCTET_ASSIGN_OR_RETURN(HeadOperands operands, OperandsOfMultiHead(body, form.heads));
  Heads& h = operands.heads;
  if (body.has(3)) AddHeadBias(body, form.heads, operands);
  h.q = HeadsFirst(body, h.q);
  if (!operands.kv_heads_first) {
    h.k = HeadsFirst(body, h.k);
    h.v = HeadsFirst(body, h.v);
  }
  h.k = Behind(body, body.input(6), h.k);
  h.v = Behind(body, body.input(7), h.v);
  if (body.wants(1)) body.Output(1, h.k);
  if (body.wants(2)) body.Output(2, h.v);
  return Attend(body, form, h, body.input(4), body.input(5));
}

// Rotates pairs (a, b) of [.., P] each: a cos - b sin and b cos + a sin.
std::pair<ValueId, ValueId> Rotated(FunctionBody& body, ValueId a, ValueId b, ValueId cos,
                                    ValueId sin) {
  const auto product = [&](ValueId x, ValueId y) { return body.Op("Mul", {x, y}); };
  return {body.Op("Sub", {product(a, cos), product(b, sin)}),
          body.Op("Add", {product(b, cos), product(a, sin)})};
}

// The pairs are the halves of the last axis, or its neighbours when interleaved.
ValueId RotateLastAxis(FunctionBody& body, ValueId x, ValueId cos, ValueId sin, bool interleaved) {
  const int64_t half = body.extent(x, -1) / 2;
  const int64_t last{-1};
  if (!interleaved) {
    const auto halves = body.Ops("Split", {x, body.Ints({half, half})}, 2, {{"axis", last}});
    const auto [a, b] = Rotated(body, halves[0], halves[1], cos, sin);
    return body.Op("Concat", {a, b}, {{"axis", last}});
  }
  const ValueId pairs = body.Op("Reshape", {x, body.Ints({0, 0, 0, half, 2})});
  const auto both = body.Ops("Split", {pairs, body.Ints({1, 1})}, 2, {{"axis", last}});
  const ValueId axis = body.Ints({last});
  const auto [a, b] = Rotated(body, body.Op("Squeeze", {both[0], axis}),
                              body.Op("Squeeze", {both[1], axis}), cos, sin);
  const ValueId joined =
      body.Op("Concat", {body.Op("Unsqueeze", {a, axis}), body.Op("Unsqueeze", {b, axis})},
              {{"axis", last}});
  return body.Op("Reshape", {joined, body.Ints({0, 0, 0, 2 * half})});
}

// Inputs: x [B, S, N H] or [B, N, S, H], positions [1] or [B, S], caches of cosines and sines [P, R / 2].
absl::Status ExpandRotary(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(4, 4));
  OCTET_RETURN_IF_ERROR(RefuseNonZero(body, {"is_packed_batching"}));
  OCTET_ASSIGN_OR_RETURN(const float scale, body.attributes().Float("scale", 1.0F));
  if (scale != 1.0F) return Unimplemented("unsupported attribute 'scale' = {}", scale);
  OCTET_ASSIGN_OR_RETURN(const int64_t interleaved, body.attributes().Int("interleaved", 0));
  OCTET_ASSIGN_OR_RETURN(int64_t heads, body.attributes().Int("num_heads", 0));
  const ValueId x = body.input(0);
  const bool flat = body.rank(x) == 3;
  const int64_t width = body.extent(x, -1);
  const int64_t rotated = 2 * body.extent(body.input(2), 1);
  const int64_t length = body.extent(x, flat ? 1 : 2);
  const bool one_offset = body.rank(body.input(1)) == 1;
  if (width == kUnknownDim || rotated < 0 || (one_offset && length == kUnknownDim))
    return body.Later(body.value(x).dtype);
  if (flat && heads == 0) heads = width / std::max<int64_t>(rotated, 1);
  if (rotated == 0 || (flat && (heads < 1 || width % heads != 0)))
    return InvalidArgument("a hidden size of {} is not for {} heads", width, heads);
  ValueId positions = body.input(1);
  if (one_offset) {
    positions = body.Op("Add", {Positions<int64_t>(body, {1, length}), positions});
  }
  // The heads lie behind the positions in the flat form, before them in the other.
  const ValueId axis = body.Ints({flat ? 2 : 1});
  const auto cached = [&](size_t i) {
    return body.Op("Unsqueeze", {body.Op("Gather", {body.input(i), positions}), axis});
  };
  const ValueId cos = cached(2);
  const ValueId sin = cached(3);
  ValueId y = flat ? body.Op("Reshape", {x, body.Ints({0, 0, heads, width / heads})}) : x;
  const int64_t head_size = flat ? width / heads : width;
  if (rotated > head_size)
    return InvalidArgument("caches for {} of {} elements", rotated, head_size);
  if (rotated < head_size) {
    const auto parts = body.Ops("Split", {y, body.Ints({rotated, head_size - rotated})}, 2,
                                {{"axis", int64_t{-1}}});
    const ValueId turned = RotateLastAxis(body, parts[0], cos, sin, interleaved != 0);
    y = body.Op("Concat", {turned, parts[1]}, {{"axis", int64_t{-1}}});
  } else {
    y = RotateLastAxis(body, y, cos, sin, interleaved != 0);
  }
  body.Output(0, flat ? body.Op("Reshape", {y, body.Ints({0, 0, width})}) : y);
  return absl::OkStatus();
}

constexpr OpDef kAttentionOps[] = {
    Function(kMicrosoftDomain, "Attention", ExpandAttention),
    Function(kMicrosoftDomain, "QAttention", ExpandQAttention),
    Function(kMicrosoftDomain, "MultiHeadAttention", ExpandMultiHead),
    Function(kMicrosoftDomain, "RotaryEmbedding", ExpandRotary),
};

}  // namespace

std::span<const OpDef> AttentionOps() { return kAttentionOps; }

}  // namespace octet
