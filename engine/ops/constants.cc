// Operators that make constants, ask for shapes, or pass their input on:
// Constant, ConstantOfShape, Shape, Size, Range, EyeLike, Identity, Dropout.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "engine/ops/binary_math.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Copies bytes of equal count; the kernel of everything that only passes elements on.
void CopyElements(const ConstTensorView& src, const TensorView& dst) {
  if (src.data != dst.data && dst.bytes() != 0) std::memcpy(dst.data, src.data, dst.bytes());
}

template <typename T>
Tensor OneDimensional(const std::vector<T>& values) {
  return Tensor::From<T>(Shape{static_cast<int64_t>(values.size())}, std::span<const T>(values));
}

/// The tensor of a Constant node, from whichever value attribute it has.
/// Source: ONNX Constant-13 (sparse_value is not supported).
absl::StatusOr<Tensor> ConstantTensor(const Node& node) {
  const Attributes& attributes = node.attributes;
  if (attributes.has("value")) {
    OCTET_ASSIGN_OR_RETURN(const Tensor* tensor, attributes.TensorOrNull("value"));
    return *tensor;
  }
  if (attributes.has("value_float")) {
    OCTET_ASSIGN_OR_RETURN(const float value, attributes.Float("value_float", 0));
    return Tensor::Scalar(value);
  }
  if (attributes.has("value_int")) {
    OCTET_ASSIGN_OR_RETURN(const int64_t value, attributes.Int("value_int", 0));
    return Tensor::Scalar(value);
  }
  if (attributes.has("value_floats")) {
    OCTET_ASSIGN_OR_RETURN(const std::vector<float> values, attributes.Floats("value_floats", {}));
    return OneDimensional(values);
  }
  if (attributes.has("value_ints")) {
    OCTET_ASSIGN_OR_RETURN(const std::vector<int64_t> values, attributes.Ints("value_ints", {}));
    return OneDimensional(values);
  }
  if (attributes.has("value_string")) {
    OCTET_ASSIGN_OR_RETURN(const std::string value, attributes.String("value_string", ""));
    const std::string_view text = value;
    return Tensor::Strings(Shape{}, {&text, 1});
  }
  if (attributes.has("value_strings")) {
    OCTET_ASSIGN_OR_RETURN(const auto values, attributes.Strings("value_strings", {}));
    const std::vector<std::string_view> texts(values.begin(), values.end());
    return Tensor::Strings(Shape{std::ssize(texts)}, texts);
  }
  return Unimplemented("{}: unsupported value: neither tensor, numbers nor strings",
                       Describe(node));
}

absl::Status InferConstant(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 0, 0));
  OCTET_ASSIGN_OR_RETURN(const Tensor tensor, ConstantTensor(context.node()));
  return context.SetOutput(0, tensor.dtype(), tensor.shape());
}

absl::StatusOr<Kernel> MakeConstant(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const Tensor tensor, ConstantTensor(context.node));
  return Kernel([tensor](std::span<const ConstTensorView>, std::span<const TensorView> outputs) {
    CopyElements(tensor.view(), outputs[0]);
    return absl::OkStatus();
  });
}

/// The one-element `value` attribute; 0.0F when absent.
absl::StatusOr<Tensor> FillValue(const Node& node) {
  OCTET_ASSIGN_OR_RETURN(const Tensor* value, node.attributes.TensorOrNull("value"));
  if (value == nullptr) return Tensor::Scalar(0.0F);
  if (value->elements() == 1) return *value;
  return InvalidArgument("{}: attribute 'value' needs one element, got shape {}", Describe(node),
                         value->shape().ToString());
}

absl::Status InferConstantOfShape(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, {DType::kI64}));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 1, 1));
  OCTET_ASSIGN_OR_RETURN(const Tensor value, FillValue(context.node()));
  std::optional<Shape> shape;
  if (const auto dims = context.ConstantInts(0)) {
    if (!CheckedElements(*dims)) {
      return context.Error(Format("cannot make shape {}", Shape(*dims).ToString()));
    }
    shape = Shape(*dims);
  } else if (context.shape(0) && context.shape(0)->is_static()) {
    shape = UnknownShape((*context.shape(0))[0]);
  }
  return context.SetOutput(0, value.dtype(), std::move(shape));
}

