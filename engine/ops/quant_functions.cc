// com.microsoft's operators on integers that stand for reals: MatMulIntegerToFloat, DynamicQuantizeMatMul,
// DynamicQuantizeLSTM, MatMulNBits, GatherBlockQuantized, QLinearConv, NhwcMaxPool, QLinearSoftmax, QLinearReduceMean, QLinearWhere.
// Source: ONNX Runtime, docs/ContribOperators.md.
#include <algorithm>
#include <utility>

#include "engine/graph/stored_value.h"
#include "engine/ops/channel_order.h"
#include "engine/ops/function.h"
#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op_list.h"
#include "engine/ops/recurrent_layer.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

bool IsConstant(const FunctionBody& body, ValueId id) {
  return id == kNone || body.value(id).is_constant();
}

absl::Status ExpectOneElement(const FunctionBody& body, size_t i) {
  if (!body.has(i) || body.rank(body.input(i)) < 1 || body.extent(body.input(i), 0) == 1)
    return absl::OkStatus();
  return Unimplemented("unsupported input {} of several elements", i);
}

// `x`, which is repeated where it is one element and `other` is [n]: DequantizeLinear takes as many scales as zero points.
ValueId RepeatedBeside(FunctionBody& body, ValueId x, ValueId other) {
  if (x == kNone || body.rank(other) != 1) return x;
  const int64_t count = body.extent(other, 0);
  const bool single = body.rank(x) == 0 || (body.rank(x) == 1 && body.extent(x, 0) == 1);
  if (!single || count == kUnknownDim || count == 1) return x;
  return body.Op("Expand", {x, body.Ints({count})});
}

// (a - a_zero) (b - b_zero) * a_scale * b_scale + bias. Where a's scale is a constant, as products of reals that
// import_qdq puts on integers; else as the chain that import_dynamic_quant knows.
ValueId ScaledProduct(FunctionBody& body, ValueId a, ValueId b, ValueId a_scale, ValueId b_scale,
                      ValueId a_zero, ValueId b_zero, ValueId bias) {
  ValueId y = kNone;
  if (IsConstant(body, a_scale) && IsConstant(body, a_zero)) {
    const ValueId left = body.Op("DequantizeLinear", {a, a_scale, a_zero});
    const ValueId right =
        body.Op("DequantizeLinear",
                {b, RepeatedBeside(body, b_scale, b_zero), RepeatedBeside(body, b_zero, b_scale)},
                {{"axis", int64_t{1}}});
    y = body.Op("MatMul", {left, right});
  } else {
    const ValueId sums = body.Op("MatMulInteger", {a, b, a_zero, b_zero});
    const ValueId reals = body.Op("Cast", {sums}, {{"to", kOnnxFloat}});
    y = body.Op("Mul", {reals, body.Op("Mul", {a_scale, b_scale})});
  }
  return bias == kNone ? y : body.Op("Add", {y, bias});
}

// Inputs: a, b, a_scale, b_scale, a_zero, b_zero, bias.
absl::Status ExpandMatMulIntegerToFloat(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(4, 7));
  OCTET_RETURN_IF_ERROR(ExpectOneElement(body, 2));
  OCTET_RETURN_IF_ERROR(ExpectOneElement(body, 4));
  body.Output(0, ScaledProduct(body, body.input(0), body.input(1), body.input(2), body.input(3),
                               body.input(4), body.input(5), body.input(6)));
  return absl::OkStatus();
}

// Inputs: a (reals), b, b_scale, b_zero, bias.
absl::Status ExpandDynamicQuantizeMatMul(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(3, 5));
  const auto a = body.Ops("DynamicQuantizeLinear", {body.input(0)}, 3);
  body.Output(0, ScaledProduct(body, a[0], body.input(1), a[1], body.input(2), a[2], body.input(3),
                               body.input(4)));
  return absl::OkStatus();
}

// Direction d of what has directions on axis 0, with that axis; what is one direction's already stays.
ValueId DirectionOf(FunctionBody& body, ValueId x, int64_t d, int64_t directions) {
  if (x == kNone || directions == 1) return x;
  return body.Op("Slice", {x, body.Ints({d}), body.Ints({d + 1}), body.Ints({0})});
}

