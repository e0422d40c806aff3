// Operators on sequences of tensors, and on values that may be absent.
#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using Inputs = std::span<const Datum* const>;
using Outputs = absl::StatusOr<std::vector<Datum>>;

// ---- Inference

absl::Status ExpectSequence(const InferContext& context, size_t i) {
  const ValueKind kind = context.input(i).kind;
  if (kind == ValueKind::kSequence || kind == ValueKind::kOptionalSequence) return absl::OkStatus();
  return context.Error(Format("input {} '{}' must be a sequence, got a value of kind {}", i,
                              context.input(i).name, ValueKindName(kind)));
}

absl::Status ExpectTensor(const InferContext& context, size_t i) {
  if (!context.has_input(i)) return absl::OkStatus();
  const ValueKind kind = context.input(i).kind;
  if (kind == ValueKind::kTensor || kind == ValueKind::kOptionalTensor) return absl::OkStatus();
  return context.Error(Format("input {} '{}' must be a tensor, got a value of kind {}", i,
                              context.input(i).name, ValueKindName(kind)));
}

absl::Status ExpectPosition(const InferContext& context, size_t i) {
  OCTET_RETURN_IF_ERROR(ExpectTensor(context, i));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, i, kIndexTypes));
  return ExpectScalar(context, i);
}

absl::Status InferSequenceEmpty(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 0, 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t number, context.attributes().Int("dtype", kOnnxFloat));
  const std::optional<DType> dtype = DTypeOfOnnx(number);
  if (!dtype) {
    return Unimplemented("{}: unsupported element type {} of ONNX", Describe(context.node()),
                         number);
  }
  return context.SetOutput(0, ValueType{ValueKind::kSequence, *dtype}, std::nullopt);
}

absl::Status InferSequenceConstruct(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, SIZE_MAX));
  for (size_t i = 0; i < context.input_count(); ++i) {
    OCTET_RETURN_IF_ERROR(ExpectTensor(context, i));
    OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, i));
    if (!context.has_input(i)) return context.Error(Format("input {} is missing", i));
  }
  return context.SetOutput(0, ValueType{ValueKind::kSequence, context.dtype(0)}, std::nullopt);
}

absl::Status InferSequenceAt(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectSequence(context, 0));
  OCTET_RETURN_IF_ERROR(ExpectPosition(context, 1));
  return context.SetOutput(0, context.dtype(0), std::nullopt);
}

absl::Status InferSequenceInsert(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 3));
  OCTET_RETURN_IF_ERROR(ExpectSequence(context, 0));
  OCTET_RETURN_IF_ERROR(ExpectTensor(context, 1));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 1));
  OCTET_RETURN_IF_ERROR(ExpectPosition(context, 2));
  return context.SetOutput(0, ValueType{ValueKind::kSequence, context.dtype(0)}, std::nullopt);
}

absl::Status InferSequenceErase(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 2));
  OCTET_RETURN_IF_ERROR(ExpectSequence(context, 0));
  OCTET_RETURN_IF_ERROR(ExpectPosition(context, 1));
  return context.SetOutput(0, ValueType{ValueKind::kSequence, context.dtype(0)}, std::nullopt);
}

absl::Status InferSequenceLength(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectSequence(context, 0));
  return context.SetOutput(0, DType::kI64, Shape{});
}

absl::Status InferSplitToSequence(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 2));
  OCTET_RETURN_IF_ERROR(ExpectTensor(context, 0));
  OCTET_RETURN_IF_ERROR(ExpectTensor(context, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kIndexTypes));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, 0, 1));
  if (context.shape(0)) {
    OCTET_RETURN_IF_ERROR(AxisAttribute(context, "axis", 0, context.shape(0)->rank()).status());
  }
  return context.SetOutput(0, ValueType{ValueKind::kSequence, context.dtype(0)}, std::nullopt);
}

absl::Status InferConcatFromSequence(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectSequence(context, 0));
  if (!context.attributes().has("axis")) return context.Error("lacks its attribute 'axis'");
  return context.SetOutput(0, context.dtype(0), std::nullopt);
}

ValueKind AsOptional(ValueKind kind) {
  return kind == ValueKind::kTensor     ? ValueKind::kOptionalTensor
         : kind == ValueKind::kSequence ? ValueKind::kOptionalSequence
                                        : kind;
}

ValueKind OfOptional(ValueKind kind) {
  return kind == ValueKind::kOptionalTensor     ? ValueKind::kTensor
         : kind == ValueKind::kOptionalSequence ? ValueKind::kSequence
                                                : kind;
}

