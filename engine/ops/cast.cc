// Changes of element type: Cast, CastLike, octet:Convert (engine/README.md).
#include "engine/ops/dispatch.h"
#include "engine/ops/elementwise_lowering.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op_list.h"
#include "engine/ops/text_numbers.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// `to` selects the type. `saturate` (opset 19) speaks of float8 alone and is ignored.
absl::Status InferCast(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kAnyTypes | kStrings));
  OCTET_ASSIGN_OR_RETURN(const int64_t to, context.attributes().Int("to", 0));
  const std::optional<DType> type = DTypeOfOnnx(to);
  if (!type)
    return Unimplemented("{}: unsupported element type {} of ONNX", Describe(context.node()), to);
  return context.SetOutput(0, *type, context.shape(0));
}

absl::Status InferCastLike(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kAnyTypes | kStrings));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kAnyTypes | kStrings));
  return context.SetOutput(0, context.dtype(1), context.shape(0));
}

/// The pass that makes a Convert also decides the stored type of its output.
absl::Status InferConvert(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  const DType stored = context.output(0).quant ? DType::kF32 : context.output(0).dtype;
  if (stored == DType::kUndefined) return context.Error("the output has no element type");
  return context.SetOutput(0, stored, context.shape(0));
}

absl::StatusOr<Kernel> MakeConversion(const KernelContext&) {
  return Kernel([](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    ConvertTensor(inputs[0], outputs[0]);
    return absl::OkStatus();
  });
}

/// From strings, or to them; numbers alone have a kernel.
absl::StatusOr<std::vector<Datum>> CastText(const Node& node,
                                            std::span<const Datum* const> inputs) {
  const Tensor& x = inputs[0]->tensor;
  DType to = DType::kUndefined;
  if (node.op == "CastLike") {
    to = inputs[1]->tensor.dtype();
  } else {
    OCTET_ASSIGN_OR_RETURN(const int64_t number, node.attributes.Int("to", 0));
    to = DTypeOfOnnx(number).value_or(DType::kUndefined);
  }
  if (x.dtype() == to) return std::vector<Datum>{Datum::Of(x)};
  if (to == DType::kString) return std::vector<Datum>{Datum::Of(TextOfNumbers(x))};
  OCTET_ASSIGN_OR_RETURN(Tensor numbers, NumbersInText(x, to));
  return std::vector<Datum>{Datum::Of(std::move(numbers))};
}

constexpr OpTraits kConverts = {.elementwise_unary = true, .any_types = true};
constexpr OpTraits kCasts = {.elementwise_unary = true, .any_types = true, .strings = true};

constexpr OpDef kCastOps[] = {
    {.domain = kOnnxDomain,
     .name = "Cast",
     .since = 6,
     .infer = InferCast,
     .kernel = MakeConversion,
     .lower = LowerElementwiseKernel,
     .traits = kCasts,
     .evaluate = CastText},
    {.domain = kOnnxDomain,
     .name = "CastLike",
     .since = 15,
     .infer = InferCastLike,
     .kernel = MakeConversion,
     .lower = LowerElementwiseKernel,
     .traits = kCasts,
     .evaluate = CastText},
    {.domain = kOctetDomain,
     .name = "Convert",
     .infer = InferConvert,
     .kernel = MakeConversion,
     .lower = LowerConvert,
     .traits = kConverts},
};

}  // namespace

std::span<const OpDef> CastOps() { return kCastOps; }

}  // namespace octet