absl::StatusOr<Kernel> MakeConstantOfShape(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const Tensor value, FillValue(context.node));
  const DType stored = StorageOf(value.dtype());
  return KernelFor(kStorageKernels, stored, context.node, [&]<typename T>() -> Kernel {
    const T fill = *static_cast<const T*>(value.data());
    return [fill](std::span<const ConstTensorView>, std::span<const TensorView> outputs) {
      std::ranges::fill(outputs[0].span<T>(), fill);
      return absl::OkStatus();
    };
  });
}

/// The axes [start, end) that Shape returns. Source: ONNX Shape-15.
struct AxisRange {
  int64_t start = 0;
  int64_t end = 0;
};

absl::StatusOr<AxisRange> ShapeAxes(const Node& node, int64_t rank) {
  OCTET_ASSIGN_OR_RETURN(int64_t start, node.attributes.Int("start", 0));
  OCTET_ASSIGN_OR_RETURN(int64_t end, node.attributes.Int("end", rank));
  if (start < 0) start += rank;
  if (end < 0) end += rank;
  start = std::clamp<int64_t>(start, 0, rank);
  return AxisRange{start, std::clamp(end, start, rank)};
}

absl::Status InferShape(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  if (!context.shape(0)) return context.SetOutput(0, DType::kI64, Shape{kUnknownDim});
  OCTET_ASSIGN_OR_RETURN(const AxisRange axes, ShapeAxes(context.node(), context.shape(0)->rank()));
  return context.SetOutput(0, DType::kI64, Shape{axes.end - axes.start});
}

absl::StatusOr<Kernel> MakeShape(const KernelContext& context) {
  const Shape shape = context.inputs[0].shape();
  OCTET_ASSIGN_OR_RETURN(const AxisRange axes, ShapeAxes(context.node, shape.rank()));
  const std::vector<int64_t> extents(shape.begin() + axes.start, shape.begin() + axes.end);
  return Kernel([extents](std::span<const ConstTensorView>, std::span<const TensorView> outputs) {
    std::ranges::copy(extents, outputs[0].as<int64_t>());
    return absl::OkStatus();
  });
}

absl::Status InferSize(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  return context.SetOutput(0, DType::kI64, Shape{});
}

absl::StatusOr<Kernel> MakeSize(const KernelContext& context) {
  const int64_t elements = context.inputs[0].elements();
  return Kernel([elements](std::span<const ConstTensorView>, std::span<const TensorView> outputs) {
    *outputs[0].as<int64_t>() = elements;
    return absl::OkStatus();
  });
}

constexpr DTypeSet kRangeTypes = {DType::kF32, DType::kF64, DType::kI16, DType::kI32, DType::kI64};
constexpr Types<float, double, int16_t, int32_t, int64_t> kRangeKernels;

/// Elements of a Range of integers, or -1, exactly: a double has not the digits of two times in nanoseconds.
int64_t WholeRangeCount(int64_t start, int64_t limit, int64_t delta) {
  if (delta == 0) return -1;
  if (delta > 0 ? limit <= start : limit >= start) return 0;
  // Unsigned, no difference is too large.
  const auto from = static_cast<uint64_t>(start);
  const auto to = static_cast<uint64_t>(limit);
  const auto step = static_cast<uint64_t>(delta);
  const uint64_t count =
      delta > 0 ? (to - from - 1) / step + 1 : (from - to - 1) / (uint64_t{0} - step) + 1;
  return count < uint64_t{1} << 31 ? static_cast<int64_t>(count) : -1;
}

/// max(ceil((limit - start) / delta), 0), or -1 when that is no number or out of reach.
template <typename T>
int64_t RangeCount(const void* start, const void* limit, const void* delta) {
  const auto read = [](const void* p) { return *static_cast<const T*>(p); };
  if constexpr (std::is_integral_v<T>)
    return WholeRangeCount(read(start), read(limit), read(delta));
  const double distance = static_cast<double>(read(limit)) - static_cast<double>(read(start));
  const double count = std::ceil(distance / static_cast<double>(read(delta)));
  if (!(count < 0x1p31)) return -1;
  return std::max<int64_t>(static_cast<int64_t>(std::max(count, 0.0)), 0);
}

