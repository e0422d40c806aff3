// com.microsoft's operators that ONNX has, too, with other operands or of an older opset: Trilu, GridSample, GatherND, Pad, Range,
// ExpandDims; and what diffusion models' optimizers fuse: NhwcConv, GroupNorm, SkipGroupNorm, BiasAdd, BiasSplitGelu.
// Source: ONNX Runtime 1.21, docs/ContribOperators.md.
#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/ops/channel_order.h"
#include "engine/ops/function.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr int64_t kTensorInt64 = 7;  // TensorProto.INT64

// ONNX's operator of the same name and operands. Of the attributes those that ONNX has: others may be what passes tell its kernels.
absl::Status ExpandNamesake(FunctionBody& body,
                            std::initializer_list<std::string_view> attributes) {
  Node node = body.node();
  node.domain = kOnnxDomain;
  node.attributes = Attributes();
  for (auto& [name, value] : body.Given(attributes))
    node.attributes.Set(std::string(name), std::move(value));
  body.Become(std::move(node));
  return absl::OkStatus();
}
absl::Status ExpandContribTrilu(FunctionBody& body) { return ExpandNamesake(body, {"upper"}); }
absl::Status ExpandContribGridSample(FunctionBody& body) {
  return ExpandNamesake(body, {"align_corners", "mode", "padding_mode"});
}
absl::Status ExpandContribGatherND(FunctionBody& body) {
  return ExpandNamesake(body, {"batch_dims"});
}

// Operands that decide shapes stay constants, for inference over the body folds nothing.
ValueId Reshaped(FunctionBody& body, ValueId x, const Shape& shape,
                 std::initializer_list<int64_t> dims) {
  const Value& value = body.value(x);
  if (value.is_constant() && value.shape->elements() == shape.elements())
    return body.Constant(value.constant.Reshaped(shape));
  return body.Op("Reshape", {x, body.Ints(dims)});
}
ValueId Flat(FunctionBody& body, ValueId x) {
  const Value& value = body.value(x);
  return Reshaped(body, x, Shape{value.is_constant() ? value.shape->elements() : 0}, {-1});
}
// Of one element that may be a vector.
ValueId AsScalar(FunctionBody& body, ValueId x) {
  return x == kNone ? kNone : Reshaped(body, x, Shape{}, {});
}

template <typename T>
ValueId One(FunctionBody& body) {
  return body.Constant(Tensor::Scalar<T>(1));
}

// Pads are [2 r] or [1, 2 r].
absl::Status ExpandContribPad(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 3));
  body.Output(
      0, body.Op("Pad", {body.input(0), Flat(body, body.input(1)), AsScalar(body, body.input(2))},
                 body.Given({"mode"})));
  return absl::OkStatus();
}

// The step is 1 when it is left out.
absl::Status ExpandContribRange(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 3));
  const ValueId start = AsScalar(body, body.input(0));
  ValueId delta = AsScalar(body, body.input(2));
  if (delta == kNone) {
    const DType dtype = body.value(start).dtype;
    delta = dtype == DType::kF64   ? One<double>(body)
            : dtype == DType::kI64 ? One<int64_t>(body)
            : dtype == DType::kI32 ? One<int32_t>(body)
            : dtype == DType::kI16 ? One<int16_t>(body)
                                   : One<float>(body);
  }
  body.Output(0, body.Op("Range", {start, AsScalar(body, body.input(1)), delta}));
  return absl::OkStatus();
}

absl::Status ExpandExpandDims(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 2));
  const Value& given = body.value(body.input(1));
  if (!given.is_constant()) {
    const ValueId axis = body.Op("Cast", {Flat(body, body.input(1))}, {{"to", kTensorInt64}});
    body.Output(0, body.Op("Unsqueeze", {body.input(0), axis}));
    return absl::OkStatus();
  }
  if (given.dtype != DType::kI32 || given.shape->elements() != 1)
    return InvalidArgument("'axis' is not one INT32");
  const int64_t axis = given.constant.span<int32_t>()[0];
  body.Output(0, body.Op("Unsqueeze", {body.input(0), body.Ints({axis})}));
  return absl::OkStatus();
}

