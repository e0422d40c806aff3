// The forms that operators had in opsets 1 to 6, as those of opset 7. What did not change meaning has one definition for
// both, in its own family. Experimental operators, which opset 10 and earlier took out again, are not among them.
// Source: ONNX, Changelog.md.
#include <algorithm>
#include <array>
#include <utility>

#include "engine/ops/function.h"
#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

Node WithoutAttributes(const FunctionBody& body, std::initializer_list<std::string_view> names) {
  Node node = body.node();
  node.attributes.Erase("consumed_inputs");
  for (const std::string_view name : names) node.attributes.Erase(name);
  return node;
}

// `b` with axes of extent 1 behind its own, so that its first axis meets axis `axis` of `a`.
absl::StatusOr<ValueId> AlignedAt(FunctionBody& body, ValueId a, ValueId b, int64_t axis) {
  const int rank = body.rank(a);
  const auto first = NormalizeAxis(axis, rank);
  const int64_t behind = first ? int64_t{rank} - *first - body.rank(b) : -1;
  if (behind < 0) {
    return InvalidArgument("input of rank {} does not fit at 'axis' = {} of rank {}", body.rank(b),
                           axis, rank);
  }
  if (behind == 0) return b;
  std::vector<int64_t> axes;
  for (int64_t i = 0; i < behind; ++i) axes.push_back(body.rank(b) + i);
  return body.Op("Unsqueeze", {b}, {{"axes", std::move(axes)}});
}

// b broadcasts to a, from `axis` on, or from the last axis when there is none.
absl::Status ExpandBroadcast(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 2));
  Node node = WithoutAttributes(body, {"broadcast", "axis"});
  OCTET_ASSIGN_OR_RETURN(const int64_t broadcast, body.attributes().Int("broadcast", 0));
  if (broadcast != 0 && body.attributes().has("axis")) {
    if (body.rank(node.inputs[0]) < 0 || body.rank(node.inputs[1]) < 0) {
      const bool compares = node.op == "Equal" || node.op == "Less" || node.op == "Greater";
      return body.Later(compares ? DType::kBool : body.value(node.inputs[0]).dtype);
    }
    OCTET_ASSIGN_OR_RETURN(const int64_t axis, body.attributes().Int("axis", 0));
    OCTET_ASSIGN_OR_RETURN(node.inputs[1], AlignedAt(body, node.inputs[0], node.inputs[1], axis));
  }
  body.Become(std::move(node));
  return absl::OkStatus();
}

// A slope of one element per channel.
absl::Status ExpandPRelu(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 2));
  Node node = WithoutAttributes(body, {});
  const int rank = body.rank(node.inputs[0]);
  if (rank < 0 || body.rank(node.inputs[1]) < 0)
    return body.Later(body.value(node.inputs[0]).dtype);
  if (body.rank(node.inputs[1]) == 1 && body.extent(node.inputs[1], 0) != 1 && rank > 1) {
    OCTET_ASSIGN_OR_RETURN(node.inputs[1], AlignedAt(body, node.inputs[0], node.inputs[1], 1));
  }
  body.Become(std::move(node));
  return absl::OkStatus();
}

absl::Status ExpandGemm(FunctionBody& body) {
  body.Become(WithoutAttributes(body, {"broadcast"}));
  return absl::OkStatus();
}

// One output is the form for inference, whatever the default of `is_test` was.
absl::Status ExpandIsTest(FunctionBody& body) {
  OCTET_ASSIGN_OR_RETURN(const int64_t is_test, body.attributes().Int("is_test", 1));
  if (is_test == 0) return Unimplemented("unsupported attribute 'is_test' = 0");
  Node node = WithoutAttributes(body, {"is_test"});
  if (node.op == "BatchNormalization" && body.wants(1))
    return Unimplemented("unsupported outputs of training");
  body.Become(std::move(node));
  return absl::OkStatus();
}

absl::Status ExpandCast(FunctionBody& body) {
  constexpr std::array<std::string_view, 14> kNames = {
      "UNDEFINED", "FLOAT", "UINT8", "INT8",    "UINT16", "INT16",  "INT32",
      "INT64",     "",      "BOOL",  "FLOAT16", "DOUBLE", "UINT32", "UINT64"};
  OCTET_ASSIGN_OR_RETURN(const std::string to, body.attributes().String("to", ""));
  const auto at = std::ranges::find(kNames, to);
  if (at == kNames.end() || at == kNames.begin() || to.empty())
    return Unimplemented("unsupported element type '{}'", to);
  Node node = body.node();
  node.attributes.Set("to", static_cast<int64_t>(at - kNames.begin()));
  body.Become(std::move(node));
  return absl::OkStatus();
}

absl::Status ExpandConcat(FunctionBody& body) {
  Node node = body.node();
  if (!node.attributes.has("axis")) node.attributes.Set("axis", int64_t{1});
  body.Become(std::move(node));
  return absl::OkStatus();
}

