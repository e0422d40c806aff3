// Operators along one axis or over one plane that keep the shape: CumSum, Trilu, ReverseSequence.
#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/ops/binary_math.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr DTypeSet kSummed = kFloats | DTypeSet{DType::kI32, DType::kI64, DType::kU32, DType::kU64};
constexpr Types<float, double, int32_t, int64_t, uint32_t, uint64_t> kSummedKernels;

absl::Status InferCumSum(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kSummed));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kIndexTypes));
  OCTET_RETURN_IF_ERROR(ExpectScalar(context, 1));
  if (const auto axis = context.ConstantInts(1); axis && context.shape(0)) {
    const int rank = context.shape(0)->rank();
    OCTET_RETURN_IF_ERROR(NormalizeNodeAxis(context.node(), axis->front(), rank).status());
  }
  return context.SetOutput(0, context.dtype(0), context.shape(0));
}

/// y[i] = x[0] + ... + x[i] along the axis; exclusive: without x[i]; reverse: from the other end. The axis is an input.
absl::StatusOr<Kernel> MakeCumSum(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const int64_t exclusive, context.node.attributes.Int("exclusive", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t reverse, context.node.attributes.Int("reverse", 0));
  return KernelFor(
      kSummedKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=, node = context.node](std::span<const ConstTensorView> inputs,
                                        std::span<const TensorView> outputs) -> absl::Status {
          const Shape& shape = inputs[0].shape();
          OCTET_ASSIGN_OR_RETURN(const int axis,
                                 NormalizeNodeAxis(node, ToInts(inputs[1]).front(), shape.rank()));
          const int64_t extent = shape[axis];
          const int64_t inner = shape.elements(axis + 1, shape.rank());
          for (int64_t g = 0; g < shape.elements(0, axis) * inner; ++g) {
            const int64_t first = g / inner * extent * inner + g % inner;
            T sum{0};
            for (int64_t i = 0; i < extent; ++i) {
              const int64_t at = first + (reverse != 0 ? extent - 1 - i : i) * inner;
              const T x = inputs[0].as<T>()[at];
              const T next = math::Add{}(sum, x);
              outputs[0].as<T>()[at] = exclusive != 0 ? sum : next;
              sum = next;
            }
          }
          return absl::OkStatus();
        };
      });
}

absl::Status InferTrilu(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, {DType::kI64}));
  OCTET_RETURN_IF_ERROR(ExpectScalar(context, 1));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, INT_MAX));
  return context.SetOutput(0, context.dtype(0), context.shape(0));
}

/// The elements on and above diagonal k of every matrix (upper = 1), or on and below it; zeros elsewhere.
absl::StatusOr<Kernel> MakeTrilu(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const int64_t upper, context.node.attributes.Int("upper", 1));
  const DType stored = StorageOf(context.inputs[0].dtype());
  return KernelFor(kStorageKernels, stored, context.node, [&]<typename T>() -> Kernel {
    return [upper](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
      const bool given = inputs.size() > 1 && inputs[1].data != nullptr;
      const int64_t k =
          given ? std::clamp(*inputs[1].as<int64_t>(), -kMaxElements, kMaxElements) : 0;
      const Shape& shape = inputs[0].shape();
      const int64_t columns = shape.back();
      const int64_t rows = shape[shape.rank() - 2];
      const T* x = inputs[0].as<T>();
      T* y = outputs[0].as<T>();
      for (int64_t i = 0; i < outputs[0].elements(); ++i) {
        const int64_t diagonal = i % columns - i / columns % rows;
        y[i] = (upper != 0 ? diagonal >= k : diagonal <= k) ? x[i] : T{0};
      }
      return absl::OkStatus();
    };
  });
}

absl::Status InferReverseSequence(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, {DType::kI64}));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, INT_MAX));
  OCTET_ASSIGN_OR_RETURN(const int64_t batch, context.attributes().Int("batch_axis", 1));
  OCTET_ASSIGN_OR_RETURN(const int64_t time, context.attributes().Int("time_axis", 0));
  if (batch < 0 || batch > 1 || time != 1 - batch)
    return context.Error("'batch_axis' and 'time_axis' must be 0 and 1, or 1 and 0");
  if (context.shape(0)) {
    OCTET_RETURN_IF_ERROR(ExpectVector(context, 1, (*context.shape(0))[static_cast<int>(batch)]));
  }
  return context.SetOutput(0, context.dtype(0), context.shape(0));
}

/// The first sequence_lens[b] steps of every batch row b come in reverse.
absl::StatusOr<Kernel> MakeReverseSequence(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const int64_t batch_axis, context.node.attributes.Int("batch_axis", 1));
  const TensorSpec spec = context.inputs[0].spec;
  const size_t block =
      static_cast<size_t>(spec.shape.elements(2, spec.shape.rank())) * SizeOf(spec.dtype);
  return [=, name = Describe(context.node)](std::span<const ConstTensorView> inputs,
                                            std::span<const TensorView> outputs) -> absl::Status {
    const int64_t batches = spec.shape[static_cast<int>(batch_axis)];
    const int64_t steps = spec.shape[static_cast<int>(1 - batch_axis)];
    const auto at = [&](int64_t b, int64_t t) {
      return static_cast<size_t>(batch_axis == 1 ? t * batches + b : b * steps + t) * block;
    };
    for (int64_t b = 0; b < batches; ++b) {
      const int64_t length = inputs[1].as<int64_t>()[b];
      if (length < 0 || length > steps)
        return InvalidArgument("{}: sequence {} of {} steps has length {}", name, b, steps, length);
      for (int64_t t = 0; t < steps; ++t) {
        std::memcpy(outputs[0].as<std::byte>() + at(b, t),
                    inputs[0].as<std::byte>() + at(b, t < length ? length - 1 - t : t), block);
      }
    }
    return absl::OkStatus();
  };
}

}  // namespace

std::span<const OpDef> CumulativeOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "CumSum", 11, INT_MAX, InferCumSum, MakeCumSum},
      {kOnnxDomain, "Trilu", 14, INT_MAX, InferTrilu, MakeTrilu},
      {kOnnxDomain, "ReverseSequence", 10, INT_MAX, InferReverseSequence, MakeReverseSequence},
  };
  return kOps;
}

}  // namespace octet