// Integers [1, rows, 4 H] as the reals [1, 4 H, rows] that they stand for; scales and zero points are [1] or [1, 4 H].
ValueId LstmWeights(FunctionBody& body, ValueId weights, ValueId scale, ValueId zero) {
  const ValueId turned = body.Op("Transpose", {weights}, {{"perm", std::vector<int64_t>{0, 2, 1}}});
  const ValueId shape = body.rank(scale) == 2 ? body.Ints({-1}) : body.Ints({});
  return body.Op("DequantizeLinear",
                 {turned, body.Op("Reshape", {scale, shape}), body.Op("Reshape", {zero, shape})},
                 {{"axis", int64_t{1}}});
}

// The attributes of direction d as a layer's of its own.
absl::StatusOr<std::vector<FunctionBody::Attribute>> LstmAttributes(const FunctionBody& body,
                                                                    int64_t d, int64_t directions) {
  auto attributes = body.Given({"clip", "hidden_size", "input_forget"});
  OCTET_ASSIGN_OR_RETURN(const std::string direction,
                         body.attributes().String("direction", "forward"));
  attributes.emplace_back("direction", directions == 1 ? direction
                                       : d == 0        ? std::string("forward")
                                                       : std::string("reverse"));
  OCTET_ASSIGN_OR_RETURN(const auto activations,
                         ReadActivations(body.node(), DefaultActivations(CellKind::kLstm),
                                         static_cast<size_t>(directions)));
  std::vector<std::string> names;
  std::vector<float> alphas;
  std::vector<float> betas;
  const size_t count = activations.size() / static_cast<size_t>(directions);
  for (const auto& activation :
       std::span(activations).subspan(static_cast<size_t>(d) * count, count)) {
    names.emplace_back(activation.name());
    if (activation.takes_alpha()) alphas.push_back(activation.alpha);
    if (activation.takes_beta()) betas.push_back(activation.beta);
  }
  attributes.emplace_back("activations", std::move(names));
  if (!alphas.empty()) attributes.emplace_back("activation_alpha", std::move(alphas));
  if (!betas.empty()) attributes.emplace_back("activation_beta", std::move(betas));
  return attributes;
}

// X, W and R by the reals that their integers stand for, which import_dynamic_quant knows; one LSTM per direction, since
// scales along an axis are the same for all directions.
absl::Status ExpandDynamicQuantizeLstm(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(3, 12));
  for (const size_t i : {8, 9, 10, 11}) {
    if (!body.has(i)) return InvalidArgument("input {} is missing", i);
    if (body.rank(body.input(i)) < 0) return body.Later(DType::kF32);
  }
  const int64_t directions = body.extent(body.input(1), 0);
  if (directions == kUnknownDim) return body.Later(DType::kF32);
  if (directions != 1 && directions != 2)
    return InvalidArgument("input 1 has {} directions", directions);
  const auto x = body.Ops("DynamicQuantizeLinear", {body.input(0)}, 3);
  const ValueId reals = body.Op("DequantizeLinear", {x[0], x[1], x[2]});
  std::vector<std::vector<ValueId>> outputs;
  for (int64_t d = 0; d < directions; ++d) {
    const auto of = [&](size_t i) { return DirectionOf(body, body.input(i), d, directions); };
    OCTET_ASSIGN_OR_RETURN(const auto attributes, LstmAttributes(body, d, directions));
    std::vector<ValueId> inputs = {reals,
                                   LstmWeights(body, of(1), of(8), of(9)),
                                   LstmWeights(body, of(2), of(10), of(11)),
                                   of(3),
                                   body.input(4),
                                   of(5),
                                   of(6),
                                   of(7)};
    outputs.push_back(body.Ops("LSTM", std::move(inputs), 3, attributes));
  }
  for (size_t i = 0; i < 3; ++i) {
    if (!body.wants(i)) continue;
    const int64_t axis = i == 0 ? 1 : 0;
    body.Output(i, directions == 1
                       ? outputs[0][i]
                       : body.Op("Concat", {outputs[0][i], outputs[1][i]}, {{"axis", axis}}));
  }
  return absl::OkStatus();
}