// Shapes wait for the elements of the inputs from `first` to the last.
template <size_t first>
absl::Status InferWaiting(InferContext& context) {
  for (size_t i = first; i < context.input_count(); ++i) context.constant(i);
  return InferFunction(context);
}

constexpr OpDef Waiting(std::string_view name, ExpandFn expand, InferFn infer) {
  OpDef def = Function(kMicrosoftDomain, name, expand);
  def.infer = infer;
  return def;
}

// x and y are [N, spatial..., C], the weights [OC, C / group, k...].
absl::Status ExpandNhwcConv(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 3));
  const ValueId x = body.input(0);
  if (body.rank(x) < 0) return body.Later(body.value(x).dtype);
  if (body.rank(x) < 3) return InvalidArgument("expected rank 3 or more, got {}", body.rank(x));
  const ValueId y =
      body.Op("Conv", {ChannelsFirst(body, x), body.input(1), body.input(2)},
              body.Given({"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"}));
  if (body.rank(y) < 3) return body.Later(body.value(x).dtype);
  body.Output(0, ChannelsLast(body, y));
  return absl::OkStatus();
}

// y = activation(gamma (x - mean) / sqrt(variance + epsilon) + beta), mean and variance those of a group of channels.
absl::StatusOr<ValueId> NormalizedGroups(FunctionBody& body, ValueId x) {
  OCTET_ASSIGN_OR_RETURN(const float epsilon, body.attributes().Float("epsilon", 1e-5F));
  OCTET_ASSIGN_OR_RETURN(const int64_t groups, body.attributes().Int("groups", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t activation, body.attributes().Int("activation", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t last, body.attributes().Int("channels_last", 1));
  if (activation != 0 && activation != 1)
    return Unimplemented("unsupported attribute 'activation' = {}", activation);
  const ValueId first = last != 0 ? ChannelsFirst(body, x) : x;
  const int64_t channels = body.extent(first, 1);
  std::vector<int64_t> shape = {0};
  if (groups < 1 || groups > channels || channels % groups != 0)
    return InvalidArgument("{} channels do not divide into 'groups' = {}", channels, groups);
  // ONNX's InstanceNormalization, over groups in place of channels.
  const ValueId grouped = body.Op("Reshape", {first, body.Ints({0, groups, -1})});
  const std::vector<float> ones(static_cast<size_t>(groups), 1.0F);
  const std::vector<float> zeros(static_cast<size_t>(groups), 0.0F);
  ValueId y =
      body.Op("InstanceNormalization",
              {grouped, body.Floats(Shape{groups}, ones), body.Floats(Shape{groups}, zeros)},
              {{"epsilon", epsilon}});
  std::vector<int64_t> planes;
  for (int i = 1; i < body.rank(first); ++i) {
    shape.push_back(body.extent(first, i));
    if (i > 1) planes.push_back(i - 1);
  }
  std::vector<FunctionBody::Attribute> reading;
  if (body.extent(first, 0) >= 0 && std::ranges::contains(shape.begin() + 1, shape.end(), 0)) {
    // Else 0 would be the extent of the groups at the same place.
    shape[0] = body.extent(first, 0);
    reading.emplace_back("allowzero", int64_t{1});
  }
  y = body.Op("Reshape", {y, body.Ints(shape)}, reading);
  const auto per_channel = [&](size_t i) {
    return body.Op("Unsqueeze", {body.input(i), body.Ints(planes)});
  };
  y = body.Op("Add", {body.Op("Mul", {y, per_channel(1)}), per_channel(2)});
  if (activation == 1) y = body.Op("Mul", {y, body.Op("Sigmoid", {y})});
  return last != 0 ? ChannelsLast(body, y) : y;
}

// False while more than the batch is missing.
absl::StatusOr<bool> GroupNormIsKnown(const FunctionBody& body) {
  const ValueId x = body.input(0);
  if (body.rank(x) < 0) return false;
  if (body.rank(x) < 3) return InvalidArgument("expected rank 3 or more, got {}", body.rank(x));
  for (int i = 1; i < body.rank(x); ++i) {
    if (body.extent(x, i) == kUnknownDim) return false;
  }
  return true;
}

absl::Status ExpandContribGroupNorm(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(3, 3));
  OCTET_ASSIGN_OR_RETURN(const bool known, GroupNormIsKnown(body));
  if (!known) return body.Later(body.value(body.input(0)).dtype);
  OCTET_ASSIGN_OR_RETURN(const ValueId y, NormalizedGroups(body, body.input(0)));
  body.Output(0, y);
  return absl::OkStatus();
}

// Inputs: x, gamma, beta, skip (as x, or one value per sample and channel), bias. Outputs: y, and x + skip + bias.
absl::Status ExpandSkipGroupNorm(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(4, 5));
  OCTET_ASSIGN_OR_RETURN(const bool known, GroupNormIsKnown(body));
  if (!known || body.rank(body.input(3)) < 0) return body.Later(body.value(body.input(0)).dtype);
  OCTET_ASSIGN_OR_RETURN(const int64_t last, body.attributes().Int("channels_last", 1));
  const int rank = body.rank(body.input(0));
  // Axes that lie between the channels and what comes with fewer.
  std::vector<int64_t> spatial;
  for (int64_t i = 2; i < rank; ++i) spatial.push_back(last != 0 ? i - 1 : i);
  ValueId skip = body.input(3);
  if (body.rank(skip) == 2) skip = body.Op("Unsqueeze", {skip, body.Ints(spatial)});
  ValueId sum = body.Op("Add", {body.input(0), skip});
  if (body.has(4)) {
    ValueId bias = body.input(4);
    if (last == 0) {
      for (int64_t& axis : spatial) --axis;
      bias = body.Op("Unsqueeze", {bias, body.Ints(spatial)});
    }
    sum = body.Op("Add", {sum, bias});
  }
  OCTET_ASSIGN_OR_RETURN(const ValueId y, NormalizedGroups(body, sum));
  body.Output(0, y);
  if (body.wants(1)) body.Output(1, sum);
  return absl::OkStatus();
}