absl::StatusOr<int64_t> ConstantRangeCount(const InferContext& context) {
  const void* start = context.constant(0)->data();
  const void* limit = context.constant(1)->data();
  const void* delta = context.constant(2)->data();
  int64_t count = -1;
  switch (context.dtype(0)) {
    case DType::kF32:
      count = RangeCount<float>(start, limit, delta);
      break;
    case DType::kF64:
      count = RangeCount<double>(start, limit, delta);
      break;
    case DType::kI16:
      count = RangeCount<int16_t>(start, limit, delta);
      break;
    case DType::kI32:
      count = RangeCount<int32_t>(start, limit, delta);
      break;
    case DType::kI64:
      count = RangeCount<int64_t>(start, limit, delta);
      break;
    default:
      break;
  }
  if (count < 0) return context.Error("has no finite number of elements, or more than 2^31");
  return count;
}

absl::Status InferRange(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 3, 3));
  bool constant = true;
  for (size_t i = 0; i < 3; ++i) {
    OCTET_RETURN_IF_ERROR(ExpectDType(context, i, kRangeTypes));
    OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, i));
    const Tensor* tensor = context.constant(i);
    constant = constant && tensor != nullptr;
    if (tensor != nullptr && (tensor->elements() != 1 || context.input(i).quant)) {
      return context.Error(Format("input {} must be a scalar", i));
    }
  }
  Shape shape{kUnknownDim};
  if (constant) {
    OCTET_ASSIGN_OR_RETURN(shape[0], ConstantRangeCount(context));
  }
  return context.SetOutput(0, context.dtype(0), std::move(shape));
}

absl::StatusOr<Kernel> MakeRange(const KernelContext& context) {
  const DType dtype = context.inputs[0].dtype();
  return KernelFor(kRangeKernels, dtype, context.node, [&]<typename T>() -> Kernel {
    return [](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
      const T start = *inputs[0].as<T>();
      const T delta = *inputs[2].as<T>();
      const auto out = outputs[0].span<T>();
      for (size_t i = 0; i < out.size(); ++i) {
        out[i] = math::Add{}(start, math::Mul{}(static_cast<T>(i), delta));
      }
      return absl::OkStatus();
    };
  });
}

absl::Status InferEyeLike(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, 2));
  OCTET_ASSIGN_OR_RETURN(
      const int64_t dtype,
      context.attributes().Int("dtype", static_cast<int64_t>(DType::kUndefined)));
  if (!context.attributes().has("dtype"))
    return context.SetOutput(0, context.dtype(0), context.shape(0));
  const std::optional<DType> type = DTypeOfOnnx(dtype);
  if (!type)
    return Unimplemented("{}: unsupported element type {} of ONNX", Describe(context.node()),
                         dtype);
  return context.SetOutput(0, *type, context.shape(0));
}

absl::StatusOr<Kernel> MakeEyeLike(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const int64_t diagonal, context.node.attributes.Int("k", 0));
  const int64_t k = std::clamp(diagonal, -kMaxElements, kMaxElements);
  const DType dtype = context.outputs[0].dtype;
  return KernelFor(kNumberAndBoolKernels, dtype, context.node, [&]<typename T>() -> Kernel {
    return [k](std::span<const ConstTensorView>, std::span<const TensorView> outputs) {
      const int64_t rows = outputs[0].shape()[0];
      const int64_t columns = outputs[0].shape()[1];
      std::ranges::fill(outputs[0].span<T>(), T{0});
      for (int64_t r = std::max<int64_t>(0, -k); r < rows && r + k < columns; ++r) {
        outputs[0].as<T>()[r * columns + r + k] = T{1};
      }
      return absl::OkStatus();
    };
  });
}

absl::StatusOr<Kernel> MakeIdentity(const KernelContext&) {
  return Kernel([](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    CopyElements(inputs[0], outputs[0]);
    return absl::OkStatus();
  });
}