// The weights of MatMulNBits: [N, blocks, block * bits / 8] packed integers, low bits first.
struct PackedWeights {
  int64_t rows = 0;     ///< K
  int64_t columns = 0;  ///< N
  int64_t bits = 4;
  int64_t block = 0;
  int64_t blocks() const { return (rows + block - 1) / block; }
  int64_t row_bytes() const { return blocks() * block * bits / 8; }
};

absl::StatusOr<PackedWeights> ReadPackedWeights(const FunctionBody& body) {
  PackedWeights packed;
  OCTET_ASSIGN_OR_RETURN(packed.rows, body.attributes().Int("K", 0));
  OCTET_ASSIGN_OR_RETURN(packed.columns, body.attributes().Int("N", 0));
  OCTET_ASSIGN_OR_RETURN(packed.bits, body.attributes().Int("bits", 4));
  OCTET_ASSIGN_OR_RETURN(packed.block, body.attributes().Int("block_size", 128));
  if (packed.bits != 2 && packed.bits != 4 && packed.bits != 8)
    return Unimplemented("unsupported attribute 'bits' = {}", packed.bits);
  constexpr int64_t kMost = int64_t{1} << 24;  // Of K and N: no layer comes near, and products fit.
  const bool sane = packed.rows > 0 && packed.columns > 0 && packed.rows <= kMost &&
                    packed.columns <= kMost && packed.block >= 16 && packed.block <= kMost &&
                    (packed.block & (packed.block - 1)) == 0;
  if (!sane) {
    return InvalidArgument("'K' = {}, 'N' = {}, 'block_size' = {} describe no weights", packed.rows,
                           packed.columns, packed.block);
  }
  return packed;
}

uint32_t PackedAt(const uint8_t* row, int64_t i, int64_t bits) {
  const int64_t per_byte = 8 / bits;
  return static_cast<uint32_t>(row[i / per_byte] >> (i % per_byte * bits)) & ((1U << bits) - 1);
}

// Constants of MatMulNBits; zero points are packed as the weights are, or floats as the scales; the block of each row may
// be listed.
struct NBitsConstants {
  Tensor weights;
  Tensor scales;
  Tensor zeros;
  Tensor groups;
};

// Reals are those of the activations, F16 and BF16 too; what follows reads F32.
absl::Status WidenReals(Tensor& reals) {
  if (reals.empty_handle() || reals.dtype() == DType::kF32) return absl::OkStatus();
  if (!IsNarrowReal(reals.dtype())) {
    return Unimplemented("unsupported scales or zero points of element type {}",
                         DTypeName(reals.dtype()));
  }
  Tensor wide(DType::kF32, reals.shape());
  ConvertTensor(reals.view(), wide.mutable_view());
  reals = std::move(wide);
  return absl::OkStatus();
}

absl::Status CheckNBits(const PackedWeights& packed, const NBitsConstants& c) {
  const int64_t blocks = packed.blocks();
  const int64_t zero_bytes = (blocks * packed.bits + 7) / 8;
  const bool weights = c.weights.dtype() == DType::kU8 &&
                       c.weights.elements() == packed.columns * packed.row_bytes();
  const bool scales =
      c.scales.dtype() == DType::kF32 && c.scales.elements() == packed.columns * blocks;
  const bool packed_zeros =
      c.zeros.dtype() == DType::kU8 && c.zeros.elements() == packed.columns * zero_bytes;
  const bool real_zeros =
      c.zeros.dtype() == DType::kF32 && c.zeros.elements() == packed.columns * blocks;
  const bool zeros = c.zeros.empty_handle() || packed_zeros || real_zeros;
  if (!weights || !scales || !zeros) {
    return InvalidArgument(
        "weights, scales or zero points are not those of {} x {} in blocks of {}", packed.columns,
        packed.rows, packed.block);
  }
  if (c.groups.empty_handle()) return absl::OkStatus();
  if (c.groups.dtype() != DType::kI32 || c.groups.elements() < packed.rows)
    return InvalidArgument("'g_idx' has not {} elements", packed.rows);
  for (const int32_t group : c.groups.span<int32_t>()) {
    if (group < 0 || group >= blocks)
      return InvalidArgument("'g_idx' holds {}, there are {} blocks", group, blocks);
  }
  return absl::OkStatus();
}