absl::Status InferOptional(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 0, 1));
  ValueType type;
  if (context.has_input(0)) {
    type = {context.input(0).kind, context.dtype(0)};
  } else {
    OCTET_ASSIGN_OR_RETURN(type, context.attributes().Type("type", {}));
    if (type.dtype == DType::kUndefined)
      return context.Error("has neither an input nor the attribute 'type'");
  }
  type.kind = AsOptional(type.kind);
  return context.SetOutput(0, type, std::nullopt);
}

absl::Status InferOptionalHasElement(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 0, 1));
  return context.SetOutput(0, DType::kBool, Shape{});
}

absl::Status InferOptionalGetElement(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  const ValueType type{OfOptional(context.input(0).kind), context.dtype(0)};
  return context.SetOutput(0, type, context.shape(0));
}

// ---- Evaluation

const Datum* InputAt(Inputs inputs, size_t i) { return i < inputs.size() ? inputs[i] : nullptr; }

Outputs One(Datum datum) {
  std::vector<Datum> outputs;
  outputs.push_back(std::move(datum));
  return outputs;
}

absl::StatusOr<const std::vector<Tensor>*> SequenceInput(Inputs inputs, size_t i) {
  if (inputs[i]->is_sequence()) return &inputs[i]->sequence;
  return InvalidArgument("input {} is an optional without an element, or no sequence", i);
}

absl::StatusOr<const Tensor*> TensorInput(Inputs inputs, size_t i) {
  if (inputs[i]->is_tensor()) return &inputs[i]->tensor;
  return InvalidArgument("input {} is an optional without an element, or no tensor", i);
}

/// A position in a sequence of `length`, negative ones from its end; `fallback` when absent. One behind the last may be
/// allowed.
absl::StatusOr<int64_t> PositionIn(Inputs inputs, size_t i, int64_t length, int64_t last,
                                   int64_t fallback) {
  int64_t position = fallback;
  if (InputAt(inputs, i) != nullptr) {
    OCTET_ASSIGN_OR_RETURN(const Tensor* tensor, TensorInput(inputs, i));
    if (tensor->elements() != 1) {
      return InvalidArgument("the position must be a scalar, got shape {}",
                             tensor->shape().ToString());
    }
    position = ToInts(tensor->view()).front();
  }
  if (position < -length || position > last) {
    return InvalidArgument("the position is outside of the sequence: expected {} to {}, got {}",
                           -length, last, position);
  }
  return position < 0 ? position + length : position;
}

Outputs SequenceEmpty(const Node& /*node*/, Inputs /*inputs*/) { return One(Datum::Sequence({})); }

Outputs SequenceConstruct(const Node& /*node*/, Inputs inputs) {
  std::vector<Tensor> tensors;
  for (size_t i = 0; i < inputs.size(); ++i) {
    OCTET_ASSIGN_OR_RETURN(const Tensor* tensor, TensorInput(inputs, i));
    tensors.push_back(*tensor);
  }
  return One(Datum::Sequence(std::move(tensors)));
}

Outputs SequenceAt(const Node& /*node*/, Inputs inputs) {
  OCTET_ASSIGN_OR_RETURN(const auto* sequence, SequenceInput(inputs, 0));
  const int64_t length = std::ssize(*sequence);
  OCTET_ASSIGN_OR_RETURN(const int64_t position, PositionIn(inputs, 1, length, length - 1, 0));
  return One(Datum::Of((*sequence)[position]));
}

Outputs SequenceInsert(const Node& /*node*/, Inputs inputs) {
  OCTET_ASSIGN_OR_RETURN(const auto* sequence, SequenceInput(inputs, 0));
  OCTET_ASSIGN_OR_RETURN(const Tensor* tensor, TensorInput(inputs, 1));
  const int64_t length = std::ssize(*sequence);
  OCTET_ASSIGN_OR_RETURN(const int64_t position, PositionIn(inputs, 2, length, length, length));
  std::vector<Tensor> tensors;
  tensors.reserve(sequence->size() + 1);
  tensors = *sequence;
  tensors.insert(tensors.begin() + position, *tensor);
  return One(Datum::Sequence(std::move(tensors)));
}

Outputs SequenceErase(const Node& /*node*/, Inputs inputs) {
  OCTET_ASSIGN_OR_RETURN(const auto* sequence, SequenceInput(inputs, 0));
  const int64_t length = std::ssize(*sequence);
  OCTET_ASSIGN_OR_RETURN(const int64_t position,
                         PositionIn(inputs, 1, length, length - 1, length - 1));
  std::vector<Tensor> tensors = *sequence;
  tensors.erase(tensors.begin() + position);
  return One(Datum::Sequence(std::move(tensors)));
}

