// Normalisation as ONNX Runtime's transformer optimizer writes it: SkipLayerNormalization,
// SkipSimplifiedLayerNormalization, SimplifiedLayerNormalization, EmbedLayerNormalization, QEmbedLayerNormalization.
// Source: ONNX Runtime, docs/ContribOperators.md; Zhang and Sennrich 2019 (the simplified form).
#include <utility>

#include "engine/ops/function.h"
#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr int64_t kOnnxInt32 = 6;  // TensorProto.INT32

// y = x / sqrt(mean(x * x) + epsilon) * scale over the axes from `axis` on. Output 1: 1 / sqrt(..).
struct RootMeanSquare {
  ValueId y = kNone;
  ValueId inverse = kNone;
};
RootMeanSquare Simplified(FunctionBody& body, ValueId x, ValueId scale, int64_t axis,
                          float epsilon) {
  std::vector<int64_t> axes;
  for (int64_t i = axis; i < 0; ++i) axes.push_back(i);
  const ValueId mean = body.Op("ReduceMean", {body.Op("Mul", {x, x})}, {{"axes", axes}});
  const ValueId root = body.Op("Sqrt", {body.Op("Add", {mean, body.Scalar(epsilon)})});
  RootMeanSquare result;
  result.y = body.Op("Mul", {body.Op("Div", {x, root}), scale});
  if (body.wants(1) || body.wants(2)) result.inverse = body.Op("Reciprocal", {root});
  return result;
}

absl::Status ExpandSimplified(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 2));
  OCTET_ASSIGN_OR_RETURN(const float epsilon, body.attributes().Float("epsilon", 1e-5F));
  OCTET_ASSIGN_OR_RETURN(const int64_t axis, body.attributes().Int("axis", -1));
  const int rank = body.rank(body.input(0));
  if (rank < 0) return body.Later(body.value(body.input(0)).dtype);
  const auto first = NormalizeAxis(axis, rank);
  if (!first) return InvalidArgument("'axis' = {} is no axis of rank {}", axis, rank);
  const RootMeanSquare norm =
      Simplified(body, body.input(0), body.input(1), *first - rank, epsilon);
  body.Output(0, norm.y);
  if (body.wants(1)) body.Output(1, norm.inverse);
  return absl::OkStatus();
}

// input + skip (+ bias), and its normalisation. Outputs: y, mean, inverse deviation, the sum.
absl::Status ExpandSkip(FunctionBody& body) {
  const bool simplified = body.node().op == "SkipSimplifiedLayerNormalization";
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(3, simplified ? 4 : 5));
  OCTET_ASSIGN_OR_RETURN(const float epsilon, body.attributes().Float("epsilon", 1e-12F));
  const ValueId bias = body.input(simplified ? 3 : 4);
  ValueId sum = body.Op("Add", {body.input(0), body.input(1)});
  if (bias != kNone) sum = body.Op("Add", {sum, bias});
  if (simplified) {
    const RootMeanSquare norm = Simplified(body, sum, body.input(2), -1, epsilon);
    body.Output(0, norm.y);
    if (body.wants(2)) body.Output(2, norm.inverse);
  } else {
    const auto outputs = body.Ops("LayerNormalization", {sum, body.input(2), body.input(3)},
                                  body.wants(2)   ? 3
                                  : body.wants(1) ? 2
                                                  : 1,
                                  {{"epsilon", epsilon}});
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (body.wants(i)) body.Output(i, outputs[i]);
    }
  }
  if (body.wants(3)) body.Output(3, sum);
  return absl::OkStatus();
}

// y = LayerNormalization(word[ids] + position[0, 1, ..] + segment[segment ids]). Outputs: y, the count of each row's
// mask, the sum.
absl::Status ExpandEmbed(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 9));
  for (const size_t i : {2, 3, 5, 6}) {
    if (!body.has(i)) return InvalidArgument("input {} is missing", i);
  }
  if (body.has(1) != body.has(4))
    return InvalidArgument("segment ids and segment embedding come together");
  OCTET_ASSIGN_OR_RETURN(const float epsilon, body.attributes().Float("epsilon", 1e-12F));
  const ValueId ids = body.input(0);
  const int64_t length = body.extent(ids, 1);
  // The count of a mask is an integer.
  if (length == kUnknownDim && !body.has(8))
    return body.Later(body.value(body.input(2)).dtype, DType::kI32);
  ValueId position = body.input(3);
  position = body.has(8) ? body.Op("Gather", {position, body.input(8)})
                         : body.Op("Slice",
                                   {position, body.Ints({0}), body.Ints({length}), body.Ints({0})});
  ValueId sum = body.Op("Add", {body.Op("Gather", {body.input(2), ids}), position});
  if (body.has(1)) sum = body.Op("Add", {sum, body.Op("Gather", {body.input(4), body.input(1)})});
  body.Output(0, body.Op("LayerNormalization", {sum, body.input(5), body.input(6)},
                         {{"epsilon", epsilon}}));
  if (body.wants(1)) {
    // Without a mask the index is 0 for every row.
    const ValueId counted = body.has(7) ? body.input(7) : body.Op("Sub", {ids, ids});
    const ValueId count =
        body.Op("ReduceSum", {counted, body.Ints({1})}, {{"keepdims", int64_t{0}}});
    body.Output(1, body.Op("Cast", {count}, {{"to", kOnnxInt32}}));
  }
  if (body.wants(2)) body.Output(2, sum);
  return absl::OkStatus();
}

// The same of tables, gamma and beta in 8 bits. Inputs: ids, segment ids, word, position and segment embedding, gamma, beta, mask,
// the five scales, the five zero points.
absl::Status ExpandQuantizedEmbed(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 18));
  std::vector<ValueId> inputs = {body.input(0), body.input(1)};
  for (const size_t i : {2, 3, 4, 5, 6}) {
    const ValueId scale = body.input(i + 6);
    if (body.has(i) && scale == kNone) return InvalidArgument("input {} is missing", i + 6);
    inputs.push_back(body.has(i)
                         ? body.Op("DequantizeLinear", {body.input(i), scale, body.input(i + 11)})
                         : kNone);
  }
  inputs.push_back(body.input(7));
  const auto outputs = body.Ops("com.microsoft:EmbedLayerNormalization", std::move(inputs),
                                body.wants(1) ? 2 : 1, body.Given({"epsilon"}));
  for (size_t i = 0; i < outputs.size(); ++i) body.Output(i, outputs[i]);
  return absl::OkStatus();
}

constexpr OpDef kTransformerNormOps[] = {
    Function(kMicrosoftDomain, "SkipLayerNormalization", ExpandSkip),
    Function(kMicrosoftDomain, "SkipSimplifiedLayerNormalization", ExpandSkip),
    // ONNX Runtime has this one in ONNX's own domain.
    Function(kOnnxDomain, "SimplifiedLayerNormalization", ExpandSimplified),
    Function(kMicrosoftDomain, "EmbedLayerNormalization", ExpandEmbed),
    Function(kMicrosoftDomain, "QEmbedLayerNormalization", ExpandQuantizedEmbed),
};

}  // namespace

std::span<const OpDef> TransformerNormOps() { return kTransformerNormOps; }

}  // namespace octet