// [K, N] reals: scale[n, block] * (q - zero[n, block]).
Tensor UnpackNBits(const PackedWeights& packed, const NBitsConstants& c) {
  const int64_t blocks = packed.blocks();
  const int64_t zero_bytes = (blocks * packed.bits + 7) / 8;
  Tensor reals(DType::kF32, Shape{packed.rows, packed.columns});
  float* to = reals.mutable_span<float>().data();
  const bool packed_zeros = !c.zeros.empty_handle() && c.zeros.dtype() == DType::kU8;
  ParallelFor(packed.columns, 1 + 16384 / packed.rows, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const uint8_t* row = c.weights.span<uint8_t>().data() + n * packed.row_bytes();
      for (int64_t k = 0; k < packed.rows; ++k) {
        const int64_t block = c.groups.empty_handle()
                                  ? k / packed.block
                                  : c.groups.span<int32_t>()[static_cast<size_t>(k)];
        auto zero = static_cast<float>(1U << (packed.bits - 1));
        if (packed_zeros) {
          zero = static_cast<float>(
              PackedAt(c.zeros.span<uint8_t>().data() + n * zero_bytes, block, packed.bits));
        } else if (!c.zeros.empty_handle()) {
          zero = c.zeros.span<float>()[static_cast<size_t>(n * blocks + block)];
        }
        const float scale = c.scales.span<float>()[static_cast<size_t>(n * blocks + block)];
        const auto q = static_cast<float>(PackedAt(row, k, packed.bits));
        to[k * packed.columns + n] = scale * (q - zero);
      }
    }
  });
  return reals;
}

// Whether each row's block is the one that it lies in.
bool BlocksAreRuns(const PackedWeights& packed, const Tensor& groups) {
  if (groups.empty_handle()) return true;
  const auto of_rows = groups.span<int32_t>();
  for (int64_t k = 0; k < packed.rows; ++k) {
    if (of_rows[static_cast<size_t>(k)] != k / packed.block) return false;
  }
  return true;
}

// The same reals as DequantizeLinear in blocks down K makes them of bytes, of which pack_four_bits makes 4 bits again. Requires:
// BlocksAreRuns, and zero points that are integers.
ValueId DequantizedBlocks(FunctionBody& body, const PackedWeights& packed,
                          const NBitsConstants& c) {
  const int64_t blocks = packed.blocks();
  const int64_t zero_bytes = (blocks * packed.bits + 7) / 8;
  const auto middle = static_cast<int>(1U << (packed.bits - 1));
  const auto signed_at = [&](const uint8_t* row, int64_t i) {
    return static_cast<int8_t>(static_cast<int>(PackedAt(row, i, packed.bits)) - middle);
  };
  Tensor integers(DType::kI8, Shape{packed.rows, packed.columns});
  Tensor scales(DType::kF32, Shape{blocks, packed.columns});
  Tensor zeros(DType::kI8, scales.shape());
  ParallelFor(packed.columns, 1 + 16384 / packed.rows, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const uint8_t* row = c.weights.span<uint8_t>().data() + n * packed.row_bytes();
      int8_t* to = integers.mutable_span<int8_t>().data() + n;
      for (int64_t k = 0; k < packed.rows; ++k) to[k * packed.columns] = signed_at(row, k);
      for (int64_t b = 0; b < blocks; ++b) {
        const auto at = static_cast<size_t>(b * packed.columns + n);
        scales.mutable_span<float>()[at] =
            c.scales.span<float>()[static_cast<size_t>(n * blocks + b)];
        zeros.mutable_span<int8_t>()[at] =
            c.zeros.empty_handle() ? int8_t{0}
                                   : signed_at(c.zeros.span<uint8_t>().data() + n * zero_bytes, b);
      }
    }
  });
  return body.Op("DequantizeLinear",
                 {body.Constant(std::move(integers)), body.Constant(std::move(scales)),
                  body.Constant(std::move(zeros))},
                 {{"axis", int64_t{0}}, {"block_size", packed.block}});
}