absl::Status ExpandReshape(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  OCTET_ASSIGN_OR_RETURN(const auto shape, body.attributes().Ints("shape", {}));
  Node node = WithoutAttributes(body, {"shape"});
  node.inputs = {body.input(0), body.Ints(shape)};
  body.Become(std::move(node));
  return absl::OkStatus();
}

absl::Status ExpandPad(FunctionBody& body) {
  OCTET_ASSIGN_OR_RETURN(const auto pads, body.attributes().Ints("paddings", {}));
  Node node = WithoutAttributes(body, {"paddings"});
  node.attributes.Set("pads", pads);
  body.Become(std::move(node));
  return absl::OkStatus();
}

// Defaults of fewer digits than opset 6 has.
absl::Status ExpandSelu(FunctionBody& body) {
  Node node = WithoutAttributes(body, {});
  if (!node.attributes.has("alpha")) node.attributes.Set("alpha", 1.6732F);
  if (!node.attributes.has("gamma")) node.attributes.Set("gamma", 1.0507F);
  body.Become(std::move(node));
  return absl::OkStatus();
}

// The extents of the parts as an attribute, or as a second input.
absl::Status ExpandSplit(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 2));
  Node node = body.node();
  if (!node.attributes.has("axis")) node.attributes.Set("axis", int64_t{0});
  if (body.has(1)) {
    const Tensor& parts = body.value(body.input(1)).constant;
    if (parts.empty_handle() || parts.dtype() != DType::kF32)
      return Unimplemented("unsupported 'split' that is no constant of floats");
    std::vector<int64_t> extents;
    for (const float extent : parts.span<float>()) {
      if (!(extent >= 0 && extent < 1e9F)) return InvalidArgument("'split' holds {}", extent);
      extents.push_back(static_cast<int64_t>(extent));
    }
    node.attributes.Set("split", std::move(extents));
    node.inputs.pop_back();
  }
  body.Become(std::move(node));
  return absl::OkStatus();
}

// The exponent of a norm as a float.
absl::Status ExpandLpPool(FunctionBody& body) {
  OCTET_ASSIGN_OR_RETURN(const float p, body.attributes().Float("p", 2.0F));
  const int64_t whole = p >= 1 && p <= 64 ? static_cast<int64_t>(p) : 0;
  if (static_cast<float>(whole) != p || whole == 0)
    return Unimplemented("unsupported attribute 'p' = {}", p);
  Node node = body.node();
  node.attributes.Set("p", whole);
  body.Become(std::move(node));
  return absl::OkStatus();
}

absl::Status ExpandUpsample(FunctionBody& body) {
  OCTET_ASSIGN_OR_RETURN(const float height, body.attributes().Float("height_scale", 1.0F));
  OCTET_ASSIGN_OR_RETURN(const float width, body.attributes().Float("width_scale", 1.0F));
  Node node = WithoutAttributes(body, {"height_scale", "width_scale"});
  node.attributes.Set("scales", std::vector<float>{1.0F, 1.0F, height, width});
  body.Become(std::move(node));
  return absl::OkStatus();
}

// From opset 7 on, an output that is not named is not computed.
absl::Status ExpandRecurrent(FunctionBody& body) {
  body.Become(WithoutAttributes(body, {"output_sequence"}));
  return absl::OkStatus();
}

constexpr OpDef Legacy(std::string_view name, ExpandFn expand, int until = 6) {
  return Function(kOnnxDomain, name, expand, 1, until);
}

constexpr OpDef kLegacyOps[] = {
    Legacy("Add", ExpandBroadcast),
    Legacy("Sub", ExpandBroadcast),
    Legacy("Mul", ExpandBroadcast),
    Legacy("Div", ExpandBroadcast),
    Legacy("Pow", ExpandBroadcast),
    Legacy("And", ExpandBroadcast),
    Legacy("Or", ExpandBroadcast),
    Legacy("Xor", ExpandBroadcast),
    Legacy("Equal", ExpandBroadcast),
    Legacy("Less", ExpandBroadcast),
    Legacy("Greater", ExpandBroadcast),
    Legacy("PRelu", ExpandPRelu),
    Legacy("Gemm", ExpandGemm),
    Legacy("BatchNormalization", ExpandIsTest),
    Legacy("Dropout", ExpandIsTest),
    Legacy("Cast", ExpandCast, 5),
    Legacy("Concat", ExpandConcat, 3),
    Legacy("Reshape", ExpandReshape, 4),
    Legacy("Pad", ExpandPad, 1),
    Legacy("Selu", ExpandSelu, 5),
    Legacy("Split", ExpandSplit, 1),
    Legacy("LpPool", ExpandLpPool, 1),
    Legacy("GlobalLpPool", ExpandLpPool, 1),
    Legacy("Upsample", ExpandUpsample),
    Legacy("LSTM", ExpandRecurrent),
    Legacy("GRU", ExpandRecurrent),
    Legacy("RNN", ExpandRecurrent),
};

}  // namespace

std::span<const OpDef> LegacyOps() { return kLegacyOps; }

}  // namespace octet