/// UNIMPLEMENTED unless the node drops nothing: outside training, or with a ratio of 0.
absl::Status ExpectNothingDropped(const InferContext& context) {
  if (!context.has_input(2)) return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 2, kBools));
  const Tensor* training = context.constant(2);
  if (training == nullptr || training->elements() != 1) {
    return Unimplemented("{}: unsupported 'training_mode' that is known only when it runs",
                         Describe(context.node()));
  }
  if (!training->span<bool>()[0]) return absl::OkStatus();
  double ratio = 0.5;
  if (context.has_input(1)) {
    OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kFloats));
    const Tensor* given = context.constant(1);
    if (given == nullptr || given->elements() != 1) {
      return Unimplemented("{}: unsupported 'ratio' that is known only when it runs",
                           Describe(context.node()));
    }
    ConvertTensor(given->view(), {&ratio, {DType::kF64, given->shape()}});
  }
  if (ratio == 0) return absl::OkStatus();
  return Unimplemented("{}: unsupported 'training_mode' with a 'ratio' of {}",
                       Describe(context.node()), ratio);
}

/// Inference, or training that drops nothing: output = data, mask = all true, of data's type before opset 10. Source: ONNX
/// Dropout-7, -10, -12, -13.
absl::Status InferDropout(InferContext& context) {
  const bool has_inputs = context.node().version >= 12;
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, has_inputs ? 3 : 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectNothingDropped(context));
  OCTET_RETURN_IF_ERROR(context.SetOutput(0, context.dtype(0), context.shape(0)));
  const DType mask = context.node().version < 10 ? context.dtype(0) : DType::kBool;
  return context.SetOutput(1, mask, context.shape(0));
}

absl::StatusOr<Kernel> MakeDropout(const KernelContext&) {
  return Kernel([](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    CopyElements(inputs[0], outputs[0]);
    if (outputs.size() < 2 || outputs[1].data == nullptr) return absl::OkStatus();
    const TensorView& mask = outputs[1];
    if (mask.dtype() == DType::kBool) {
      std::ranges::fill(mask.span<bool>(), true);
      return absl::OkStatus();
    }
    Tensor ones(DType::kF32, mask.shape());
    std::ranges::fill(ones.mutable_span<float>(), 1.0F);
    ConvertTensor(ones.view(), mask);
    return absl::OkStatus();
  });
}

absl::Status InferIdentity(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  const ValueKind kind = context.input(0).kind;
  if (kind == ValueKind::kTensor) return InferSameAsInput(context, kAnyTypes | kStrings);
  return context.SetOutput(0, ValueType{kind, context.dtype(0)}, std::nullopt);
}

/// Sequences and optionals; tensors have a kernel.
absl::StatusOr<std::vector<Datum>> PassOn(const Node& /*node*/,
                                          std::span<const Datum* const> inputs) {
  return std::vector<Datum>{*inputs[0]};
}

constexpr OpTraits kReadsAnyType = {.any_types = true, .strings = true};
constexpr OpTraits kPassesOn = {.view = true, .data_movement = true};
constexpr OpTraits kPassesOnAnyKind = {
    .view = true, .data_movement = true, .any_kind = true, .strings = true};

constexpr OpDef kConstantOps[] = {
    {.domain = kOnnxDomain,
     .name = "Constant",
     .infer = InferConstant,
     .kernel = MakeConstant,
     .traits = kReadsAnyType},
    {.domain = kOnnxDomain,
     .name = "ConstantOfShape",
     .since = 9,
     .infer = InferConstantOfShape,
     .kernel = MakeConstantOfShape,
     .traits = {.any_types = true}},
    {.domain = kOnnxDomain,
     .name = "Shape",
     .infer = InferShape,
     .kernel = MakeShape,
     .traits = kReadsAnyType},
    {.domain = kOnnxDomain,
     .name = "Size",
     .infer = InferSize,
     .kernel = MakeSize,
     .traits = kReadsAnyType},
    {.domain = kOnnxDomain, .name = "Range", .since = 11, .infer = InferRange, .kernel = MakeRange},
    {.domain = kOnnxDomain,
     .name = "EyeLike",
     .since = 9,
     .infer = InferEyeLike,
     .kernel = MakeEyeLike},
    {.domain = kOnnxDomain,
     .name = "Identity",
     .infer = InferIdentity,
     .kernel = MakeIdentity,
     .traits = kPassesOnAnyKind,
     .evaluate = PassOn},
    {.domain = kOnnxDomain,
     .name = "Dropout",
     .since = 7,
     .infer = InferDropout,
     .kernel = MakeDropout,
     .traits = kPassesOn},
};

}  // namespace

std::span<const OpDef> ConstantOps() { return kConstantOps; }

}  // namespace octet