// Inputs: a, b, scales, zero_points, g_idx, bias.
absl::Status ExpandMatMulNBits(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(3, 6));
  OCTET_ASSIGN_OR_RETURN(const PackedWeights packed, ReadPackedWeights(body));
  NBitsConstants c;
  Tensor* const tensors[] = {&c.weights, &c.scales, &c.zeros, &c.groups};
  for (size_t i = 0; i < 4; ++i) {
    if (!body.has(i + 1)) continue;
    if (!body.value(body.input(i + 1)).is_constant())
      return Unimplemented("unsupported input {} that is no constant", i + 1);
    *tensors[i] = body.value(body.input(i + 1)).constant;
  }
  OCTET_RETURN_IF_ERROR(WidenReals(c.scales));
  if (c.zeros.dtype() != DType::kU8) OCTET_RETURN_IF_ERROR(WidenReals(c.zeros));
  OCTET_RETURN_IF_ERROR(CheckNBits(packed, c));
  const bool integers = packed.bits <= 4 && BlocksAreRuns(packed, c.groups) &&
                        (c.zeros.empty_handle() || c.zeros.dtype() == DType::kU8);
  const ValueId reals =
      integers ? DequantizedBlocks(body, packed, c) : body.Constant(UnpackNBits(packed, c));
  ValueId y = body.Op("MatMul", {body.input(0), reals});
  if (body.has(5)) y = body.Op("Add", {y, body.input(5)});
  body.Output(0, y);
  return absl::OkStatus();
}

// Rows of a table of 4 bits, which the reader has put into bytes: it refuses those that a file packs into UINT8 itself.
// Inputs: data, indices, scales, zero_points. Scales are those of DequantizeLinear with blocks along `quantize_axis`.
absl::Status ExpandGatherBlockQuantized(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(3, 4));
  OCTET_ASSIGN_OR_RETURN(const int64_t block, body.attributes().Int("block_size", 128));
  OCTET_ASSIGN_OR_RETURN(const int64_t blocks_axis, body.attributes().Int("quantize_axis", 1));
  OCTET_ASSIGN_OR_RETURN(const int64_t axis, body.attributes().Int("gather_axis", 0));
  if (block <= 0) return InvalidArgument("impossible 'block_size': {}", block);
  const ValueId table = body.Op("DequantizeLinear", {body.input(0), body.input(2), body.input(3)},
                                {{"axis", blocks_axis}, {"block_size", block}});
  body.Output(0, body.Op("Gather", {table, body.input(1)}, {{"axis", axis}}));
  return absl::OkStatus();
}

// MaxPool of [N, spatial..., C]: how ONNX Runtime saves one between QLinearConvs that are channels_last.
absl::Status ExpandNhwcMaxPool(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  if (body.rank(body.input(0)) < 3) return body.Later(body.value(body.input(0)).dtype);
  const ValueId y = body.Op(
      "MaxPool", {ChannelsFirst(body, body.input(0))},
      body.Given({"auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides"}));
  body.Output(0, ChannelsLast(body, y));
  return absl::OkStatus();
}

// ONNX's QLinearConv; channels_last = 1: x and y are [N, spatial..., C].
absl::Status ExpandQLinearConv(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(8, 9));
  OCTET_ASSIGN_OR_RETURN(const int64_t channels_last, body.attributes().Int("channels_last", 0));
  const int rank = body.rank(body.input(0));
  if (channels_last != 0 && rank < 3) return body.Later(body.value(body.input(7)).dtype);
  const auto attributes =
      body.Given({"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"});
  std::vector<ValueId> inputs(body.inputs().begin(), body.inputs().end());
  if (channels_last == 0) {
    body.Output(0, body.Op("QLinearConv", std::move(inputs), attributes));
    return absl::OkStatus();
  }
  inputs[0] = ChannelsFirst(body, inputs[0]);
  body.Output(0, ChannelsLast(body, body.Op("QLinearConv", std::move(inputs), attributes)));
  return absl::OkStatus();
}