Outputs SequenceLength(const Node& /*node*/, Inputs inputs) {
  OCTET_ASSIGN_OR_RETURN(const auto* sequence, SequenceInput(inputs, 0));
  return One(Datum::Of(Tensor::Scalar<int64_t>(std::ssize(*sequence))));
}

/// RESOURCE_EXHAUSTED for more parts than any sequence has: each of them is a tensor, many times as large as an element.
absl::Status CheckPartCount(int64_t count) {
  constexpr int64_t kMostParts = int64_t{1} << 20;
  if (count <= kMostParts) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted, "too many parts: at most {}, got {}",
                   kMostParts, count);
}

/// Extents of the parts along the axis: ones, or all of `split` elements but the last, or the elements of `split`.
absl::StatusOr<std::vector<int64_t>> PartExtents(Inputs inputs, int64_t extent) {
  if (InputAt(inputs, 1) == nullptr) {
    OCTET_RETURN_IF_ERROR(CheckPartCount(extent));
    return std::vector<int64_t>(static_cast<size_t>(extent), 1);
  }
  OCTET_ASSIGN_OR_RETURN(const Tensor* split, TensorInput(inputs, 1));
  std::vector<int64_t> parts = ToInts(split->view());
  if (split->shape().rank() == 0) {
    const int64_t part = parts.front();
    if (part < 1) return InvalidArgument("'split' must be at least 1, got {}", part);
    OCTET_RETURN_IF_ERROR(CheckPartCount(extent / part));
    parts.clear();
    for (int64_t at = 0; at < extent; at += std::min(part, extent - at))
      parts.push_back(std::min(part, extent - at));
    return parts;
  }
  OCTET_RETURN_IF_ERROR(CheckPartCount(std::ssize(parts)));
  int64_t left = extent;
  for (const int64_t part : parts) {
    if (part < 0 || part > left)
      return InvalidArgument("'split' is more than the axis has: {}", extent);
    left -= part;
  }
  if (left != 0) return InvalidArgument("'split' leaves {} of {} elements", left, extent);
  return parts;
}

/// Elements [begin, begin + count) of the axis.
Tensor PartOf(const Tensor& x, int axis, int64_t begin, int64_t count) {
  Shape shape = x.shape();
  shape[axis] = count;
  Tensor part(x.dtype(), shape);
  const int64_t outer = x.shape().elements(0, axis);
  const size_t inner =
      static_cast<size_t>(x.shape().elements(axis + 1, x.shape().rank())) * SizeOf(x.dtype());
  const size_t bytes = static_cast<size_t>(count) * inner;
  const auto* from = static_cast<const std::byte*>(x.data()) + static_cast<size_t>(begin) * inner;
  auto* to = static_cast<std::byte*>(part.mutable_data());
  for (int64_t block = 0; block < outer && bytes > 0; ++block) {
    std::memcpy(to, from, bytes);
    from += static_cast<size_t>(x.shape()[axis]) * inner;
    to += bytes;
  }
  return part;
}

Shape WithoutAxis(const Shape& shape, int axis) {
  Shape left;
  for (int i = 0; i < shape.rank(); ++i) {
    if (i != axis) left.push_back(shape[i]);
  }
  return left;
}