// y = x + bias + skip.
absl::Status ExpandBiasAdd(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(3, 3));
  const ValueId biased = body.Op("Add", {body.input(0), body.input(1)});
  body.Output(0, body.Op("Add", {biased, body.input(2)}));
  return absl::OkStatus();
}

// y = left * Gelu(right), the halves of x + bias along the last axis.
absl::Status ExpandBiasSplitGelu(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 2));
  const int64_t width = body.extent(body.input(0), -1);
  if (width == kUnknownDim) return body.Later(body.value(body.input(0)).dtype);
  if (width % 2 != 0) return InvalidArgument("{} elements have no halves", width);
  const ValueId sum = body.Op("Add", {body.input(0), body.input(1)});
  const auto halves =
      body.Ops("Split", {sum, body.Ints({width / 2, width / 2})}, 2, {{"axis", int64_t{-1}}});
  body.Output(0, body.Op("Mul", {halves[0], body.Op("Gelu", {halves[1]})}));
  return absl::OkStatus();
}

constexpr OpDef kContribFormOps[] = {
    Function(kMicrosoftDomain, "Trilu", ExpandContribTrilu),
    Function(kMicrosoftDomain, "GridSample", ExpandContribGridSample),
    Function(kMicrosoftDomain, "GatherND", ExpandContribGatherND),
    Waiting("Pad", ExpandContribPad, InferWaiting<1>),
    Waiting("Range", ExpandContribRange, InferWaiting<0>),
    Waiting("ExpandDims", ExpandExpandDims, InferWaiting<1>),
    Function(kMicrosoftDomain, "NhwcConv", ExpandNhwcConv),
    Function(kMicrosoftDomain, "GroupNorm", ExpandContribGroupNorm),
    Function(kMicrosoftDomain, "SkipGroupNorm", ExpandSkipGroupNorm),
    Function(kMicrosoftDomain, "BiasAdd", ExpandBiasAdd),
    Function(kMicrosoftDomain, "BiasSplitGelu", ExpandBiasSplitGelu),
};

}  // namespace

std::span<const OpDef> ContribFormOps() { return kContribFormOps; }

}  // namespace octet