ValueId RealsAt(FunctionBody& body, size_t i) {
  return body.Op("DequantizeLinear", {body.input(i), body.input(i + 1), body.input(i + 2)});
}
void OutputIntegers(FunctionBody& body, ValueId reals, size_t scale) {
  body.Output(0, body.Op("QuantizeLinear", {reals, body.input(scale), body.input(scale + 1)}));
}

// Inputs: x, x_scale, x_zero, y_scale, y_zero. `opset` says which Softmax is meant: before 13 the axes from `axis` on are one.
absl::Status ExpandQLinearSoftmax(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 5));
  OCTET_ASSIGN_OR_RETURN(const int64_t opset, body.attributes().Int("opset", 13));
  OCTET_ASSIGN_OR_RETURN(const int64_t axis,
                         body.attributes().Int("axis", opset < 13 ? int64_t{1} : int64_t{-1}));
  const ValueId x = RealsAt(body, 0);
  if (opset >= 13) {
    OutputIntegers(body, body.Op("Softmax", {x}, {{"axis", axis}}), 3);
    return absl::OkStatus();
  }
  const int rank = body.rank(x);
  if (rank < 0 || !body.value(x).shape->is_static())
    return body.Later(body.value(body.input(0)).dtype);
  const auto first = NormalizeAxis(axis, rank);
  if (!first) return InvalidArgument("'axis' = {} is no axis of rank {}", axis, rank);
  const Shape shape = *body.value(x).shape;
  std::vector<FunctionBody::Attribute> reading;
  if (std::ranges::contains(shape, 0)) reading.emplace_back("allowzero", int64_t{1});
  const ValueId flat =
      body.Op("Reshape", {x, body.Ints({shape.elements(0, *first), shape.elements(*first, rank)})},
              reading);
  const ValueId y = body.Op("Softmax", {flat}, {{"axis", int64_t{-1}}});
  OutputIntegers(body, body.Op("Reshape", {y, body.Ints(shape.dims())}, reading), 3);
  return absl::OkStatus();
}

absl::Status ExpandQLinearReduceMean(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 5));
  OutputIntegers(body, body.Op("ReduceMean", {RealsAt(body, 0)}, body.Given({"axes", "keepdims"})),
                 3);
  return absl::OkStatus();
}

// Inputs: condition, x, x_scale, x_zero, y, y_scale, y_zero, z_scale, z_zero.
absl::Status ExpandQLinearWhere(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(9, 9));
  OutputIntegers(body, body.Op("Where", {body.input(0), RealsAt(body, 1), RealsAt(body, 4)}), 7);
  return absl::OkStatus();
}

constexpr OpDef kQuantFunctionOps[] = {
    Function(kMicrosoftDomain, "MatMulIntegerToFloat", ExpandMatMulIntegerToFloat),
    Function(kMicrosoftDomain, "DynamicQuantizeMatMul", ExpandDynamicQuantizeMatMul),
    Function(kMicrosoftDomain, "DynamicQuantizeLSTM", ExpandDynamicQuantizeLstm),
    Function(kMicrosoftDomain, "MatMulNBits", ExpandMatMulNBits),
    Function(kMicrosoftDomain, "GatherBlockQuantized", ExpandGatherBlockQuantized),
    Function(kMicrosoftDomain, "QLinearConv", ExpandQLinearConv),
    Function(kMicrosoftDomain, "NhwcMaxPool", ExpandNhwcMaxPool),
    Function(kMicrosoftDomain, "QLinearSoftmax", ExpandQLinearSoftmax),
    Function(kMicrosoftDomain, "QLinearReduceMean", ExpandQLinearReduceMean),
    Function(kMicrosoftDomain, "QLinearWhere", ExpandQLinearWhere),
};

}  // namespace

std::span<const OpDef> QuantFunctionOps() { return kQuantFunctionOps; }

}  // namespace octet