/// Source: ONNX SplitToSequence-11: `keepdims` counts where no `split` is given.
Outputs SplitToSequence(const Node& node, Inputs inputs) {
  OCTET_ASSIGN_OR_RETURN(const Tensor* x, TensorInput(inputs, 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t raw, node.attributes.Int("axis", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t keep, node.attributes.Int("keepdims", 1));
  OCTET_ASSIGN_OR_RETURN(const int axis, NormalizeNodeAxis(node, raw, x->shape().rank()));
  OCTET_ASSIGN_OR_RETURN(const std::vector<int64_t> extents, PartExtents(inputs, x->shape()[axis]));
  const bool drop = keep == 0 && InputAt(inputs, 1) == nullptr;
  std::vector<Tensor> parts;
  int64_t begin = 0;
  for (const int64_t extent : extents) {
    Tensor part = PartOf(*x, axis, begin, extent);
    parts.push_back(drop ? part.Reshaped(WithoutAxis(part.shape(), axis)) : std::move(part));
    begin += extent;
  }
  return One(Datum::Sequence(std::move(parts)));
}

/// The tensors one behind the other along the axis, or stacked along a new one. Source: ONNX ConcatFromSequence-11.
Outputs ConcatFromSequence(const Node& node, Inputs inputs) {
  OCTET_ASSIGN_OR_RETURN(const auto* sequence, SequenceInput(inputs, 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t raw, node.attributes.Int("axis", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t new_axis, node.attributes.Int("new_axis", 0));
  if (sequence->empty())
    return InvalidArgument("the sequence is empty: nothing says of what shape");
  std::vector<Tensor> parts = *sequence;
  const int rank = parts.front().shape().rank() + (new_axis != 0 ? 1 : 0);
  OCTET_ASSIGN_OR_RETURN(const int axis, NormalizeNodeAxis(node, raw, rank));
  Shape shape;
  for (Tensor& part : parts) {
    if (new_axis != 0) {
      Shape longer = part.shape();
      if (longer.rank() + 1 == rank) {
        longer = Shape(part.shape().dims().first(axis));
        longer.push_back(1);
        for (int i = axis; i < part.shape().rank(); ++i) longer.push_back(part.shape()[i]);
        part = part.Reshaped(longer);
      }
    }
    const bool first = shape.rank() == 0;
    const Shape& own = part.shape();
    if (own.rank() != rank || part.dtype() != parts.front().dtype() ||
        (!first && WithoutAxis(own, axis) != WithoutAxis(shape, axis))) {
      return InvalidArgument("the tensors of the sequence differ: {} and {}",
                             parts.front().shape().ToString(), own.ToString());
    }
    if (first) {
      shape = own;
    } else {
      shape[axis] += own[axis];
    }
  }
  Tensor y(parts.front().dtype(), shape);
  auto* to = static_cast<std::byte*>(y.mutable_data());
  const int64_t outer = shape.elements(0, axis);
  for (int64_t block = 0; block < outer; ++block) {
    for (const Tensor& part : parts) {
      const size_t bytes = part.bytes() / static_cast<size_t>(outer);
      if (bytes > 0) {
        std::memcpy(to,
                    static_cast<const std::byte*>(part.data()) + static_cast<size_t>(block) * bytes,
                    bytes);
      }
      to += bytes;
    }
  }
  return One(Datum::Of(std::move(y)));
}

Outputs MakeOptional(const Node& /*node*/, Inputs inputs) {
  return One(InputAt(inputs, 0) == nullptr ? Datum() : *inputs[0]);
}

Outputs OptionalHasElement(const Node& /*node*/, Inputs inputs) {
  const Datum* datum = InputAt(inputs, 0);
  const bool has = datum != nullptr && datum->kind != Datum::Kind::kEmpty;
  return One(Datum::Of(Tensor::Scalar<bool>(has)));
}

Outputs OptionalGetElement(const Node& /*node*/, Inputs inputs) {
  if (inputs[0]->kind == Datum::Kind::kEmpty) return InvalidArgument("the optional has no element");
  return One(*inputs[0]);
}

constexpr OpTraits kAnyKind = {
    .any_types = true, .no_fold = true, .any_kind = true, .strings = true};

constexpr OpDef SequenceOp(std::string_view name, int since, InferFn infer, EvaluateFn evaluate) {
  return {.domain = kOnnxDomain,
          .name = name,
          .since = since,
          .infer = infer,
          .traits = kAnyKind,
          .evaluate = evaluate};
}

}  // namespace

std::span<const OpDef> SequenceOps() {
  static constexpr OpDef kOps[] = {
      SequenceOp("SequenceEmpty", 11, InferSequenceEmpty, SequenceEmpty),
      SequenceOp("SequenceConstruct", 11, InferSequenceConstruct, SequenceConstruct),
      SequenceOp("SequenceAt", 11, InferSequenceAt, SequenceAt),
      SequenceOp("SequenceInsert", 11, InferSequenceInsert, SequenceInsert),
      SequenceOp("SequenceErase", 11, InferSequenceErase, SequenceErase),
      SequenceOp("SequenceLength", 11, InferSequenceLength, SequenceLength),
      SequenceOp("SplitToSequence", 11, InferSplitToSequence, SplitToSequence),
      SequenceOp("ConcatFromSequence", 11, InferConcatFromSequence, ConcatFromSequence),
      SequenceOp("Optional", 15, InferOptional, MakeOptional),
      SequenceOp("OptionalHasElement", 15, InferOptionalHasElement, OptionalHasElement),
      SequenceOp("OptionalGetElement", 15, InferOptionalGetElement, OptionalGetElement),
  };
  return kOps;
}

}  // namespace octet
